with runs as (

    select * from {{ source('ml_ecommerce', 'customer_segments_runs') }}

),

reasons as (

    select
        runs.model_version,
        reason.key as segment_name,
        reason.value as reasons
    from runs
    cross join lateral jsonb_each_text(runs.reasons) as reason

)

select * from reasons
