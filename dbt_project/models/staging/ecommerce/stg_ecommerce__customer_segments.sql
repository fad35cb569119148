with customer_segments as (

    select * from {{ source('ml_ecommerce', 'customer_segments') }}

),

segment_names as (

    select * from {{ ref('ecommerce_segments') }}

),

-- a name that is not in the seed keeps its row with a null segment_id, which the not_null test reports
named as (

    select
        customer_segments.user_id,
        segment_names.segment_id,
        customer_segments.segment_name,
        customer_segments.proba,
        customer_segments.distance,
        customer_segments.model_version,
        customer_segments.updated_at
    from customer_segments
    left join segment_names on customer_segments.segment_name = segment_names.segment_name

)

select * from named
