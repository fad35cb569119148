with user_totals as (

    select * from {{ ref('int_ecommerce__user_totals') }}

),

rejected as (

    select * from {{ ref('rejected_ecommerce__events') }}

),

latest_of_each as (

    select max(last_seen_at) as event_at from user_totals
    union all
    -- a row rejected for its price still shows how far the log reaches
    select max(event_at) as event_at from rejected

),

as_of as (

    select max(event_at) as as_of_at from latest_of_each

)

select * from as_of
