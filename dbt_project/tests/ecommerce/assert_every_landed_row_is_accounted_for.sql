-- Per load: landed = clean + rejected + duplicates.
{{ config(meta={'dagster': {'ref': {'name': 'int_ecommerce__events'}}}) }}

with landed as (

    select
        load_id,
        rows_landed
    from {{ ref('stg_ecommerce__loads') }}

),

kept as (

    select
        _load_id as load_id,
        count(*) as row_count
    from {{ ref('int_ecommerce__events') }}
    group by _load_id

    union all

    select
        _load_id as load_id,
        count(*) as row_count
    from {{ ref('rejected_ecommerce__events') }}
    group by _load_id

    union all

    select
        _load_id as load_id,
        count(*) as row_count
    from {{ ref('int_ecommerce__duplicate_events') }}
    group by _load_id

),

kept_per_load as (

    select
        load_id,
        sum(row_count) as rows_kept
    from kept
    group by load_id

)

select
    landed.load_id,
    landed.rows_landed,
    kept_per_load.rows_kept
from landed
full join kept_per_load on landed.load_id = kept_per_load.load_id
where coalesce(landed.rows_landed, 0) <> coalesce(kept_per_load.rows_kept, 0)
