with segment_names as (

    select * from {{ ref('ecommerce_segments') }}

),

segments as (

    select
        segment_id,
        segment_name,
        description
    from segment_names

)

select * from segments
