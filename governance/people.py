"""Where the rows about a person are: in every table of the database that has the column its domain knows people by,
and, sealed, in quarantine. The catalogue is asked, so that a table made yesterday is not forgotten.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import TopologicalSorter

import psycopg
from psycopg import sql

from ingestion.audit import LoadError
from ingestion.door import people_of
from ingestion.keys import QUARANTINE, open_key
from ingestion.quarantine import Seal, quarantined_lines
from ingestion.source import Source, sources
from warehouse.errors import UserError


@dataclass(frozen=True)
class Table:
    """A table with rows about people; `subject_key` is the column that says about whom."""

    schema: str
    name: str
    subject_key: str
    key_type: str
    columns: frozenset[str]

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    @property
    def key(self) -> sql.Composable:
        """The subject key as bigint; null where a hand-made table has something else there."""
        column = sql.Identifier(self.subject_key)
        if self.key_type == "bigint":
            return column
        return sql.SQL("case when {0}::text ~ '^-?[0-9]{{1,19}}$' then {0}::text::numeric end").format(column)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True)
class QuarantinedLine:
    """A line in quarantine that is, or may be, about some people; opened."""

    load_id: int
    line_number: int
    line: bytes
    people: frozenset[int]
    # its column of ids could be read: it is about this person and no other
    is_certain: bool


@contextmanager
def without_values(what: str) -> Iterator[None]:
    """Turn what the database says into a sentence with names alone: its own words may quote a value.

    Raises:
        LoadError: the database stopped the block.
    """
    try:
        yield
    except psycopg.Error as error:
        place = ".".join(name for name in (error.diag.schema_name, error.diag.table_name) if name)
        failure = LoadError(
            f"{what}: the database stopped it ({type(error).__name__}, {error.sqlstate or 'no connection'}"
            f"{', at ' + place if place else ''}); nothing was changed"
        )
    else:
        return
    raise failure


def sources_of(domain: str) -> list[Source]:
    """The sources of a domain; UserError if there are none."""
    found = [source for source in sources().values() if source.domain == domain]
    if not found:
        known = sorted({source.domain for source in sources().values()})
        raise UserError(f"There is no domain '{domain}' with people in it. Known: {', '.join(known)}.")
    return found


def tables_about_people(connection: psycopg.Connection, domain: str) -> list[Table]:
    """Every table with the domain's subject key that the steward, who asks, may read and delete from.

    Those that refer to others come first.
    """
    tables = {oid: table for oid, table, is_open in _tables_with_subject_key(connection, domain) if is_open}
    referring: dict[int, set[int]] = {oid: set() for oid in tables}
    for child, parent in connection.execute(
        "select conrelid, confrelid from pg_constraint where contype = 'f' and conrelid <> confrelid"
    ):
        if child in tables and parent in tables:
            referring[parent].add(child)
    return [tables[oid] for oid in TopologicalSorter(referring).static_order()]


def refuse_closed_tables(connection: psycopg.Connection, domain: str) -> None:
    """See that no table with the domain's subject key is closed to the steward: nobody is forgotten by halves.

    Raises:
        UserError: there is one, or a materialised view, whose rows nobody can delete; somebody made it by hand.
    """
    closed = [str(table) for _, table, is_open in _tables_with_subject_key(connection, domain) if not is_open]
    if closed:
        names = ", ".join(closed)
        raise UserError(f"Rows about people may be in {names}, which the steward may not delete from: drop it first.")


def _tables_with_subject_key(connection: psycopg.Connection, domain: str) -> list[tuple[int, Table, bool]]:
    subject_keys = sorted({source.person for source in sources_of(domain)})
    rows = connection.execute(
        """
        select
            classes.oid, namespaces.nspname, classes.relname, keys.attname, keys.atttypid::regtype::text,
            classes.relkind <> 'm'
            and has_schema_privilege(namespaces.oid, 'usage')
            and has_table_privilege(classes.oid, 'select') and has_table_privilege(classes.oid, 'delete')
            -- another's policy would hide rows without a word
            and (
                not row_security_active(classes.oid)
                or exists (
                    select from pg_policy
                    where pg_policy.polrelid = classes.oid and pg_policy.polname = 'people_are_erased'
                )
            ),
            array_agg(columns.attname)
        from pg_class as classes
        inner join pg_namespace as namespaces on classes.relnamespace = namespaces.oid
        inner join pg_attribute as keys on classes.oid = keys.attrelid
        inner join pg_attribute as columns on classes.oid = columns.attrelid
        where classes.relkind in ('r', 'p', 'm') and not classes.relispartition and classes.relpersistence <> 't'
            and keys.attname = any(%s) and not keys.attisdropped
            and columns.attnum > 0 and not columns.attisdropped
            and namespaces.nspname !~ '^pg_' and namespaces.nspname <> 'information_schema'
        group by classes.oid, namespaces.oid, keys.attname, keys.atttypid
        order by namespaces.nspname, classes.relname
        """,
        (subject_keys,),
    ).fetchall()
    return [
        (oid, Table(schema, name, key, key_type, frozenset(columns)), is_open)
        for oid, schema, name, key, key_type, is_open, columns in rows
    ]


def rows_held(
    connection: psycopg.Connection, tables: Iterable[Table], user_ids: list[int]
) -> dict[int, dict[str, int]]:
    """How many rows each table holds about each of these pseudonyms; tables and people without any are left out."""
    held: dict[int, dict[str, int]] = defaultdict(dict)
    for table in tables:
        statement = sql.SQL("select {key}, count(*) from {table} where {key} = any(%s) group by 1").format(
            key=table.key, table=table.identifier
        )
        for user_id, count in connection.execute(statement, (user_ids,)):
            held[int(user_id)][str(table)] = count
    return dict(held)


def quarantined_lines_about(
    connection: psycopg.Connection, domain: str, person_ids: set[int]
) -> Iterator[QuarantinedLine]:
    """Yield the quarantined lines of a domain that are or may be about these people; all are opened to find them.

    Raises:
        UserError: the quarantine key is missing or another, or a payload was sealed with another.
    """
    for source in sources_of(domain):
        load_ids = connection.execute(
            "select distinct rows.load_id from quarantine.rows as rows "
            "inner join audit.loads as loads on rows.load_id = loads.load_id where loads.source = %s order by 1",
            (source.name,),
        ).fetchall()
        if not load_ids:
            continue
        seal = Seal(open_key(connection, QUARANTINE, may_generate=False))
        for (load_id,) in load_ids:
            for layout, lines in quarantined_lines(connection, seal, source, load_id):
                for number, line in lines:
                    people = people_of(line, layout, source)
                    if not people.ids.isdisjoint(person_ids):
                        yield QuarantinedLine(load_id, number, line, people.ids & person_ids, people.is_certain)
