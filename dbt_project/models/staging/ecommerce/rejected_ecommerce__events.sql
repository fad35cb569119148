{{ config(
    materialized='incremental',
    incremental_strategy='replace_dates',
    full_refresh=false,
    on_schema_change='append_new_columns',
    post_hook="{{ note_built_loads(ref('stg_ecommerce__loads')) }}",
) }}

with events as (

    select * from {{ ref('stg_ecommerce__events') }}
    {% if is_incremental() %}
    where
        _load_id = any(array({{ touched_loads(ref('stg_ecommerce__loads')) }}))
        and event_date in ({{ touched_dates(ref('stg_ecommerce__loads')) }})
    {% endif %}

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
    where not is_clean

    {% if is_incremental() %}
    union all

    -- the raw lines of these were purged
    select
        built._load_id,
        built._row_number,
        built.rejection_reason,
        built.event_at,
        built.event_date,
        built.event_type,
        built.user_id,
        built.product_id,
        built.category_id,
        built.category_code,
        built.brand,
        built.price_eur
    from {{ this }} as built
    inner join {{ ref('stg_ecommerce__loads') }} as loads on built._load_id = loads.load_id
    where
        not loads.is_in_raw
        and built.event_date in ({{ touched_dates(ref('stg_ecommerce__loads')) }})
    {% endif %}

)

select * from rejected
