with flagged_purchases as (

    select * from {{ ref('int_ecommerce__purchases') }}

),

purchases as (

    select
        purchase_id,
        user_id,
        purchased_at,
        product_id,
        category_code,
        brand,
        price_eur,
        is_price_outlier
    from flagged_purchases

)

select * from purchases
