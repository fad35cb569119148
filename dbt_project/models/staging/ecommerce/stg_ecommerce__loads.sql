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
        cast(row_number() over (order by period collate "C", file_name collate "C", load_id) as integer) as load_order
    from loads
    where source = 'ecommerce.events' and status = 'loaded'

)

select * from loads_that_count
