with events as (

    select * from {{ source('raw_ecommerce', 'events') }}

),

loads as (

    select * from {{ ref('stg_ecommerce__loads') }}

),

renamed as (

    select
        events._load_id,
        events._row_number,
        events.event_time,
        events.user_id,
        events.product_id,
        events.category_id,
        events.user_session as delivered_session_id,
        loads.load_order,
        case events.event_type when 'remove' then 'remove_from_cart' else events.event_type end as event_type,
        events.price as delivered_price_eur,
        -- blanks, tabs and no-break spaces
        nullif(lower(trim(both e' \t\u00a0' from events.category_code)), '') as category_code,
        nullif(lower(trim(both e' \t\u00a0' from events.brand)), '') as brand,
        cast(events.price as numeric(20, 2)) as price_eur
    from events
    inner join loads on events._load_id = loads.load_id

),

checked as (

    select
        _load_id,
        _row_number,
        event_time,
        user_id,
        product_id,
        category_id,
        delivered_session_id,
        load_order,
        event_type,
        category_code,
        brand,
        price_eur,
        category_id is null and category_code is null as has_no_category,
        price_eur is null and event_type <> 'remove_from_cart' as has_no_price,
        (delivered_price_eur < 0) is true as has_negative_price,
        price_eur = 0 and event_type = 'purchase' as is_purchase_at_price_zero
    from renamed

),

judged as (

    select
        _load_id,
        _row_number,
        load_order,
        -- stands for the full-precision key, so that duplicates are known after the seconds are gone
        hash_record_extended(row(event_time, user_id, product_id, event_type), 0) as event_id,
        date_trunc('minute', event_time) as event_at,
        cast(event_time at time zone 'UTC' as date) as event_date,
        event_type,
        user_id,
        product_id,
        category_id,
        coalesce(category_code, 'unknown') as category_code,
        coalesce(brand, 'unknown') as brand,
        case when event_type = 'remove_from_cart' then coalesce(price_eur, 0) else price_eur end as price_eur,
        delivered_session_id,
        case
            when has_no_category then 'no_category'
            when has_no_price then 'no_price'
            when has_negative_price then 'negative_price'
            when is_purchase_at_price_zero then 'purchase_at_price_zero'
        end as rejection_reason,
        -- says the same, in terms of which Postgres has statistics: of the reason it expects one row in 200 to be null
        not has_no_category
        and not has_no_price
        and not has_negative_price
        and not is_purchase_at_price_zero
            as is_clean
    from checked

)

select * from judged
