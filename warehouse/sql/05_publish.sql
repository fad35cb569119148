-- Puts a generation of marts before the readers: all tables of a domain, or none, in the caller's transaction.
-- Locks are taken on every table first: renaming schemas without them lets a reader see two generations at once.
create or replace function audit.publish(published_domain text, next_generation text, tables text [])
returns void
language plpgsql
set client_min_messages = warning
set search_path = pg_catalog, pg_temp
as $publish$
declare
    next_schema constant text := published_domain || '_next_' || next_generation;
    table_name text;
    old_schema text;
    attempt_count integer := 0;
begin
    perform pg_advisory_xact_lock(hashtext('publish ' || published_domain));
    if exists (
        select from audit.publications where domain = published_domain and generation >= next_generation
    ) then
        raise exception 'a newer generation of % is published already; % is not', published_domain, next_schema;
    end if;

    -- generations that failed or were killed; one still in use is left for the next publication
    for old_schema in
        select nspname from pg_namespace
        where nspname ~ ('^' || published_domain || '_next_[0-9]+$') and nspname collate "C" < next_schema collate "C"
    loop
        begin
            perform set_config('lock_timeout', '300ms', true);
            execute format('drop schema %I cascade', old_schema);
        exception when lock_not_available then null;
        end;
    end loop;

    -- nobody reads the new tables; lets Postgres cancel autovacuum on them
    perform set_config('lock_timeout', '30s', true);
    foreach table_name in array tables loop
        execute format('lock table %I.%I in access exclusive mode', next_schema, table_name);
    end loop;
    loop
        begin
            -- below deadlock_timeout: readers are never the victims
            perform set_config('lock_timeout', '300ms', true);
            for table_name in
                select tablename from pg_tables where schemaname = published_domain order by tablename
            loop
                execute format('lock table %I.%I in access exclusive mode', published_domain, table_name);
            end loop;
            exit;
        exception when lock_not_available then
            attempt_count := attempt_count + 1;
            if attempt_count = 120 then
                raise exception '% is not published: its readers left no gap in a minute', published_domain;
            end if;
            perform pg_sleep(0.2);
        end;
    end loop;

    for table_name in select tablename from pg_tables where schemaname = published_domain loop
        execute format('drop table %I.%I cascade', published_domain, table_name);
    end loop;
    foreach table_name in array tables loop
        execute format('alter table %I.%I set schema %I', next_schema, table_name, published_domain);
        perform audit.watch_reads(published_domain, table_name);
    end loop;
    perform audit.grant_rights(published_domain);
    execute format('drop schema %I', next_schema);
    insert into audit.publications (domain, generation) values (published_domain, next_generation);
end
$publish$;

revoke execute on function audit.publish from public;
grant execute on function audit.publish to transformer;
