with events as (

    select * from {{ ref('int_ecommerce__events') }}

),

descriptions as (

    select
        product_id,
        category_id,
        category_code,
        brand,
        min(event_at) as first_seen_at,
        max(event_at) as last_seen_at,
        count(*) as event_count
    from events
    group by product_id, category_id, category_code, brand

),

latest_descriptions as (

    select distinct on (product_id)
        product_id,
        category_id,
        category_code,
        brand
    from descriptions
    order by product_id asc, last_seen_at desc, event_count desc, category_id asc, category_code asc, brand asc

),

histories as (

    select
        product_id,
        min(first_seen_at) as first_seen_at,
        max(last_seen_at) as last_seen_at,
        sum(event_count) as event_count,
        count(distinct category_id) + count(distinct category_code) filter (where category_id is null)
            as category_count
    from descriptions
    group by product_id

),

products as (

    select
        histories.product_id,
        latest_descriptions.category_id,
        latest_descriptions.category_code,
        latest_descriptions.brand,
        histories.first_seen_at,
        histories.last_seen_at,
        cast(histories.event_count as bigint) as event_count,
        histories.category_count > 1 as has_category_changed
    from histories
    inner join latest_descriptions on histories.product_id = latest_descriptions.product_id

)

select * from products
