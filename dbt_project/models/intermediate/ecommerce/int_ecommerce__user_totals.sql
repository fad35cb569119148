{{ config(
    materialized='incremental',
    incremental_strategy='replace_users',
    full_refresh=false,
    on_schema_change='append_new_columns',
    indexes=[{'columns': ['user_id'], 'unique': true}],
    post_hook="{{ forget_stale_users() }}",
) }}

with events as (

    select * from {{ ref('int_ecommerce__events') }}
    {% if is_incremental() %}
    where user_id in ({{ stale_users() }})
    {% endif %}

),

sessions as (

    select * from {{ ref('int_ecommerce__sessions') }}
    {% if is_incremental() %}
    where user_id in ({{ stale_users() }})
    {% endif %}

),

event_totals as (

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
        cast(coalesce(sum(price_eur) filter (where event_type = 'view'), 0) as numeric(38, 2)) as viewed_value_eur,
        cast(coalesce(sum(price_eur) filter (where event_type = 'cart'), 0) as numeric(38, 2)) as carted_value_eur,
        cast(coalesce(sum(price_eur) filter (where event_type = 'purchase'), 0) as numeric(38, 2)) as monetary_eur,
        max(price_eur) filter (where event_type = 'purchase') as max_purchase_price_eur,
        -- exact numeric: a floating sum would depend on the order of the rows
        cast(stddev_samp(price_eur) as numeric(38, 6)) as price_stddev_eur,
        count(distinct category_id)
        + count(distinct category_code) filter (where category_id is null) as category_count,
        count(distinct category_id) filter (where event_type = 'purchase')
        + count(distinct category_code) filter (where event_type = 'purchase' and category_id is null)
            as purchased_category_count,
        count(distinct brand) filter (where brand <> 'unknown') as brand_count,
        count(*) filter (where extract(isodow from event_date) >= 6) as weekend_event_count,
        count(*) filter (
            where
            extract(hour from event_at at time zone 'UTC') >= 22
            or extract(hour from event_at at time zone 'UTC') < 6
        ) as night_event_count
    from events
    group by user_id

),

session_totals as (

    select
        user_id,
        count(*) as session_count,
        count(*) filter (where purchase_count > 0) as purchase_session_count,
        count(distinct cast(started_at at time zone 'UTC' as date)) as active_day_count,
        sum(duration_minutes) as session_minutes
    from sessions
    group by user_id

),

user_totals as (

    select
        event_totals.user_id,
        event_totals.first_seen_at,
        event_totals.last_seen_at,
        event_totals.last_purchase_at,
        event_totals.event_count,
        event_totals.view_count,
        event_totals.cart_count,
        event_totals.removal_count,
        event_totals.purchase_count,
        event_totals.viewed_value_eur,
        event_totals.carted_value_eur,
        event_totals.monetary_eur,
        event_totals.max_purchase_price_eur,
        event_totals.price_stddev_eur,
        event_totals.category_count,
        event_totals.purchased_category_count,
        event_totals.brand_count,
        event_totals.weekend_event_count,
        event_totals.night_event_count,
        session_totals.session_count,
        session_totals.purchase_session_count,
        session_totals.active_day_count,
        session_totals.session_minutes
    from event_totals
    inner join session_totals on event_totals.user_id = session_totals.user_id

)

select * from user_totals
