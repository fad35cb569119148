{{ config(
    materialized='incremental',
    incremental_strategy='replace_dates',
    full_refresh=false,
    on_schema_change='append_new_columns',
    post_hook="{{ note_built_loads(ref('stg_ecommerce__loads')) }}",
) }}

with events as (

    select * from {{ ref('stg_ecommerce__events') }}

),

rejected as (

    select
        _load_id,
        _row_number,
        rejection_reason,
        event_at,
        event_date,
        event_type,
        user_id,
        product_id,
        category_id,
        category_code,
        brand,
        price_eur
    from events
    where rejection_reason is not null
    {% if is_incremental() %}
        and _load_id = any(array({{ touched_loads(ref('stg_ecommerce__loads')) }}))
        and event_date in ({{ touched_dates(ref('stg_ecommerce__loads')) }})
    {% endif %}

)

select * from rejected
