with customer_segments as (

    select * from {{ ref('ecommerce__customer_segments') }}

),

users as (

    select * from {{ ref('dim_ecommerce__users') }}

),

segment_totals as (

    select
        customer_segments.segment_id,
        customer_segments.segment_name,
        count(*) as user_count,
        count(*) filter (where users.has_purchased) as buyer_count,
        sum(users.monetary_eur) as revenue_eur,
        sum(users.view_count) as view_count,
        sum(users.cart_count) as cart_count,
        sum(users.purchase_count) as purchase_count,
        sum(users.session_count) as session_count
    from customer_segments
    inner join users on customer_segments.user_id = users.user_id
    group by customer_segments.segment_id, customer_segments.segment_name

),

segment_profiles as (

    select
        segment_id,
        segment_name,
        user_count,
        cast(user_count as double precision) / sum(user_count) over () as user_share_ratio,
        buyer_count,
        revenue_eur,
        cast(revenue_eur / nullif(sum(revenue_eur) over (), 0) as double precision) as revenue_share_ratio,
        cast(revenue_eur / user_count as double precision) as average_revenue_eur,
        cast(view_count as double precision) / user_count as average_view_count,
        cast(cart_count as double precision) / user_count as average_cart_count,
        cast(purchase_count as double precision) / user_count as average_purchase_count,
        cast(session_count as double precision) / user_count as average_session_count
    from segment_totals

)

select * from segment_profiles
