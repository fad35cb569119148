-- What users spent and what was bought is one sum.
{{ config(meta={'dagster': {'ref': {'name': 'fct_ecommerce__purchases'}}}) }}

with spent as (

    select coalesce(sum(monetary_eur), 0) as total_eur
    from {{ ref('dim_ecommerce__users') }}

),

bought as (

    select coalesce(sum(price_eur), 0) as total_eur
    from {{ ref('fct_ecommerce__purchases') }}

)

select
    spent.total_eur as spent_eur,
    bought.total_eur as bought_eur
from spent
cross join bought
where spent.total_eur <> bought.total_eur
