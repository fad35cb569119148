-- What users spent, what was bought and what segments bring is one sum.
select
    spent.total_eur as users_total_eur,
    bought.total_eur as purchases_total_eur
from (select coalesce(sum(monetary_eur), 0) as total_eur from {{ ref('dim_ecommerce__users') }}) as spent
cross join (select coalesce(sum(price_eur), 0) as total_eur from {{ ref('fct_ecommerce__purchases') }}) as bought
where spent.total_eur <> bought.total_eur
