with described_products as (

    select * from {{ ref('int_ecommerce__products') }}

),

products as (

    select
        product_id,
        category_id,
        category_code,
        brand,
        first_seen_at,
        last_seen_at,
        event_count,
        has_category_changed
    from described_products

)

select * from products
