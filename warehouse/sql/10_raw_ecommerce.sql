create table if not exists raw_ecommerce.events (
    event_time timestamptz not null,
    event_type text not null,
    product_id bigint not null,
    category_id bigint,
    category_code text,
    brand text,
    price numeric,
    user_id bigint not null,
    user_session uuid not null,
    -- a foreign key to audit.loads would double the time of a load: the loader writes both in one transaction
    _load_id bigint not null,
    _row_number bigint not null,
    _source_file text not null,
    _loaded_at timestamptz not null
);
comment on table raw_ecommerce.events is
'One row per landed line of a shop''s event log, as delivered but for user_id, which is a keyed pseudonym.';
comment on column raw_ecommerce.events.user_id is
'First 8 bytes of HMAC-SHA256(key, delivered id) as bigint; the key is outside the database.';
comment on column raw_ecommerce.events._row_number is 'Line number in the file; the header is line 1.';

-- loads arrive one after the other: a block-range index finds the rows of one in milliseconds and costs nothing
create index if not exists events_load_id on raw_ecommerce.events using brin (_load_id) with (pages_per_range = 32);

create table if not exists raw_ecommerce.users (
    user_id bigint primary key,
    hmac_remainder bytea not null,
    first_landed_at timestamptz not null
);
-- of people who landed before this was noted: every fit may have seen them
alter table raw_ecommerce.users
add column if not exists first_landed_at timestamptz not null default '2000-01-01 00:00+00';
alter table raw_ecommerce.users alter column first_landed_at drop default;
comment on table raw_ecommerce.users is
'One row per pseudonym ever landed, with the other 24 bytes of its HMAC: two people on one pseudonym are noticed.';
