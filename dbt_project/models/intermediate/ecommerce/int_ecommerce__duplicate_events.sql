{{ config(
    materialized='incremental',
    incremental_strategy='replace_dates',
    full_refresh=false,
    on_schema_change='append_new_columns',
    post_hook="{{ note_built_loads(ref('stg_ecommerce__loads')) }}",
) }}

with staged_events as (

    select * from {{ ref('stg_ecommerce__events') }}
    {% if is_incremental() %}
    where
        _load_id = any(array({{ touched_loads(ref('stg_ecommerce__loads')) }}))
        and event_date in ({{ touched_dates(ref('stg_ecommerce__loads')) }})
    {% endif %}

),

events as (

    select * from {{ ref('int_ecommerce__events') }}
    {% if is_incremental() %}
    where event_date = any(array({{ touched_dates(ref('stg_ecommerce__loads')) }}))
    {% endif %}

),

duplicates as (

    select
        staged_events._load_id,
        staged_events._row_number,
        staged_events.event_id,
        staged_events.event_at,
        staged_events.event_date,
        staged_events.event_type,
        staged_events.user_id,
        staged_events.product_id
    from staged_events
    left join events
        on
            staged_events._load_id = events._load_id
            and staged_events._row_number = events._row_number
    where staged_events.is_clean and events._load_id is null

    {% if is_incremental() %}
    union all

    -- the raw lines of these were purged
    select
        built._load_id,
        built._row_number,
        built.event_id,
        built.event_at,
        built.event_date,
        built.event_type,
        built.user_id,
        built.product_id
    from {{ this }} as built
    inner join {{ ref('stg_ecommerce__loads') }} as loads on built._load_id = loads.load_id
    where
        not loads.is_in_raw
        and built.event_date in ({{ touched_dates(ref('stg_ecommerce__loads')) }})
    {% endif %}

)

select * from duplicates
