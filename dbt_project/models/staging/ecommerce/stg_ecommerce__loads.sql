{{ config(materialized='table') }}

with loads as (

    select * from {{ source('audit', 'loads') }}

),

loads_that_count as (

    select
        load_id,
        file_name,
        period,
        rows_read,
        rows_landed,
        rows_quarantined,
        rows_suppressed,
        finished_at as loaded_at,
        -- where two rows tie, the first by period, file name and row number wins
        cast(row_number() over (order by period collate "C", file_name collate "C", load_id) as integer) as load_order,
        raw_purged_at is null as is_in_raw
    from loads
    -- a load past its time counts as little as one that was undone: its rows go with the next build
    where source = 'ecommerce.events' and status = 'loaded' and purged_at is null

)

select * from loads_that_count
