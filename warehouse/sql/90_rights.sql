-- Who may do what, once: no other file, and no dbt model, grants anything on a schema or a table.
create table if not exists audit.rights (
    role text not null,
    schema text not null,
    tables text not null,
    verbs text [] not null,
    primary key (role, schema, tables)
);
comment on table audit.rights is
'One row per role, schema and tables: what the role may do there. Replaced by 90_rights.sql, applied by `agora roles`.';
comment on column audit.rights.schema is
'A name; a pattern with %, an underscore being one; or (dbt): whatever the transformer has made, wherever it is.';
comment on column audit.rights.tables is 'A name, a pattern with %, or * for all.';
comment on column audit.rights.verbs is
'Privileges of Postgres, with columns where not on all. Usage of the schema goes with them. own: nothing is granted.';

delete from audit.rights;
insert into audit.rights (role, schema, tables, verbs) values
('loader', 'raw_%', 'events', '{insert}'),
('loader', 'raw_%', 'users', '{select, insert}'),
('loader', 'quarantine', 'rows', '{insert}'),
(
    'loader', 'audit', 'loads', array[
        'select', 'insert',
        'update (sha256, version_id, rows_read, rows_landed, rows_quarantined, rows_suppressed, seconds, status, error, '
        'finished_at)'
    ]
),
('loader', 'audit', 'load_slices', '{insert}'),
('loader', 'audit', 'keys', '{select, insert}'),
('loader', 'audit', 'suppressions', '{select, insert}'),

('transformer', '(dbt)', '*', '{own}'),
('transformer', 'raw_%', 'events', '{select}'),
('transformer', 'ml_%', '*', '{select}'),
('transformer', 'audit', 'loads', '{select}'),
('transformer', 'audit', 'load_slices', '{select}'),
('transformer', 'audit', 'built_loads', '{select, insert, delete}'),
('transformer', 'audit', 'stale_users', '{select, insert, delete}'),
('transformer', 'audit', 'publications', '{select, insert}'),
-- to pass the rights on to what it has made: audit.grant_rights
('transformer', 'audit', 'wanted_rights', '{select}'),
('transformer', 'audit', 'granted_rights', '{select}'),

('ml', 'intermediate', 'int_ecommerce__user_features', '{select}'),
('ml', 'ml_ecommerce', 'customer_segments', '{select, insert, delete, truncate}'),
('ml', 'ml_%', '%_runs', '{select, insert}'),

('bi_reader', 'ecommerce', '*', '{select, references}'),

-- force, undo, replay, erase, export, purge
('steward', 'raw_%', '*', '{select, insert, delete}'),
('steward', 'quarantine', 'rows', '{select, insert, delete}'),
('steward', 'ml_%', '*', '{select, delete}'),
('steward', 'ml_ecommerce', 'customer_segments_runs', '{update (erased_user_count)}'),
('steward', '(dbt)', '*', '{select, delete}'),
(
    'steward', 'audit', 'loads', array[
        'select', 'insert',
        'update (sha256, period, key_id, rows_read, rows_landed, rows_quarantined, rows_suppressed, seconds, status, '
        'error, finished_at, raw_purged_at, purged_at)'
    ]
),
('steward', 'audit', 'load_slices', '{select, insert, update, delete}'),
('steward', 'audit', 'built_loads', '{select, insert, update, delete}'),
('steward', 'audit', 'stale_users', '{select, insert, update, delete}'),
('steward', 'audit', 'keys', '{select, insert}'),
('steward', 'audit', 'suppressions', '{select, insert}'),
('steward', 'audit', 'erasures', '{select, insert}'),
('steward', 'audit', 'publications', '{select}');

-- What the matrix says of the schemas and tables there are.
create or replace view audit.wanted_rights as
with objects as (

    select
        nspname as schema_name,
        null::name as table_name,
        'schema ' || quote_ident(nspname) as object,
        nspowner as owner_id
    from pg_namespace
    union all
    select
        nspname,
        relname,
        format('table %I.%I', nspname, relname),
        relowner
    from pg_class
    inner join pg_namespace on pg_class.relnamespace = pg_namespace.oid
    where relkind in ('r', 'v', 'm', 'p', 'f')

),

-- what others have made in this database is theirs
makers as (

    select
        nspowner as maker_id,
        false as is_transformer
    from pg_namespace
    where nspname = 'audit'
    union all
    select
        oid,
        true
    from pg_roles
    where rolname = 'transformer'

),

verbs as (

    select
        objects.schema_name,
        objects.object,
        rights.role as role_name,
        case when objects.table_name is null then 'usage' else verb end as verb
    from objects
    inner join makers on objects.owner_id = makers.maker_id
    inner join audit.rights as rights
        on
            case
                when rights.schema = '(dbt)' then makers.is_transformer
                else objects.schema_name like replace(rights.schema, '_', '\_')
            end
            and (
                objects.table_name is null
                or rights.tables = '*'
                or objects.table_name like replace(rights.tables, '_', '\_')
            )
    cross join unnest(rights.verbs) as verb
    where
        objects.schema_name !~ '^pg_'
        and objects.schema_name <> 'information_schema'
        and verb <> 'own'

)

select distinct
    verbs.schema_name,
    verbs.object,
    column_name,
    verbs.role_name,
    upper(split_part(verbs.verb, ' ', 1)) as privilege
from verbs
left join lateral string_to_table(substring(verbs.verb from '\((.*)\)'), ', ') as column_name on true;
comment on view audit.wanted_rights is
'One row per right that a role should have on a schema, table or column, by audit.rights.';

create or replace view audit.granted_rights as
with acls as (

    select
        nspname as schema_name,
        'schema ' || quote_ident(nspname) as object,
        null::name as column_name,
        nspowner as owner_id,
        nspacl as acl
    from pg_namespace
    union all
    select
        nspname,
        format('%s %I.%I', case relkind when 'S' then 'sequence' else 'table' end, nspname, relname),
        null,
        relowner,
        relacl
    from pg_class
    inner join pg_namespace on pg_class.relnamespace = pg_namespace.oid
    union all
    select
        nspname,
        format('table %I.%I', nspname, relname),
        attname,
        relowner,
        attacl
    from pg_attribute
    inner join pg_class on pg_attribute.attrelid = pg_class.oid
    inner join pg_namespace on pg_class.relnamespace = pg_namespace.oid
    where not attisdropped

)

select
    acls.schema_name,
    acls.object,
    acls.column_name,
    coalesce(pg_roles.rolname, 'public') as role_name,
    acl.privilege_type as privilege,
    acl.is_grantable
from acls
cross join aclexplode(acls.acl) as acl
left join pg_roles on acl.grantee = pg_roles.oid
where
    acls.owner_id in (
        select nspowner from pg_namespace where nspname = 'audit'
        union all
        select oid from pg_roles where rolname = 'transformer'
    )
    and acls.schema_name !~ '^pg_'
    and acls.schema_name <> 'information_schema'
    and acl.grantee <> acls.owner_id
    -- what the owner grants to people and programs of their own is theirs to say
    and (acl.grantee = 0 or pg_roles.rolname in ('loader', 'transformer', 'ml', 'bi_reader', 'steward'));
comment on view audit.granted_rights is
'One row per right that a role of Agora, or everybody (public), has on a schema, table or column it does not own.';

-- Gives what is lacking in one schema and returns the statements; the transformer does it for what it has made anew.
create or replace function audit.grant_rights(in_schema text) returns setof text
language plpgsql
set search_path = pg_catalog, pg_temp
as $grant$
declare
    statement text;
begin
    for statement in
        select format(
            'grant %s on %s to %I', privilege || coalesce(' (' || quote_ident(column_name) || ')', ''), object, role_name
        )
        from (
            select object, column_name, role_name, privilege from audit.wanted_rights where schema_name = in_schema
            except
            select object, column_name, role_name, privilege from audit.granted_rights where schema_name = in_schema
        ) as lacking
        order by role_name, object, privilege, column_name
    loop
        execute statement;
        return next statement;
    end loop;
end
$grant$;

-- Takes from the roles what the matrix does not say and gives what it says; returns the statements.
create or replace function audit.apply_rights() returns setof text
language plpgsql
set search_path = pg_catalog, pg_temp
as $apply$
declare
    statement text;
    of_schema text;
begin
    for statement in
        select format(
            'revoke %s on %s from %s cascade',
            privilege || coalesce(' (' || quote_ident(column_name) || ')', ''), object, role_name
        )
        from audit.granted_rights as granted
        where
            -- none may pass a right on
            granted.is_grantable
            or not exists (
                select from audit.wanted_rights as wanted
                where
                    (wanted.object, wanted.role_name, wanted.privilege)
                    = (granted.object, granted.role_name, granted.privilege)
                    and wanted.column_name is not distinct from granted.column_name
            )
        order by role_name, object, privilege, column_name
    loop
        execute statement;
        return next statement;
    end loop;
    -- a member may `set role`; what an administrator of the server has granted, only they can take
    for statement in
        select format('revoke %I from %I granted by %I cascade', held.rolname, holder.rolname, grantor.rolname)
        from pg_auth_members
        inner join pg_roles as held on pg_auth_members.roleid = held.oid
        inner join pg_roles as holder on pg_auth_members.member = holder.oid
        inner join pg_roles as grantor on pg_auth_members.grantor = grantor.oid
        where holder.rolname in ('loader', 'transformer', 'ml', 'bi_reader', 'steward')
    loop
        begin
            execute statement;
            return next statement;
        exception when insufficient_privilege then null;
        end;
    end loop;
    for of_schema in select nspname from pg_namespace order by nspname loop
        return query select given from audit.grant_rights(of_schema) as given;
    end loop;

    -- tables and schemas yet to be made, by dbt or by the owner
    for statement in
        select format(
            'alter default privileges for role %I%s revoke %s on %s from %s cascade',
            pg_get_userbyid(defaclrole),
            ' in schema ' || quote_ident(nspname),
            acl.privilege_type,
            case defaclobjtype when 'r' then 'tables' when 'S' then 'sequences' when 'n' then 'schemas' end,
            coalesce(quote_ident(rolname), 'public')
        )
        from pg_default_acl
        cross join aclexplode(defaclacl) as acl
        left join pg_roles on acl.grantee = pg_roles.oid
        left join pg_namespace on defaclnamespace = pg_namespace.oid
        where
            defaclrole in ('transformer'::regrole, (select nspowner from pg_namespace where nspname = 'audit'))
            and defaclobjtype in ('r', 'S', 'n')
            and acl.grantee <> defaclrole
            and (acl.grantee = 0 or rolname in ('loader', 'transformer', 'ml', 'bi_reader', 'steward'))
            and not exists (
                select from audit.rights
                where
                    schema = '(dbt)' and tables = '*' and role = rolname
                    and defaclrole = 'transformer'::regrole and defaclnamespace = 0 and not acl.is_grantable
                    and case defaclobjtype
                        when 'r' then lower(acl.privilege_type) = any(verbs)
                        when 'n' then acl.privilege_type = 'USAGE'
                        else false
                    end
            )
    loop
        execute statement;
        return next statement;
    end loop;
    for statement in
        select format('alter default privileges for role transformer grant %s to %I', granted, role)
        from audit.rights
        cross join lateral (values (array_to_string(verbs, ', ') || ' on tables'), ('usage on schemas')) as g (granted)
        where schema = '(dbt)' and tables = '*' and role <> 'transformer'
    loop
        execute statement;
    end loop;

    -- a function is everybody's until this is said
    alter default privileges for role transformer revoke execute on functions from public;
    for statement in
        select format('revoke execute on routine %s from public', pg_proc.oid::regprocedure)
        from pg_proc
        where
            proowner in ('transformer'::regrole, (select nspowner from pg_namespace where nspname = 'audit'))
            and pronamespace not in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
            and has_function_privilege('public', pg_proc.oid, 'execute')
            -- a policy calls it as whoever reads
            and pg_proc.oid is distinct from to_regprocedure('audit.note_read(text, text)')
            and pg_proc.oid is distinct from to_regprocedure('audit.note_planned(text, text)')
        order by pg_proc.oid::regprocedure::text
    loop
        execute statement;
        return next statement;
    end loop;
end
$apply$;

-- those of audit.publish stand beside it
revoke execute on function audit.grant_rights, audit.apply_rights from public;
grant execute on function audit.grant_rights to transformer;

do $server$
declare
    statement text;
begin
    if (select rolsuper from pg_roles where rolname = current_user) then
        alter role loader nosuperuser nocreatedb nocreaterole noreplication nobypassrls;
        alter role transformer nosuperuser nocreatedb nocreaterole noreplication nobypassrls;
        alter role ml nosuperuser nocreatedb nocreaterole noreplication nobypassrls;
        alter role bi_reader nosuperuser nocreatedb nocreaterole noreplication nobypassrls;
        alter role steward nosuperuser nocreatedb nocreaterole noreplication nobypassrls;
        -- a reader's large sort must not fill the disk
        alter role bi_reader set temp_file_limit = '8GB';
        -- open to everybody: large objects, the log, and the locks by which runs, loads and publications wait
        -- for each other
        for statement in
            select format('revoke execute on function %s from public', oid::regprocedure) from pg_proc
            where
                pronamespace = 'pg_catalog'::regnamespace
                and proname ~ '^(pg_(try_)?advisory_|lo_|loread$|lowrite$|pg_logical_emit_message$)'
                and has_function_privilege('public', oid, 'execute')
        loop
            execute statement;
        end loop;
        for statement in
            select format('grant execute on function %s to loader, transformer, ml, steward', oid::regprocedure)
            from pg_proc
            where pronamespace = 'pg_catalog'::regnamespace and proname ~ '^pg_(try_)?advisory_'
        loop
            execute statement;
        end loop;
    end if;
end
$server$;

select audit.apply_rights();
