with purchases as (

    select * from {{ ref('int_ecommerce__purchases') }}

)

select * from purchases
