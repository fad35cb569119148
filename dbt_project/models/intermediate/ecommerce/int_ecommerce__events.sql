{{ config(
    materialized='incremental',
    incremental_strategy='replace_dates',
    full_refresh=false,
    on_schema_change='append_new_columns',
    indexes=[{'columns': ['event_date'], 'type': 'brin'}, {'columns': ['user_id', 'event_id'], 'unique': true}],
    meta={'wakes': ['int_ecommerce__user_totals']},
    post_hook=[
        "{{ note_built_loads(ref('stg_ecommerce__loads')) }}",
        "{{ keep_days_together() }}",
        "analyze {{ this }}",
    ],
) }}

with staged_events as (

    select * from {{ ref('stg_ecommerce__events') }}
    {% if is_incremental() %}
    where
        _load_id = any(array({{ touched_loads(ref('stg_ecommerce__loads')) }}))
        and event_date in ({{ touched_dates(ref('stg_ecommerce__loads')) }})
    {% endif %}

),

candidates as (

    select
        _load_id,
        _row_number,
        load_order,
        true as is_in_raw,
        event_id,
        event_at,
        event_date,
        event_type,
        user_id,
        product_id,
        category_id,
        category_code,
        brand,
        price_eur
    from staged_events
    where is_clean

    {% if is_incremental() %}
    union all

    -- rows of these days whose raw lines were purged; those of a replaced or undone load drop out here
    select
        built._load_id,
        built._row_number,
        loads.load_order,
        loads.is_in_raw,
        built.event_id,
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
    where not loads.is_in_raw and built.event_date = any(array({{ touched_dates(ref('stg_ecommerce__loads')) }}))
    {% endif %}

),

first_of_each_key as (

    -- event_at first in the sort: most files are in that order already
    select distinct on (event_at, user_id, product_id, event_type, event_id)
        _load_id,
        _row_number,
        event_id,
        event_at,
        event_date,
        event_type,
        user_id,
        product_id,
        category_id,
        category_code,
        brand,
        price_eur
    from candidates
    -- what was kept when its raw line was purged stays: it could not be told apart from a duplicate later
    order by event_at, user_id, product_id, event_type, event_id, is_in_raw, load_order, _row_number

)

select * from first_of_each_key
