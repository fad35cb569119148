with user_features as (

    select * from {{ ref('int_ecommerce__user_features') }}

),

users as (

    select
        user_id,
        first_seen_at,
        last_seen_at,
        last_purchase_at,
        last_purchase_at is not null as has_purchased,
        recency_days,
        frequency_per_month,
        monetary_eur,
        category_count,
        engagement_ratio,
        event_count,
        view_count,
        cart_count,
        removal_count,
        purchase_count,
        session_count,
        active_day_count,
        brand_count,
        purchased_category_count,
        viewed_value_eur,
        carted_value_eur,
        average_basket_eur,
        average_viewed_price_eur,
        average_purchase_price_eur,
        max_purchase_price_eur,
        price_stddev_eur,
        weekend_ratio,
        night_ratio,
        conversion_ratio,
        cart_ratio,
        cart_completion_ratio,
        removal_ratio,
        purchase_session_ratio,
        events_per_session,
        average_session_minutes,
        tenure_days,
        inactivity_days
    from user_features

)

select * from users
