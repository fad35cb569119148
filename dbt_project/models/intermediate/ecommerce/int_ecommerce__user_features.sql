-- made anew by each build: the rights of ml are given in the same transaction
{{ config(materialized='view', post_hook="select audit.grant_rights('{{ this.schema }}')") }}

with user_totals as (

    select * from {{ ref('int_ecommerce__user_totals') }}

),

as_of as (

    select * from {{ ref('int_ecommerce__as_of') }}

),

user_ages as (

    select
        user_totals.*,
        as_of.as_of_at,
        -- date_part is extract in double precision: a third of the time
        date_part('epoch', as_of.as_of_at - user_totals.last_purchase_at) / 86400 as days_since_purchase,
        date_part('epoch', as_of.as_of_at - user_totals.first_seen_at) / 86400 as tenure_days,
        date_part('epoch', as_of.as_of_at - user_totals.last_seen_at) / 86400 as inactivity_days
    from user_totals
    cross join as_of

),

user_features as (

    select
        user_id,
        as_of_at,
        first_seen_at,
        last_seen_at,
        last_purchase_at,
        -- null, not zero, for those who never bought: a zero would say that they bought today
        cast(floor(days_since_purchase) as integer) as recency_days,
        -- a user seen for less than a month counts as seen for one
        cast(nullif(purchase_count, 0) / greatest(tenure_days / 30.4375, 1) as double precision) as frequency_per_month,
        monetary_eur,
        category_count,
        cast(cart_count + purchase_count as double precision) / nullif(view_count, 0) as engagement_ratio,
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
        cast(monetary_eur as double precision) / nullif(purchase_session_count, 0) as average_basket_eur,
        cast(viewed_value_eur as double precision) / nullif(view_count, 0) as average_viewed_price_eur,
        cast(monetary_eur as double precision) / nullif(purchase_count, 0) as average_purchase_price_eur,
        max_purchase_price_eur,
        cast(price_stddev_eur as double precision) as price_stddev_eur,
        cast(weekend_event_count as double precision) / event_count as weekend_ratio,
        cast(night_event_count as double precision) / event_count as night_ratio,
        cast(purchase_count as double precision) / nullif(view_count, 0) as conversion_ratio,
        cast(cart_count as double precision) / nullif(view_count, 0) as cart_ratio,
        cast(purchase_count as double precision) / nullif(cart_count, 0) as cart_completion_ratio,
        cast(removal_count as double precision) / nullif(cart_count, 0) as removal_ratio,
        cast(purchase_session_count as double precision) / session_count as purchase_session_ratio,
        cast(event_count as double precision) / session_count as events_per_session,
        cast(session_minutes as double precision) / session_count as average_session_minutes,
        tenure_days,
        inactivity_days
    from user_ages

)

select * from user_features
