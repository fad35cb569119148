create schema if not exists audit;

create table if not exists audit.applied_sql (
    fingerprint text primary key,
    applied_at timestamptz not null default now()
);
comment on table audit.applied_sql is
'One row: what of these files and of the role passwords was applied last. Written by warehouse/bootstrap.py.';
