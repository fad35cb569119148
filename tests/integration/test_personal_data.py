"""Every table is classified: the tags in the dbt project against the database's own catalog and the rows in it.

One warehouse after one small run in production; the tests of the register are at the end.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import psycopg
import pytest
from psycopg import sql
from support import KEY, agora, execute, one, rows_of

from governance.classification import ClassifiedTable, classified_tables
from orchestration.project import DBT_PROJECT, manifest
from warehouse.connections import connect

pytestmark = pytest.mark.once

Tables: TypeAlias = dict[tuple[str, str], ClassifiedTable]
Columns: TypeAlias = dict[tuple[str, str], set[str]]

# Classified before they are made: their work is under way beside this. Empty this when it is merged, and a tag for a
# table or column that is gone fails.
NOT_MADE_YET: set[str] = set()
WHOLE_NUMBERS = ("bigint", "integer", "smallint", "numeric")


@pytest.fixture(scope="module")
def shop(warehouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A month of 200 customers, landed, built, segmented and published."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("AGORA_KEY_ECOMMERCE", KEY)
        folder = tmp_path_factory.mktemp("shop")
        size = ("--users", 200, "--events", 4000, "--months", 1)
        agora("simulate", "ecommerce", "--out", folder, "--seed", 30, *size)
        agora("load", "ecommerce.events", folder)
        agora("run", "ecommerce")
        assert one("select count(*) from ecommerce.customer_segments") > 100
        assert one("select count(*) from quarantine.rows") > 0
        yield


@pytest.fixture(scope="module")
def tables(shop: None) -> Tables:
    return {(table.schema, table.name): table for table in classified_tables(manifest())}


def catalog() -> Columns:
    """Every table, view and materialised view of the database with its columns; a partition stands with its parent."""
    rows = rows_of(
        """
        select pg_namespace.nspname, root.relname, pg_attribute.attname
        from pg_class
        inner join pg_class as root on root.oid = coalesce(pg_partition_root(pg_class.oid), pg_class.oid)
        inner join pg_namespace on root.relnamespace = pg_namespace.oid
        left join pg_attribute on
            pg_attribute.attrelid = pg_class.oid and pg_attribute.attnum > 0 and not pg_attribute.attisdropped
        where
            pg_class.relkind in ('r', 'p', 'v', 'm', 'f')
            and pg_namespace.nspname <> 'information_schema'
            and not starts_with(pg_namespace.nspname, 'pg_')
        """
    )
    found: Columns = {}
    for schema, name, column in rows:
        found.setdefault((schema, name), set()).update([column] if column else [])
    return found


def unclassified(tables: Tables) -> set[str]:
    """What is in the catalog and in no yml: tables, and columns of tables that are."""
    return {
        name
        for (schema, table), columns in catalog().items()
        for name in (
            [f"{schema}.{table}.{column}" for column in columns - tables[schema, table].columns.keys()]
            if (schema, table) in tables
            else [f"{schema}.{table}"]
        )
    }


def not_in_catalog(tables: Tables) -> set[str]:
    """What is in a yml and not in the catalog."""
    found = catalog()
    return {
        name
        for place, table in tables.items()
        for name in (
            [f"{table}.{column}" for column in table.columns.keys() - found[place]] if place in found else [str(table)]
        )
    }


# --- against the catalog ----------------------------------------------------------------------------------------


def test_every_table_and_column_of_the_database_is_classified(tables: Tables) -> None:
    assert {("audit", "loads"), ("quarantine", "rows"), ("ecommerce", "dim_users")} <= catalog().keys()
    assert unclassified(tables) == set()


def test_a_table_or_column_that_nobody_classified_is_noticed(tables: Tables) -> None:
    made = [
        "create table audit.notes (note text)",
        "create schema attic",
        "create view attic.people as select user_id from raw_ecommerce.users",
        "create materialized view attic.then as select 1 as one",
        "create table attic.days (day date) partition by range (day)",
        "create table attic.days_2020 partition of attic.days for values from ('2020-01-01') to ('2021-01-01')",
        "create table attic.nothing ()",
        "alter table raw_ecommerce.events add column ip inet",
    ]
    undone = [
        "drop table audit.notes",
        "drop schema attic cascade",
        "alter table raw_ecommerce.events drop column ip",
    ]
    for statement in made:
        execute(statement)
    try:
        assert unclassified(tables) == {
            "audit.notes",
            "attic.people",
            "attic.then",
            "attic.days",
            "attic.nothing",
            "raw_ecommerce.events.ip",
        }
    finally:
        for statement in undone:
            execute(statement)
    assert unclassified(tables) == set()


def test_each_table_is_classified_by_itself(shop: None) -> None:
    # a default would classify what nobody has thought about
    sources = json.loads(manifest().read_text())["sources"].values()
    assert {source["source_name"] for source in sources if "holds" in source["source_meta"]} == set()
    assert "holds:" not in (DBT_PROJECT / "dbt_project.yml").read_text()


def test_what_is_classified_is_in_the_database_but_for_what_is_under_way(tables: Tables) -> None:
    assert not_in_catalog(tables) - NOT_MADE_YET == set()


def test_a_column_named_like_a_persons_key_is_in_a_personal_table(tables: Tables) -> None:
    keys = {table.subject_key for table in tables.values() if table.subject_key}
    assert "user_id" in keys
    with_key = {place for place, columns in catalog().items() if columns & keys}
    assert len(with_key) > 10
    assert {str(tables[place]) for place in with_key if not tables[place].is_personal} == set()


# --- against the rows -------------------------------------------------------------------------------------------


def test_people_are_found_where_the_tags_say_and_nowhere_else(tables: Tables) -> None:
    found = columns_with_people()
    personal = {place for place, table in tables.items() if table.is_personal and table.subject_key == "user_id"}
    # emptied by each build
    assert {place for place, _ in found} == (personal & catalog().keys()) - {("audit", "stale_users")}
    for place, column in found:
        assert column == tables[place].subject_key, f"{place}: {column} holds pseudonyms"
        assert tables[place].columns[column] == "pseudonym", place


def test_a_person_in_a_text_or_in_json_is_noticed(tables: Tables) -> None:
    execute("create table audit.notes (note text, facts jsonb, list bigint[], number numeric, other text)")
    try:
        execute(
            "insert into audit.notes select 'user ' || user_id || '.', jsonb_build_object('who', user_id),"
            " array[user_id], user_id, 'nobody' from (select min(user_id) as user_id from raw_ecommerce.users) as one"
        )
        notes = {column for place, column in columns_with_people() if place == ("audit", "notes")}
        assert notes == {"note", "facts", "list", "number"}
    finally:
        execute("drop table audit.notes")


def columns_with_people() -> set[tuple[tuple[str, str], str]]:
    """Every column of the database that holds a pseudonym of the run, as a number or anywhere in its text."""
    columns = rows_of(
        """
        select table_schema::text, table_name::text, column_name::text, data_type::text
        from information_schema.columns
        where table_schema <> 'information_schema' and not starts_with(table_schema, 'pg_')
        """
    )
    found = set()
    with connect() as connection:
        connection.execute(
            "create temporary table people as select user_id, user_id::text as text from raw_ecommerce.users"
        )
        assert connection.execute("select count(*) > 100 from people").fetchone() == (True,)
        for schema, name, column, data_type in columns:
            holds = (
                "select exists (select from {table} where {column} in (select user_id from people))"
                if data_type in WHOLE_NUMBERS
                # of 64 bits at random, next to none has fewer than ten digits
                else "select exists (select from {table},"
                " regexp_matches({column}::text, '-?[0-9]{{10,}}', 'g') as digits"
                " where digits[1] in (select text from people))"
            )
            statement = sql.SQL(holds).format(table=sql.Identifier(schema, name), column=sql.Identifier(column))
            if connection.execute(statement).fetchone() == (True,):
                found.add(((schema, name), column))
    return found


# --- the register -----------------------------------------------------------------------------------------------


def test_the_register_names_every_personal_table_and_who_may_read_it(tables: Tables, tmp_path: Path) -> None:
    out = tmp_path / "register.json"
    assert agora("rgpd", "register", "--format", "json", "--out", out, AGORA_CONTROLLER="Example Shop SAS") == ""
    found = json.loads(out.read_text())
    assert found["controller"]["name"] == "Example Shop SAS"
    entries = {
        (entry["schema"], entry["table"]): entry for activity in found["activities"] for entry in activity["tables"]
    }
    assert entries.keys() == {place for place, table in tables.items() if table.is_personal}
    assert entries["raw_ecommerce", "events"]["read_by"] == ["steward", "transformer"]
    assert "bi_reader" in entries["ecommerce", "dim_users"]["read_by"]
    # what a role may read by the register it can read, and nothing else
    for role in ("bi_reader", "loader"):
        with connect(role, autocommit=True) as connection:
            for (schema, name), entry in entries.items():
                if entry["read_by"] is not None:
                    assert can_read(connection, schema, name) == (role in entry["read_by"]), (role, schema, name)


def can_read(connection: psycopg.Connection, schema: str, name: str) -> bool:
    try:
        connection.execute(sql.SQL("select from {} limit 0").format(sql.Identifier(schema, name)))
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True


def test_the_register_is_a_page_of_markdown_on_the_screen(tables: Tables) -> None:
    said = agora("rgpd", "register")
    assert said.startswith("# Register of processing activities\n")
    assert "to be filled in by the controller" in said
    assert "| `ecommerce.dim_users` |" in said


def test_a_place_that_cannot_be_written_is_one_sentence(shop: None, tmp_path: Path) -> None:
    said = agora("rgpd", "register", "--out", tmp_path / "nowhere" / "register.md", expect=2)
    assert "cannot write" in said
    assert "Traceback" not in said
