with products as (

    select * from {{ ref('int_ecommerce__products') }}

)

select * from products
