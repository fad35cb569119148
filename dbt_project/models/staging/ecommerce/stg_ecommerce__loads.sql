{{ config(materialized='table') }}

with loads as (

    select * from {{ source('audit', 'loads') }}

),

events as (

    select * from {{ source('raw_ecommerce', 'events') }}

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
        -- one probe of the block-range index per load: raw is purged a load at a time
        exists(
            select 1 from events
            where events._load_id = loads.load_id
        ) as is_in_raw
    from loads
    where source = 'ecommerce.events' and status = 'loaded'

)

select * from loads_that_count
