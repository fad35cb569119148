{{ config(
    materialized='incremental',
    incremental_strategy='replace_users',
    full_refresh=false,
    on_schema_change='append_new_columns',
    indexes=[{'columns': ['user_id'], 'unique': true}],
    pre_hook="{{ sort_all_users() }}",
    post_hook=["{{ forget_stale_users() }}", "analyze {{ this }}"],
) }}

with events as (

    select
        user_id,
        event_at,
        event_date,
        event_type,
        brand,
        price_eur,
        -- the category, by its code where the shop gave no number
        coalesce(category_id, hashtextextended(category_code, 0)) as category_key
    from {{ ref('int_ecommerce__events') }}
    {% if is_incremental() %}
    where user_id in ({{ stale_users() }})
    {% endif %}

),

events_in_sessions as (

    {{ in_sessions('events') }}

),

-- one pass over events sorted by user: at millions of users every further sort or join costs as much as the rest
totals as (

    select
        user_id,
        min(event_at) as first_seen_at,
        max(event_at) as last_seen_at,
        max(event_at) filter (where event_type = 'purchase') as last_purchase_at,
        count(*) as event_count,
        count(*) filter (where event_type = 'view') as view_count,
        count(*) filter (where event_type = 'cart') as cart_count,
        count(*) filter (where event_type = 'remove_from_cart') as removal_count,
        count(*) filter (where event_type = 'purchase') as purchase_count,
        sum(price_eur) filter (where event_type = 'view') as viewed_value_eur,
        sum(price_eur) filter (where event_type = 'cart') as carted_value_eur,
        sum(price_eur) filter (where event_type = 'purchase') as monetary_eur,
        max(price_eur) filter (where event_type = 'purchase') as max_purchase_price_eur,
        -- exact numeric: a floating sum would depend on the order of the rows
        stddev_samp(price_eur) as price_stddev_eur,
        count(distinct category_key) as category_count,
        count(distinct category_key) filter (where event_type = 'purchase') as purchased_category_count,
        count(distinct brand) filter (where brand <> 'unknown') as brand_count,
        count(*) filter (where extract(isodow from event_date) >= 6) as weekend_event_count,
        count(*) filter (
            where
            extract(hour from event_at at time zone 'UTC') >= 22
            or extract(hour from event_at at time zone 'UTC') < 6
        ) as night_event_count,
        max(session_number) as session_count,
        count(distinct session_number) filter (where event_type = 'purchase') as purchase_session_count,
        count(distinct event_date) filter (where is_session_start) as active_day_count,
        sum(time_since_previous) filter (where not is_session_start) as session_time
    from events_in_sessions
    group by user_id

),

user_totals as (

    select
        user_id,
        first_seen_at,
        last_seen_at,
        last_purchase_at,
        event_count,
        view_count,
        cart_count,
        removal_count,
        purchase_count,
        cast(coalesce(viewed_value_eur, 0) as numeric(38, 2)) as viewed_value_eur,
        cast(coalesce(carted_value_eur, 0) as numeric(38, 2)) as carted_value_eur,
        cast(coalesce(monetary_eur, 0) as numeric(38, 2)) as monetary_eur,
        max_purchase_price_eur,
        cast(price_stddev_eur as numeric(38, 6)) as price_stddev_eur,
        category_count,
        purchased_category_count,
        brand_count,
        weekend_event_count,
        night_event_count,
        session_count,
        purchase_session_count,
        active_day_count,
        cast(coalesce(extract(epoch from session_time) / 60, 0) as bigint) as session_minutes
    from totals

)

select * from user_totals
