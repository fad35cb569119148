with customer_segments as (

    select * from {{ ref('ecommerce__customer_segments') }}

),

users as (

    select * from {{ ref('dim_ecommerce__users') }}

),

reasons as (

    select * from {{ ref('stg_ecommerce__segment_reasons') }}

),

segment_totals as (

    select
        customer_segments.segment_id,
        customer_segments.segment_name,
        customer_segments.model_version,
        count(*) as user_count,
        count(users.last_purchase_at) as buyer_count,
        sum(users.monetary_eur) as revenue_eur,
        sum(users.view_count) as view_count,
        sum(users.cart_count) as cart_count,
        sum(users.purchase_count) as purchase_count,
        sum(users.session_count) as session_count
    from customer_segments
    inner join users on customer_segments.user_id = users.user_id
    group by customer_segments.segment_id, customer_segments.segment_name, customer_segments.model_version

),

segment_profiles as (

    select
        segment_totals.segment_id,
        segment_totals.segment_name,
        segment_totals.user_count,
        cast(segment_totals.user_count as double precision)
        / sum(segment_totals.user_count) over () as user_share_ratio,
        segment_totals.buyer_count,
        segment_totals.revenue_eur,
        cast(segment_totals.revenue_eur as double precision)
        / nullif(sum(segment_totals.revenue_eur) over (), 0) as revenue_share_ratio,
        cast(segment_totals.revenue_eur / segment_totals.user_count as double precision) as average_revenue_eur,
        cast(segment_totals.view_count as double precision) / segment_totals.user_count as average_view_count,
        cast(segment_totals.cart_count as double precision) / segment_totals.user_count as average_cart_count,
        cast(segment_totals.purchase_count as double precision) / segment_totals.user_count as average_purchase_count,
        cast(segment_totals.session_count as double precision) / segment_totals.user_count as average_session_count,
        reasons.reasons
    from segment_totals
    left join reasons
        on
            segment_totals.segment_name = reasons.segment_name
            and segment_totals.model_version = reasons.model_version

)

select * from segment_profiles
