create table if not exists audit.loads (
    load_id bigint generated always as identity primary key,
    source text not null,
    file_name text not null,
    sha256 text,
    period text,
    key_id text,
    rows_read bigint,
    rows_landed bigint,
    rows_quarantined bigint,
    rows_suppressed bigint,
    seconds double precision,
    status text not null check (
        status in ('started', 'loaded', 'skipped', 'failed', 'abandoned', 'superseded', 'undone')
    ),
    error text,
    started_at timestamptz not null,
    finished_at timestamptz
);
comment on table audit.loads is
'One row per attempt to land a file. Written outside the loading transaction, so that a killed attempt leaves its row.';

-- when the rows of a load were past their time: those in raw, and those made of them
alter table audit.loads add column if not exists raw_purged_at timestamptz;
alter table audit.loads add column if not exists purged_at timestamptz;

-- a hash of a remote file's address and etag: unchanged, it is not downloaded again
alter table audit.loads add column if not exists version_id text;

-- the same bytes are landed once
create unique index if not exists loads_same_bytes_once on audit.loads (source, sha256) where status = 'loaded';

-- what was landed may be replaced or undone by the steward only
create or replace function audit.refuse_loader_changes() returns trigger
language plpgsql
as $refuse$
begin
    if current_user = 'loader' and old.status <> 'started' then
        raise insufficient_privilege using message = 'loader may not change a load that has ended';
    end if;
    return new;
end
$refuse$;
create or replace trigger loads_that_ended_stay before update on audit.loads
for each row execute function audit.refuse_loader_changes();

create table if not exists audit.load_slices (
    load_id bigint not null references audit.loads (load_id),
    slice_date date not null,
    rows_landed bigint not null,
    primary key (load_id, slice_date)
);
comment on table audit.load_slices is
'One row per load and UTC day it landed rows for; kept when the rows go, so that a removal rebuilds the right days.';

create table if not exists audit.keys (
    domain text primary key,
    key_id text not null,
    fingerprint text not null,
    created_at timestamptz not null
);
comment on table audit.keys is
'One row per domain: which pseudonym key its rows were made with. The key itself is never in the database.';

create table if not exists audit.built_loads (
    model text not null,
    load_id bigint not null,
    -- grows when quarantined lines are replayed: the model has then taken in an earlier state of the load
    rows_landed bigint not null,
    primary key (model, load_id)
);
comment on table audit.built_loads is
'One row per incremental dbt model and load it has taken in; written in the transaction that writes the model.';

create table if not exists audit.stale_users (
    model text not null,
    user_id bigint not null,
    primary key (model, user_id)
);
comment on table audit.stale_users is
'One row per dbt model and user whose events changed since that model was last built.';

create table if not exists audit.suppressions (
    domain text not null,
    suppression_id bytea not null,
    suppressed_on date not null,
    primary key (domain, suppression_id)
);
comment on table audit.suppressions is
'One row per person who asked to be forgotten, as the HMAC of their delivered id under a key of its own.';

create table if not exists audit.erasures (
    receipt_id uuid primary key default gen_random_uuid(),
    domain text not null,
    -- of the server's clock, like published_at: the first publication after it is the one without the person
    erased_at timestamptz not null default clock_timestamp(),
    rows_by_table jsonb not null,
    models_marked text [] not null
);
comment on table audit.erasures is
'One row per person erased: the receipt, which says what was removed when, and nothing of who it was.';

create table if not exists audit.publications (
    domain text not null,
    generation text not null,
    published_at timestamptz not null default now(),
    primary key (domain, generation)
);
comment on table audit.publications is
'One row per generation of marts that readers were given.';
