{{ config(indexes=[{'columns': ['segment_id', 'updated_at']}]) }}

with customer_segments as (

    select * from {{ ref('stg_ecommerce__customer_segments') }}

),

-- users the segmentation has not seen yet have no segment; users it saw that are gone since make no row
users as (

    select * from {{ ref('dim_ecommerce__users') }}

),

current_segments as (

    select
        customer_segments.user_id,
        customer_segments.segment_id,
        customer_segments.segment_name,
        customer_segments.proba,
        customer_segments.distance,
        customer_segments.model_version,
        customer_segments.updated_at
    from customer_segments
    inner join users on customer_segments.user_id = users.user_id

)

select * from current_segments
