create table if not exists quarantine.rows (
    load_id bigint not null references audit.loads (load_id),
    line_number bigint not null,
    error_code text not null,
    detail text not null,
    payload bytea not null,
    quarantined_at timestamptz not null,
    primary key (load_id, line_number)
);
comment on table quarantine.rows is
'One row per line the door turned away. The payload is encrypted with a key outside the database; detail holds no value.';
