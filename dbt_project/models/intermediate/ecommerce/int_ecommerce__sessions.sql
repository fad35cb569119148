-- a view, for people: the totals of users are computed in one pass over the events, without it
{{ config(materialized='view') }}

with events as (

    select
        user_id,
        event_at,
        event_type,
        price_eur
    from {{ ref('int_ecommerce__events') }}

),

events_in_sessions as (

    {{ in_sessions('events') }}

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
    from events_in_sessions
    group by user_id, session_number

)

select * from sessions
