{{ config(
    materialized='incremental',
    incremental_strategy='replace_users',
    full_refresh=false,
    on_schema_change='append_new_columns',
    indexes=[{'columns': ['user_id', 'session_number'], 'unique': true}],
    post_hook="{{ forget_stale_users() }}",
) }}

with events as (

    select
        user_id,
        event_at,
        event_type,
        price_eur
    from {{ ref('int_ecommerce__events') }}
    {% if is_incremental() %}
    where user_id in ({{ stale_users() }})
    {% endif %}

),

gaps as (

    select
        user_id,
        event_at,
        event_type,
        price_eur,
        event_at - lag(event_at) over (partition by user_id order by event_at) as time_since_previous
    from events

),

numbered as (

    select
        user_id,
        event_at,
        event_type,
        price_eur,
        -- no `rows` frame: events of one minute are peers and belong to one session, in whatever order they come
        count(*) filter (where time_since_previous is null or time_since_previous > interval '30 minutes')
            over (partition by user_id order by event_at) as session_number
    from gaps

),

sessions as (

    select
        user_id,
        cast(session_number as integer) as session_number,
        min(event_at) as started_at,
        max(event_at) as ended_at,
        cast(extract(epoch from max(event_at) - min(event_at)) / 60 as integer) as duration_minutes,
        count(*) as event_count,
        count(*) filter (where event_type = 'purchase') as purchase_count,
        cast(coalesce(sum(price_eur) filter (where event_type = 'purchase'), 0) as numeric(38, 2)) as revenue_eur
    from numbered
    group by user_id, session_number

)

select * from sessions
