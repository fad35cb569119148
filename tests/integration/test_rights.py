"""Who may do what: the catalogue says what the matrix says, and what the matrix does not say is refused.

The matrix is `audit.rights`, written by `warehouse/sql/90_rights.sql`. Every probe that must be refused has a control:
the same statement by somebody who may, or a sibling by the same role, so that no probe passes because of a typo.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from support import agora, execute, one, rows_of

from warehouse.connections import connect
from warehouse.errors import UserError
from warehouse.settings import ROLES

VERBS = frozenset(("select", "insert", "update", "delete", "truncate", "references", "trigger", "maintain"))
COLUMN_VERBS = frozenset(("select", "insert", "update", "references"))
LEFT_OVER = "ecommerce_next_29990101000000000001"
REFUSED = "42501"

# --- a warehouse with something in it -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(warehouse: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A small shop, published twice; a generation that failed beside it, the schemas of a developer, and a function."""
    folder = tmp_path_factory.mktemp("shop")
    agora("simulate", "ecommerce", "--out", folder, "--seed", 9, "--users", 30, "--events", 600, "--months", 1)
    agora("load", "ecommerce.events", folder)
    execute(
        "insert into ml_ecommerce.customer_segments_runs values ('by hand', 'v0', 0, now(), 0, 1, 1, 1, 0, null, 1,"
        """ '{}', '{}', '{"Window Shopper": "all alike"}', 0, now())"""
    )
    execute(
        "insert into ml_ecommerce.customer_segments"
        " select user_id, 0, 'Window Shopper', 0.5, 1, 'v0', now() from raw_ecommerce.users"
    )
    assert "Publishing ecommerce" in agora("dbt", "build", "--exclude-resource-type", "unit_test")
    with connect("transformer") as connection:
        for schema in (LEFT_OVER, "dev_ada_ecommerce", "ci_ecommerce"):
            connection.execute(f"create schema {schema}")
            connection.execute(f"create table {schema}.dim_users (user_id bigint primary key)")
            connection.execute(f"create view {schema}.seen as select * from {schema}.dim_users")
        connection.execute("create function ecommerce.planted() returns integer language sql as 'select 1'")


@pytest.fixture(scope="module")
def owner_is_superuser(warehouse: Path) -> bool:
    return bool(one("select rolsuper from pg_roles where rolname = current_user"))


# --- the catalogue is the matrix ----------------------------------------------------------------------------------


class Rule(NamedTuple):
    """A row of the matrix."""

    role: str
    schema: str
    tables: str
    verbs: list[str]

    def names(self, schema: str, owner: str) -> bool:
        return owner == "transformer" if self.schema == "(dbt)" else _matches(self.schema, schema)

    def names_table(self, schema: str, table: str, owner: str) -> bool:
        return self.names(schema, owner) and (self.tables == "*" or _matches(self.tables, table))


def _matches(pattern: str, name: str) -> bool:
    return bool(re.fullmatch(re.escape(pattern).replace("%", ".*"), name))


def matrix() -> list[Rule]:
    return [Rule(*row) for row in rows_of("select role, schema, tables, verbs from audit.rights")]


OURS = "nspname !~ '^pg_' and nspname <> 'information_schema'"
RELATIONS = (
    "select pg_class.oid, nspname, relname, pg_get_userbyid(relowner) as owner from pg_class"
    f" inner join pg_namespace on relnamespace = pg_namespace.oid where relkind in ('r', 'v', 'm', 'p', 'f') and {OURS}"
)


@pytest.mark.usefixtures("built")
def test_every_role_has_on_every_table_what_the_matrix_says_and_nothing_else() -> None:
    rules = matrix()
    relations = rows_of(RELATIONS)
    assert {schema for _, schema, *_ in relations} >= {"raw_ecommerce", "ecommerce", LEFT_OVER, "dev_ada_ecommerce"}
    expected = {}
    for _, schema, table, owner in relations:
        for role in ROLES:
            said = {
                verb
                for rule in rules
                if rule.role == role and rule.names_table(schema, table, owner)
                for verb in rule.verbs
            }
            expected[role, schema, table] = set(VERBS) if role == owner else said & VERBS
            assert role != owner or "own" in said
    found: dict[tuple[str, str, str], set[str]] = {key: set() for key in expected}
    for role, schema, table, verb in rows_of(
        f"select role, nspname, relname, verb from ({RELATIONS}) as relations"
        " cross join unnest(%s::text[]) as role cross join unnest(%s::text[]) as verb"
        " where has_table_privilege(role, oid, verb)",
        list(ROLES),
        list(VERBS),
    ):
        found[role, schema, table].add(verb)
    assert found == expected
    granted_on = rows_of(
        f"select role, nspname, relname, verb, owner from ({RELATIONS}) as relations"
        " cross join unnest(%s::text[]) as role cross join unnest(%s::text[]) as verb"
        " where role <> owner and has_table_privilege(role, oid, verb || ' with grant option')",
        list(ROLES),
        list(VERBS),
    )
    assert granted_on == [], "nobody may pass a right on"


@pytest.mark.usefixtures("built")
def test_every_role_has_on_every_column_what_the_matrix_says_and_nothing_else() -> None:
    expected = set()
    relations = rows_of(RELATIONS)
    for rule in matrix():
        for verb in rule.verbs:
            match = re.fullmatch(r"(\w+) \((.+)\)", verb)
            for _, schema, table, owner in relations if match else ():
                if match and rule.names_table(schema, table, owner):
                    expected |= {(rule.role, schema, table, match[1], column) for column in match[2].split(", ")}
    found = rows_of(
        f"select role, nspname, relname, verb, attname from ({RELATIONS}) as relations"
        " inner join pg_attribute on attrelid = oid and attnum > 0 and not attisdropped"
        " cross join unnest(%s::text[]) as role cross join unnest(%s::text[]) as verb"
        " where not has_table_privilege(role, oid, verb) and has_column_privilege(role, oid, attnum, verb)",
        list(ROLES),
        list(COLUMN_VERBS),
    )
    assert set(found) == expected
    assert ("loader", "audit", "loads", "update", "status") in expected


@pytest.mark.usefixtures("built")
def test_every_role_has_on_every_schema_what_the_matrix_says_and_nothing_else() -> None:
    rules = matrix()
    schemas = rows_of(f"select nspname, pg_get_userbyid(nspowner) from pg_namespace where {OURS}")
    expected = {
        (role, schema, verb)
        for role in ROLES
        for schema, owner in schemas
        for verb in ("usage", "create")
        if role == owner or (verb == "usage" and any(r.role == role and r.names(schema, owner) for r in rules))
    }
    found = rows_of(
        f"select role, nspname, verb from pg_namespace cross join unnest(%s::text[]) as role"
        f" cross join unnest(array['usage', 'create']) as verb"
        f" where {OURS} and has_schema_privilege(role, pg_namespace.oid, verb)",
        list(ROLES),
    )
    assert set(found) == expected
    assert {schema for role, schema, _ in found if role == "bi_reader"} == {"ecommerce"}


@pytest.mark.usefixtures("built")
def test_a_table_that_the_matrix_does_not_name_is_noticed() -> None:
    rules = [rule for rule in matrix() if rule.schema != "(dbt)"]
    unnamed = {
        f"{schema}.{table}"
        for _, schema, table, owner in rows_of(RELATIONS)
        if owner != "transformer" and not any(rule.names_table(schema, table, owner) for rule in rules)
    }
    assert unnamed == {"audit.applied_sql", "audit.rights"}, "the owner's alone; for others add a row to 90_rights.sql"


@pytest.mark.usefixtures("built")
def test_every_rule_names_something() -> None:
    relations = rows_of(RELATIONS)
    idle = [rule for rule in matrix() if not any(rule.names_table(*relation[1:]) for relation in relations)]
    assert idle == []


@pytest.mark.usefixtures("built")
def test_sequences_functions_database_and_attributes() -> None:
    roles = list(ROLES)
    assert (
        rows_of(
            "select role, pg_class.oid::regclass::text from pg_class cross join unnest(%s::text[]) as role"
            " where relkind = 'S' and has_sequence_privilege(role, pg_class.oid, 'usage, select, update')",
            roles,
        )
        == []
    )
    assert set(
        rows_of(
            "select role, nspname || '.' || proname from pg_proc"
            f" inner join pg_namespace on pronamespace = pg_namespace.oid and {OURS}"
            " cross join unnest(%s::text[]) as role where has_function_privilege(role, pg_proc.oid, 'execute')",
            roles,
        )
    ) == {
        *(("transformer", f"audit.{name}") for name in ("publish", "grant_rights", "watch_reads")),
        ("transformer", "ecommerce.planted"),
        # policies of published tables call it as whoever reads
        *((role, "audit.note_read") for role in ROLES),
        *((role, "audit.note_planned") for role in ROLES),
    }
    assert set(
        rows_of(
            "select role, verb from unnest(%s::text[]) as role"
            " cross join unnest(array['create', 'connect', 'temporary']) as verb"
            " where has_database_privilege(role, current_database(), verb)",
            roles,
        )
    ) == {
        *((role, "connect") for role in ROLES),
        *((role, "temporary") for role in ("loader", "transformer", "steward")),
        ("transformer", "create"),
    }
    assert rows_of(
        "select distinct rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls from pg_roles"
        " where rolname = any(%s)",
        roles,
    ) == [(False,) * 5]
    members = "select roleid::regrole::text from pg_auth_members where member::regrole::text = any(%s)"
    assert rows_of(members, roles) == []


# --- probes -------------------------------------------------------------------------------------------------------


class Probe(NamedTuple):
    """What a role must not get, and who gets it (or what the same role gets instead) to prove the statement right."""

    role: str
    statement: str
    control: str = "owner"
    control_statement: str = ""
    sqlstate: str = REFUSED


def attempt(role: str, statement: str) -> list[Any]:
    """Run a statement in a transaction that writes, and is rolled back; return the rows there are."""
    with connect(role) as connection:
        try:
            # a reader can switch this off: it is a convenience, not the protection
            connection.execute("set transaction read write")
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []
        finally:
            connection.rollback()


def by(role: str, *statements: str, control: str = "owner") -> list[Probe]:
    return [Probe(role, statement, control) for statement in statements]


READER = [
    *by(
        "bi_reader",
        "select * from raw_ecommerce.events limit 1",
        "select * from raw_ecommerce.users limit 1",
        "select * from staging.stg_ecommerce__events limit 1",
        "select * from staging.rejected_ecommerce__events limit 1",
        "select * from intermediate.int_ecommerce__sessions limit 1",
        "select * from intermediate.int_ecommerce__user_features limit 1",
        "select * from quarantine.rows limit 1",
        "select * from ml_ecommerce.customer_segments limit 1",
        "select * from audit.loads limit 1",
        "select * from audit.suppressions limit 1",
        "select * from audit.rights limit 1",
        f"select * from {LEFT_OVER}.dim_users limit 1",
        "select * from dev_ada_ecommerce.dim_users limit 1",
        "select * from ci_ecommerce.dim_users limit 1",
        "table raw_ecommerce.events",
        "select 'raw_ecommerce.events'::regclass",
    ),
    *by(
        "bi_reader",
        "create table ecommerce.mine (n integer)",
        "create view ecommerce.mine as select 1 as n",
        "create schema mine",
        "create function ecommerce.mine() returns integer language sql as 'select 1'",
        "create temporary table mine (n integer)",
        "select user_id into temporary mine from ecommerce.dim_users",
        "create function pg_temp.mine() returns integer language sql as 'select 1'",
        "insert into ecommerce.dim_segments select * from ecommerce.dim_segments limit 0",
        "update ecommerce.dim_users set view_count = 0",
        "set default_transaction_read_only = off; truncate ecommerce.fct_purchases",
        "drop table ecommerce.fct_purchases",
        "alter table ecommerce.fct_purchases add column mine integer",
        "comment on table ecommerce.dim_users is 'mine'",
        "select * from ecommerce.dim_users for update",
        "create index on ecommerce.dim_users (view_count)",
        "select ecommerce.planted()",
        "select audit.grant_rights('ecommerce')",
        "create publication mine",
        control="transformer",
    ),
    Probe("bi_reader", "create table public.mine (n integer)"),
    Probe("bi_reader", "do $$ begin create table ecommerce.mine (n integer); end $$"),
    Probe("bi_reader", "select audit.note_read('ecommerce', 'dim_users')"),
    Probe("bi_reader", "set default_transaction_read_only = off; delete from ecommerce.fct_purchases", "steward"),
    Probe("bi_reader", "lock table ecommerce.dim_users in exclusive mode", "transformer"),
    Probe(
        "bi_reader",
        "lock table ecommerce.dim_users in row share mode",
        "bi_reader",
        "lock table ecommerce.dim_users in access share mode",
    ),
    Probe("bi_reader", "select audit.apply_rights()", "owner"),
    Probe(
        "bi_reader",
        "select audit.publish('ecommerce', '0', array['dim_users'])",
        "owner",
        "select 'audit.publish(text, text, text[])'::regprocedure",
    ),
    Probe("bi_reader", "create role mine"),
    Probe("bi_reader", "alter role bi_reader createrole", "owner", "alter role bi_reader connection limit 9"),
    Probe("bi_reader", "alter role loader password 'mine'"),
    Probe("bi_reader", "grant loader to bi_reader"),
    Probe("bi_reader", "set role pg_read_all_data", "bi_reader", "set role bi_reader"),
    Probe("bi_reader", "set log_statement = 'all'", "bi_reader", "set work_mem = '8MB'"),
    Probe("bi_reader", "set session_replication_role = 'replica'", "bi_reader", "set work_mem = '8MB'"),
    Probe("bi_reader", "select * from pg_hba_file_rules", "bi_reader", "select * from pg_settings"),
    Probe("bi_reader", "select * from pg_statistic", "bi_reader", "select * from pg_stats"),
    Probe("bi_reader", "select rolpassword from pg_authid", "bi_reader", "select rolpassword from pg_roles"),
    Probe("bi_reader", "select passwd from pg_shadow", "bi_reader", "select passwd from pg_user"),
    # the language does not come with the embedded server
    Probe("bi_reader", "create extension plpython3u schema ecommerce", "bi_reader", "select 1", "0A000"),
]

# on a server of somebody else the owner may not do these either, and there is no control
NEEDS_SUPERUSER = [
    *by(
        "bi_reader",
        "copy (select 1) to program 'cat > /dev/null'",
        "copy (select 1) to '/tmp/agora-test-copied-out'",
        "copy ecommerce.dim_users from program 'true'",
        "copy ecommerce.dim_users from '/dev/null'",
        "select pg_read_file('PG_VERSION')",
        "select pg_read_binary_file('PG_VERSION')",
        "select pg_ls_dir('.')",
        "select pg_stat_file('PG_VERSION')",
        "select lo_import('/etc/hostname')",
        "create extension dblink schema ecommerce",
        "create extension postgres_fdw schema ecommerce",
        "create extension file_fdw schema ecommerce",
        "set session authorization loader",
        "checkpoint",
        "select pg_reload_conf()",
        "set temp_file_limit = -1",
        "load 'auto_explain'",
    ),
    Probe("bi_reader", "select lo_export(1, '/dev/null')", "owner", "select 'lo_export(oid, text)'::regprocedure"),
]

OTHERS = [
    *by(
        "loader",
        "select * from raw_ecommerce.events limit 1",
        "update raw_ecommerce.events set price = 0",
        "delete from raw_ecommerce.events",
        "truncate raw_ecommerce.events",
        "update raw_ecommerce.users set hmac_remainder = ''",
        "delete from raw_ecommerce.users",
        "select * from quarantine.rows limit 1",
        "update quarantine.rows set detail = ''",
        "delete from quarantine.rows",
        "delete from audit.loads where false",
        "update audit.loads set file_name = ''",
        "delete from audit.load_slices where false",
        "select * from audit.load_slices limit 1",
        "update audit.keys set key_id = ''",
        "delete from audit.suppressions",
        "select * from ml_ecommerce.customer_segments limit 1",
        "select * from intermediate.int_ecommerce__user_features limit 1",
        "select * from ecommerce.dim_users limit 1",
        "create table raw_ecommerce.mine (n integer)",
        "create schema mine",
    ),
    *by(
        "transformer",
        "insert into raw_ecommerce.events select * from raw_ecommerce.events limit 0",
        "update raw_ecommerce.events set price = 0",
        "delete from raw_ecommerce.events",
        "select * from raw_ecommerce.users limit 1",
        "insert into raw_ecommerce.users values (0, '', now())",
        "update audit.loads set error = ''",
        "insert into audit.loads (source, file_name, status, started_at) values ('s', 'f', 'started', now())",
        "delete from audit.publications",
        "select * from audit.keys limit 1",
        "select * from audit.suppressions limit 1",
        "insert into audit.rights values ('bi_reader', 'raw_%', '*', '{select}')",
        "select * from quarantine.rows limit 1",
        "delete from quarantine.rows",
        "update ml_ecommerce.customer_segments set proba = 0",
        "truncate ml_ecommerce.customer_segments",
        "create table raw_ecommerce.mine (n integer)",
        "select audit.apply_rights()",
    ),
    *by(
        "ml",
        "select * from raw_ecommerce.events limit 1",
        "select * from raw_ecommerce.users limit 1",
        "select * from quarantine.rows limit 1",
        "select * from audit.loads limit 1",
        "select * from staging.stg_ecommerce__events limit 1",
        "select * from intermediate.int_ecommerce__events limit 1",
        "select * from intermediate.int_ecommerce__sessions limit 1",
        "select * from ecommerce.dim_users limit 1",
        "delete from ecommerce.customer_segments",
        "insert into ecommerce.customer_segments select * from ecommerce.customer_segments limit 0",
        "update ml_ecommerce.customer_segments set proba = 0",
        "delete from ml_ecommerce.customer_segments_runs where false",
        "create table ml_ecommerce.mine (n integer)",
        "create schema mine",
        "create temporary table mine (n integer)",
    ),
    *by(
        "steward",
        "update raw_ecommerce.events set price = 0",
        "truncate raw_ecommerce.events",
        "delete from audit.loads where false",
        "update audit.loads set source = ''",
        "delete from audit.suppressions",
        "delete from audit.publications",
        "select * from audit.rights limit 1",
        "update ml_ecommerce.customer_segments_runs set centroids = '{}'",
        "delete from audit.erasures",
        "insert into ecommerce.dim_segments select * from ecommerce.dim_segments limit 0",
        "create table raw_ecommerce.mine (n integer)",
        "create schema mine",
        "select audit.apply_rights()",
    ),
    *[Probe(role, f"set role {other}", role, f"set role {role}") for role in ROLES for other in ROLES if role != other],
    *[Probe(role, "create role mine") for role in ROLES],
    *[Probe(role, "select rolpassword from pg_authid", role, "select rolpassword from pg_roles") for role in ROLES],
]


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("probe", [*READER, *OTHERS], ids=lambda probe: f"{probe.role}: {probe.statement}")
def test_refused(probe: Probe) -> None:
    with pytest.raises(psycopg.Error) as caught:
        attempt(probe.role, probe.statement)
    assert caught.value.sqlstate == probe.sqlstate, caught.value
    attempt(probe.control, probe.control_statement or probe.statement)


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("probe", NEEDS_SUPERUSER, ids=lambda probe: f"{probe.role}: {probe.statement}")
def test_what_reaches_beyond_the_database_is_refused(probe: Probe, owner_is_superuser: bool) -> None:
    with pytest.raises(psycopg.Error) as caught:
        attempt(probe.role, probe.statement)
    assert caught.value.sqlstate == probe.sqlstate, caught.value
    if owner_is_superuser:
        attempt(probe.control, probe.control_statement or probe.statement)


SERVER_WIDE = [
    "select lo_create(0)",
    "select lo_from_bytea(0, 'kept')",
    "select lo_creat(-1)",
    "select pg_advisory_lock(hashtext('build ecommerce'))",
    "select pg_try_advisory_xact_lock(hashtext('publish ecommerce'))",
    "select pg_advisory_lock_shared(1, 2)",
    "select pg_logical_emit_message(true, 'a', 'b')",
]


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("statement", SERVER_WIDE)
def test_functions_open_to_everybody_are_closed_where_the_owner_is_a_superuser(
    statement: str, owner_is_superuser: bool
) -> None:
    if owner_is_superuser:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            attempt("bi_reader", statement)
        attempt("owner", statement)
        if "advisory" in statement:
            for role in ("loader", "transformer", "ml", "steward"):
                attempt(role, statement)
    else:
        # what remains there: docs/how-to/use-a-server.md
        attempt("bi_reader", statement)


@pytest.mark.usefixtures("built")
def test_a_reader_does_not_see_what_others_do_and_cannot_end_them() -> None:
    with connect("loader", autocommit=True) as busy:
        busy.execute("select 'a delivered value'")
        pid = busy.info.backend_pid
        seen = attempt("bi_reader", f"select query from pg_stat_activity where pid = {pid}")
        assert seen == [("<insufficient privilege>",)]
        assert attempt("loader", f"select query from pg_stat_activity where pid = {pid}") == [
            ("select 'a delivered value'",)
        ]
        for function in ("pg_cancel_backend", "pg_terminate_backend"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                attempt("bi_reader", f"select {function}({pid})")
        assert busy.execute("select 1").fetchone() == (1,)
        assert attempt("loader", f"select pg_terminate_backend({pid})") == [(True,)]
        with pytest.raises(psycopg.OperationalError):
            busy.execute("select 1")


@pytest.mark.usefixtures("built")
def test_a_reader_sees_statistics_of_published_tables_only() -> None:
    execute("analyze raw_ecommerce.events")
    execute("analyze ecommerce.dim_users")
    schemas = "select distinct schemaname from pg_stats where schemaname not in ('pg_catalog', 'information_schema')"
    # none at all where reads are logged: a policy hides them
    assert set(attempt("bi_reader", schemas)) <= {("ecommerce",)}
    assert {("raw_ecommerce",), ("ecommerce",)} <= set(attempt("transformer", schemas))


def test_other_databases_are_closed(warehouse: Path, owner_is_superuser: bool) -> None:
    if not owner_is_superuser:
        pytest.skip("a server of somebody else: who may connect to its other databases is its administrator's to say")
    for role in ROLES:
        connect(role).close()
        for database in ("postgres", "template1"):
            with pytest.raises(UserError, match="permission denied for database"):
                connect(role, database=database)


GRANTED = [
    ("loader", "create temporary table mine (n integer)"),
    (
        "loader",
        "insert into audit.loads (source, file_name, status, started_at) values ('s', 'f', 'started', now())"
        " returning load_id",
    ),
    ("loader", "update audit.loads set status = status where status = 'started'"),
    ("loader", "insert into audit.suppressions values ('ecommerce', '', now())"),
    ("loader", "select * from audit.suppressions"),
    ("transformer", "create schema mine"),
    ("transformer", "create temporary table mine (n integer)"),
    ("transformer", "select * from raw_ecommerce.events limit 1"),
    ("transformer", "select * from ml_ecommerce.customer_segments limit 1"),
    ("ml", "select * from intermediate.int_ecommerce__user_features limit 1"),
    ("ml", "truncate ml_ecommerce.customer_segments"),
    ("bi_reader", "select * from ecommerce.dim_users limit 1"),
    ("steward", "delete from raw_ecommerce.events"),
    ("steward", "delete from quarantine.rows"),
    ("steward", "update ml_ecommerce.customer_segments_runs set erased_user_count = 0"),
    ("steward", "delete from ecommerce.fct_purchases"),
    ("steward", "delete from intermediate.int_ecommerce__events"),
    ("steward", f"delete from {LEFT_OVER}.dim_users"),
    ("steward", "delete from dev_ada_ecommerce.dim_users"),
    ("steward", "insert into audit.suppressions values ('ecommerce', '', now())"),
    ("steward", "delete from audit.built_loads"),
    ("steward", "insert into audit.stale_users values ('m', 1) on conflict do nothing"),
]


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize(("role", "statement"), GRANTED)
def test_granted(role: str, statement: str) -> None:
    with connect(role) as connection:
        assert connection.execute("select session_user, current_user").fetchone() == (role, role)
    attempt(role, statement)


# --- agora roles --------------------------------------------------------------------------------------------------


@pytest.fixture
def reader_again(warehouse: Path) -> Iterator[None]:
    yield
    agora("roles")


@pytest.mark.usefixtures("built", "reader_again")
def test_what_was_granted_by_hand_vanishes() -> None:
    by_hand = [
        "grant usage on schema raw_ecommerce to bi_reader",
        "grant select on raw_ecommerce.events to bi_reader with grant option",
        "grant update (price) on raw_ecommerce.events to ml",
        "grant select on quarantine.rows to public",
        "grant usage on sequence audit.loads_load_id_seq to loader",
        f"grant usage on schema {LEFT_OVER} to bi_reader",
        "grant steward to bi_reader",
        "grant create on database {} to ml".format(one("select quote_ident(current_database())")),
        "alter default privileges for role transformer grant select on tables to bi_reader",
        "alter default privileges for role transformer in schema staging grant select on tables to public",
        "insert into audit.rights values ('ml', 'raw_%', '*', '{select}')",
        "revoke select on ecommerce.dim_users from bi_reader",
        "revoke delete on raw_ecommerce.events from steward",
    ]
    for statement in by_hand:
        execute(statement)
    read = "select price from raw_ecommerce.events limit 1"
    assert attempt("bi_reader", read)
    said = agora("roles")
    for correction in (
        "revoke SELECT on table raw_ecommerce.events from bi_reader",
        "revoke UPDATE (price) on table raw_ecommerce.events from ml",
        "revoke SELECT on table quarantine.rows from public",
        f"revoke USAGE on schema {LEFT_OVER} from bi_reader",
        "revoke steward from bi_reader",
        "alter default privileges for role transformer revoke SELECT on tables from bi_reader",
        "alter default privileges for role transformer in schema staging revoke SELECT on tables from public",
        "grant SELECT on table ecommerce.dim_users to bi_reader",
        "grant DELETE on table raw_ecommerce.events to steward",
    ):
        assert f"corrected: {correction}" in said
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        attempt("bi_reader", read)
    with connect("transformer") as connection:
        connection.execute("create table staging.made_later (n integer)")
    test_every_role_has_on_every_table_what_the_matrix_says_and_nothing_else()
    test_every_role_has_on_every_column_what_the_matrix_says_and_nothing_else()
    test_every_role_has_on_every_schema_what_the_matrix_says_and_nothing_else()
    test_sequences_functions_database_and_attributes()
    execute("drop table staging.made_later")


@pytest.mark.usefixtures("built")
def test_roles_shows_the_matrix_and_corrects_nothing_where_nothing_is_wrong() -> None:
    agora("roles")
    said = agora("roles")
    assert "corrected" not in said
    for rule in matrix():
        (line,) = re.findall(rf"│ {rule.role} +│ {re.escape(rule.schema)} +│ {re.escape(rule.tables)} +│ (.*) │", said)
        assert line.startswith(rule.verbs[0])


@pytest.mark.usefixtures("built", "reader_again")
def test_settings_and_password_that_a_reader_changed_for_all_readers_are_put_back() -> None:
    with connect("bi_reader", autocommit=True) as connection:
        connection.execute("set default_transaction_read_only = off")
        connection.execute("alter role bi_reader set default_transaction_read_only = off")
        connection.execute("alter role bi_reader set statement_timeout = 0")
        database = connection.execute("select quote_ident(current_database())").fetchone()
        assert database
        connection.execute(f"alter role bi_reader in database {database[0]} set statement_timeout = 0")
        connection.execute("alter role bi_reader set idle_in_transaction_session_timeout = 0")
        # under it no mart that logs its readers can be read
        connection.execute("alter role bi_reader set row_security = off")
        connection.execute("alter role bi_reader password 'mine'")
    agora("roles")
    with connect("bi_reader") as connection:
        for setting, value in (
            ("default_transaction_read_only", "on"),
            ("statement_timeout", "5min"),
            ("idle_in_transaction_session_timeout", "30s"),
            ("row_security", "on"),
        ):
            assert connection.execute(f"show {setting}").fetchone() == (value,)
