-- Who read which mart when. A published table gets a policy that hides no row: when a statement first touches the table,
-- it has the server write one line of log, with the names of table and role and nothing of the statement. docs/adr/0010
create or replace function audit.note_read(schema_name text, table_name text) returns boolean
language plpgsql
stable
parallel restricted
as $note$
begin
    -- under other settings the server would add the statement, or what the statement was part of
    if pg_catalog.current_setting('log_min_error_statement') operator(pg_catalog.=) any ('{fatal,panic}')
        and pg_catalog.current_setting('log_error_verbosity') operator(pg_catalog.=) 'terse'
    then
        raise log 'agora: %.% read by %', schema_name, table_name, session_user;
    end if;
    return true;
end
$note$;
comment on function audit.note_read is
'For the policies of published tables only. Everybody may execute it, but only who may use the schema can call it.';

-- Declared immutable so that the planner calls it, once per plan: the other is not called where an index finds no row, and
-- "nobody of that number is here" is an answer too.
create or replace function audit.note_planned(schema_name text, table_name text) returns boolean
language plpgsql
immutable
parallel restricted
as $note$
begin
    -- not by way of audit.note_read: whoever reads may not look names up in audit
    if pg_catalog.current_setting('log_min_error_statement') operator(pg_catalog.=) any ('{fatal,panic}')
        and pg_catalog.current_setting('log_error_verbosity') operator(pg_catalog.=) 'terse'
    then
        raise log 'agora: %.% read by %', schema_name, table_name, session_user;
    end if;
    return true;
end
$note$;
comment on function audit.note_planned is 'As audit.note_read.';

create or replace function audit.watch_reads(schema_name text, table_name text) returns void
language plpgsql
as $watch$
begin
    if current_setting('log_min_error_statement') not in ('fatal', 'panic')
        or current_setting('log_error_verbosity') <> 'terse'
    then
        return;
    end if;
    execute format('alter table %I.%I enable row level security', schema_name, table_name);
    -- a subquery is evaluated once per statement, before parallel workers start; "is not null" is taken for true of
    -- nearly all rows, where a bare truth would halve the planner's estimates
    execute format(
        'create policy reads_are_logged on %1$I.%2$I for select '
        'using (audit.note_planned(%1$L, %2$L) and (select audit.note_read(%1$L, %2$L)) is not null)',
        schema_name, table_name
    );
    -- where a table has policies, what none allows is refused without a word
    execute format('create policy people_are_erased on %I.%I for delete to steward using (true)', schema_name, table_name);
end
$watch$;
revoke execute on function audit.watch_reads from public;
grant execute on function audit.watch_reads to transformer;

-- what was published before there was this file
do $published$
declare
    published record;
begin
    for published in
        select schemaname, tablename from pg_tables
        where schemaname in (select domain from audit.publications) and not rowsecurity
    loop
        perform audit.watch_reads(published.schemaname, published.tablename);
    end loop;
end
$published$;

-- the embedded server is ours to set up; a server of the user's keeps its settings
do $embedded$
declare
    function_name text;
begin
    if not (select rolsuper from pg_roles where rolname = current_user)
        or current_setting('cluster_name') !~ '^agora-[0-9a-f]+$'
    then
        return;
    end if;
    -- `do $$ begin raise log '…'; end $$` would write whatever its author likes into the log
    revoke usage on language plpgsql from public;
    -- of the other roles that people use, 01_roles.sql says so
    execute format('alter role %I set log_duration = on', current_user);
    -- under any policy, statistics serve only comparisons that are declared to tell nothing of their arguments. These
    -- tell nothing, but are not declared so: filters on amounts of money would be planned blindly
    foreach function_name in array
        array['numeric_eq', 'numeric_ne', 'numeric_lt', 'numeric_le', 'numeric_gt', 'numeric_ge']
    loop
        execute format('alter function pg_catalog.%I(numeric, numeric) leakproof', function_name);
    end loop;
end
$embedded$;
