-- A row counts as a duplicate only if the event it repeats is kept, and was kept because it came first. Of rows whose
-- raw line was purged this is no longer known: they stay what they were.
{{ config(meta={'dagster': {'ref': {'name': 'int_ecommerce__duplicate_events'}}}) }}

select
    duplicates._load_id,
    duplicates._row_number
from {{ ref('int_ecommerce__duplicate_events') }} as duplicates
left join {{ ref('int_ecommerce__events') }} as events
    on
        duplicates.event_id = events.event_id
        and duplicates.event_at = events.event_at
        and duplicates.user_id = events.user_id
        and duplicates.product_id = events.product_id
        and duplicates.event_type = events.event_type
left join {{ ref('stg_ecommerce__loads') }} as loads on events._load_id = loads.load_id
left join {{ ref('stg_ecommerce__loads') }} as own_loads on duplicates._load_id = own_loads.load_id
where
    own_loads.is_in_raw
    and (
        events.event_id is null
        or (
            loads.is_in_raw
            and (own_loads.load_order, duplicates._row_number) <= (loads.load_order, events._row_number)
        )
    )
