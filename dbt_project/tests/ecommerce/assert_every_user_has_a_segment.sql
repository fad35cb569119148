-- In a development schema the segmentation may lag behind the events: there it only warns.
{{ config(
    severity='error' if is_production() else 'warn',
    meta={'dagster': {'ref': {'name': 'ecommerce__customer_segments'}}},
) }}

select dim_users.user_id
from {{ ref('dim_ecommerce__users') }} as dim_users
left join {{ ref('ecommerce__customer_segments') }} as segments on dim_users.user_id = segments.user_id
where segments.user_id is null
