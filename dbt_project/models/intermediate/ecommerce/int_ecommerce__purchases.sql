with events as (

    select * from {{ ref('int_ecommerce__events') }}

),

purchases as (

    select
        -- not the event_id, from which the seconds could be guessed: readers get the minute and a number within it
        hash_record_extended(
            row(
                user_id,
                event_at,
                product_id,
                row_number() over (partition by user_id, event_at, product_id order by event_id)
            ),
            0
        ) as purchase_id,
        user_id,
        event_at as purchased_at,
        product_id,
        category_code,
        brand,
        price_eur
    from events
    where event_type = 'purchase'

),

quartiles as (

    select
        percentile_cont(0.25) within group (order by price_eur) as first_quartile_eur,
        percentile_cont(0.75) within group (order by price_eur) as third_quartile_eur,
        percentile_cont(0.75) within group (order by price_eur)
        - percentile_cont(0.25) within group (order by price_eur) as range_eur
    from purchases

),

flagged as (

    select
        purchases.purchase_id,
        purchases.user_id,
        purchases.purchased_at,
        purchases.product_id,
        purchases.category_code,
        purchases.brand,
        purchases.price_eur,
        -- flagged, never dropped: the outliers are the best customers
        purchases.price_eur < quartiles.first_quartile_eur - 1.5 * quartiles.range_eur
        or purchases.price_eur > quartiles.third_quartile_eur + 1.5 * quartiles.range_eur
            as is_price_outlier
    from purchases
    cross join quartiles

)

select * from flagged
