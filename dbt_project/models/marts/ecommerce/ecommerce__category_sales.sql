with sales as (

    select * from {{ ref('int_ecommerce__category_sales') }}

),

category_sales as (

    select
        category_sales_id,
        month_date,
        category,
        is_total,
        buyer_count,
        purchase_count,
        revenue_eur,
        is_suppressed
    from sales

)

select * from category_sales
