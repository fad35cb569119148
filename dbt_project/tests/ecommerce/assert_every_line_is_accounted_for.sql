-- Per load: rows read = landed + quarantined + suppressed.
select
    load_id,
    rows_read,
    rows_landed,
    rows_quarantined,
    rows_suppressed
from {{ ref('stg_ecommerce__loads') }}
where rows_read is distinct from rows_landed + rows_quarantined + rows_suppressed
