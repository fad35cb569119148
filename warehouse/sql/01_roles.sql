-- One role per step. Passwords are set by warehouse/bootstrap.py: they never stand in a file of the project.
do $roles$
declare
    role_name text;
begin
    foreach role_name in array array['loader', 'transformer', 'ml', 'bi_reader', 'steward'] loop
        if not exists (select from pg_roles where rolname = role_name) then
            execute format('create role %I login', role_name);
        end if;
    end loop;
end
$roles$;

-- the owner creates schemas on behalf of the transformer, who owns all that dbt builds
grant transformer to current_user;

do $database$
begin
    execute format(
        'revoke all on database %I from public, loader, transformer, ml, bi_reader, steward', current_database()
    );
    execute format(
        'grant connect on database %I to loader, transformer, ml, bi_reader, steward', current_database()
    );
    -- temporary tables: the door's delivered ids, dbt's incremental models, replayed rows
    execute format('grant temporary on database %I to loader, transformer, steward', current_database());
    -- a generation of marts is built in a schema of its own
    execute format('grant create on database %I to transformer', current_database());
end
$database$;

revoke all on schema public from public;

-- whoever logs in as a role may change its settings, for all who do
do $settings$
declare
    role_name text;
begin
    foreach role_name in array array['loader', 'transformer', 'ml', 'bi_reader', 'steward'] loop
        execute format('alter role %I reset all', role_name);
        execute format('alter role %I in database %I reset all', role_name, current_database());
    end loop;
    -- the roles that people use, on the embedded server: how long each statement took, without its text
    if (select rolsuper from pg_roles where rolname = current_user) and current_setting('cluster_name') ~ '^agora-[0-9a-f]+$'
    then
        alter role bi_reader set log_duration = on;
        alter role steward set log_duration = on;
    end if;
end
$settings$;

alter role bi_reader set default_transaction_read_only = on;
alter role bi_reader set statement_timeout = '5min';
-- a reader who leaves a transaction open would block the next publication
alter role bi_reader set idle_in_transaction_session_timeout = '30s';
