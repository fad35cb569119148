-- All users have one or, where they were too few for a fit, none has.
-- In a development schema the segmentation may lag behind the events: there it only warns.
{{ config(
    severity='error' if is_production() else 'warn',
    meta={'dagster': {'ref': {'name': 'ecommerce__customer_segments'}}},
) }}

with users as (

    select * from {{ ref('dim_ecommerce__users') }}

),

customer_segments as (

    select * from {{ ref('ecommerce__customer_segments') }}

),

segment_count as (

    select count(*) as user_count
    from customer_segments

)

select users.user_id
from users
left join customer_segments on users.user_id = customer_segments.user_id
cross join segment_count
where customer_segments.user_id is null and segment_count.user_count > 0
