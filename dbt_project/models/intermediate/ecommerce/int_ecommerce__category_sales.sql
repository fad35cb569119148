with purchases as (

    select * from {{ ref('int_ecommerce__purchases') }}

),

products as (

    select * from {{ ref('int_ecommerce__products') }}

),

as_of as (

    select * from {{ ref('int_ecommerce__as_of') }}

),

months_over as (

    -- of a month still running, the difference between two nights would show the sales of a day
    select cast(month_at as date) as month_date
    from as_of
    cross join generate_series(
        (select date_trunc('month', min(purchased_at) at time zone 'UTC') from purchases),
        date_trunc('month', as_of_at at time zone 'UTC' + interval '1 day') - interval '1 month',
        interval '1 month'
    ) as month_at

),

purchases_by_category as (

    select
        user_id,
        cast(date_trunc('month', purchased_at at time zone 'UTC') as date) as month_date,
        split_part(category_code, '.', 1) as category,
        1 as purchase_count,
        price_eur as revenue_eur
    from purchases

),

categories as (

    select split_part(category_code, '.', 1) as category from products
    union
    select category from purchases_by_category

),

contributions as (

    select
        purchases_by_category.user_id,
        purchases_by_category.month_date,
        purchases_by_category.category,
        purchases_by_category.purchase_count,
        purchases_by_category.revenue_eur
    from purchases_by_category
    inner join months_over on purchases_by_category.month_date = months_over.month_date

    union all

    -- every category has a row in every month: none bought looks like few bought
    select
        null as user_id,
        months_over.month_date,
        categories.category,
        0 as purchase_count,
        0 as revenue_eur
    from months_over
    cross join categories

),

hidden_where_small as (

    {{ small_cells(
        'contributions',
        cells=['month_date', 'category'],
        subject='user_id',
        values=['purchase_count', 'revenue_eur'],
        totals_by=['month_date'],
    ) }}

),

category_sales as (

    select
        to_char(month_date, 'YYYY-MM') || case when is_total then '' else ' ' || category end as category_sales_id,
        month_date,
        case when is_total then 'all' else category end as category,
        is_total,
        user_count as buyer_count,
        cast(purchase_count as bigint) as purchase_count,
        cast(revenue_eur as numeric(38, 2)) as revenue_eur,
        is_suppressed
    from hidden_where_small

)

select * from category_sales
