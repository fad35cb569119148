"""Erasure (RGPD art. 17): a person's rows go, from every table and from quarantine, and never come back.

One transaction removes them and puts the person on the suppression list, which the door asks. What was computed from
many people's rows is computed anew by the next run; the receipt says when that was published.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress as suppress_error
from dataclasses import dataclass
from datetime import date, datetime

import psycopg
from psycopg import sql

from governance.people import (
    QuarantinedLine,
    Table,
    quarantined_lines_about,
    refuse_closed_tables,
    rows_held,
    sources_of,
    tables_about_people,
    without_values,
)
from ingestion.audit import LoadError
from ingestion.keys import Key, delivered_ids, open_key, pseudonym_of
from ingestion.landing import lock_build, lock_source
from ingestion.suppression import suppress
from warehouse.connections import connect
from warehouse.errors import UserError

QUARANTINE_ROWS = "quarantine.rows"
# where dbt keeps rows of loads, production's alone
BUILT_SCHEMAS = ("staging", "intermediate")


@dataclass(frozen=True)
class Receipt:
    """What was removed of one person, and when; it says nothing of who that was.

    `rows_by_table` counts the rows removed; `models_marked` are the versions of models fitted while they were there.
    """

    receipt_id: str
    domain: str
    erased_at: datetime
    rows_by_table: dict[str, int]
    models_marked: list[str]


@dataclass(frozen=True)
class Erasure:
    """The receipts, one per person of whom something was held, and how many people there was nothing of."""

    receipts: list[Receipt]
    unknown_count: int


def erase(domain: str, lines: Iterable[str], *, on_notice: Callable[[str], None]) -> Erasure:
    """Remove people from all tables and from quarantine, for good; the caller rebuilds and publishes.

    Args:
        domain: whose ids these are.
        lines: delivered ids, one a line.
        on_notice: told what is waited for.

    Raises:
        UserError: no id was given, an id is no whole number, a key is missing or another, or rows may be where the
            steward may not delete; nothing was removed.
        LoadError: a table kept rows; nothing was removed.
    """
    person_ids = sorted({person_id for _, person_id in delivered_ids(lines)})
    if not person_ids:
        raise UserError("No id was given: write the delivered id on standard input, one a line.")
    with without_values("the erasure"), connect("steward") as connection:
        for source in sources_of(domain):
            # neither a load nor a build may write what is removed here
            lock_build(connection, source, on_notice)
            lock_source(connection, source, on_notice)
        return _erase(connection, domain, person_ids, open_key(connection, domain, may_generate=False))


def sweep(domain: str) -> None:
    """Free the space of removed rows, and renew the planner's statistics, which may quote them; as owner."""
    with connect("steward") as connection:
        tables = tables_about_people(connection, domain)
    with connect("owner", autocommit=True) as connection:
        for table in (*(table.identifier for table in tables), sql.Identifier("quarantine", "rows")):
            # a table may have been replaced meanwhile
            with suppress_error(psycopg.errors.UndefinedTable):
                connection.execute(sql.SQL("vacuum (analyze, skip_locked) {}").format(table))


def _erase(connection: psycopg.Connection, domain: str, person_ids: list[int], key: Key) -> Erasure:
    person_of = {pseudonym_of(key.secret, person_id)[0]: person_id for person_id in person_ids}
    refuse_closed_tables(connection, domain)
    tables = tables_about_people(connection, domain)
    held: dict[int, Counter[str]] = defaultdict(Counter)
    held_by_table: Counter[str] = Counter()
    for user_id, counts in rows_held(connection, tables, list(person_of)).items():
        held[person_of[user_id]].update(counts)
        held_by_table.update(counts)
    marked = _mark_models(connection, domain, _first_landed_at(connection, domain, person_of))
    models = {person_of[user_id]: versions for user_id, versions in marked.items()}
    removed = _Removed(connection, domain)
    for table in tables:
        # a policy can hide rows from a deletion, and says nothing
        if removed.from_table(table, list(person_of)) != held_by_table[str(table)]:
            raise LoadError(f"not all rows could be deleted from {table}: nobody was erased")
    lines = list(quarantined_lines_about(connection, domain, set(person_ids)))
    # a number in a broken line alone makes nobody known: it may be a price
    known = set(held).union(*(line.people for line in lines if line.is_certain))
    for line in lines:
        if not line.people.isdisjoint(known):
            removed.from_quarantine(line)
        for person_id in line.people & known:
            held[person_id][QUARANTINE_ROWS] += 1
    removed.settle()
    if held:
        suppress(connection, domain, sorted(held))
    receipts = [
        _write_receipt(connection, domain, dict(counts), models.get(person_id, []))
        for person_id, counts in sorted(held.items())
    ]
    return Erasure(receipts, len(person_ids) - len(held))


class _Removed:
    """Removes rows and keeps the audit true: what was landed or quarantined is suppressed now.

    Landed rows are counted per load and day, where they lie in raw or, once raw is purged, in the models that keep them
    all between them: those that note which loads they have taken in. A line is counted once, wherever it is.
    """

    def __init__(self, connection: psycopg.Connection, domain: str) -> None:
        self._connection = connection
        self._time_of_raw = {source.raw_table: source.time for source in sources_of(domain)}
        rows = connection.execute("select load_id from audit.loads where raw_purged_at is not null").fetchall()
        self._purged_from_raw = {load_id for (load_id,) in rows}
        built = connection.execute("select distinct model from audit.built_loads").fetchall()
        self._keepers = {model for (model,) in built if model.split(".")[0] in BUILT_SCHEMAS}
        self._landed: set[tuple[int, int, date]] = set()
        self._quarantined: Counter[int] = Counter()

    def from_table(self, table: Table, user_ids: list[int]) -> int:
        statement = sql.SQL("delete from {} where {} = any(%s)").format(table.identifier, table.key)
        time_column = self._time_of_raw.get((table.schema, table.name))
        is_kept = str(table) in self._keepers and {"_load_id", "_row_number", "event_date"} <= table.columns
        if time_column:
            day: sql.Composable = sql.SQL("cast({} at time zone 'UTC' as date)").format(sql.Identifier(time_column))
        elif is_kept:
            day = sql.Identifier("event_date")
        else:
            return self._connection.execute(statement, (user_ids,)).rowcount
        returning = sql.SQL("{} returning _load_id, _row_number, {}").format(statement, day)
        row_count = 0
        for load_id, row_number, removed_day in self._connection.execute(returning, (user_ids,)):
            row_count += 1
            if time_column or load_id in self._purged_from_raw:
                self._landed.add((load_id, row_number, removed_day))
        return row_count

    def from_quarantine(self, line: QuarantinedLine) -> None:
        self._connection.execute(
            "delete from quarantine.rows where load_id = %s and line_number = %s", (line.load_id, line.line_number)
        )
        self._quarantined[line.load_id] += 1

    def settle(self) -> None:
        landed: Counter[int] = Counter()
        with self._connection.cursor() as cursor:
            for (load_id, day), count in Counter((load_id, day) for load_id, _, day in self._landed).items():
                landed[load_id] += count
                cursor.execute(
                    "update audit.load_slices set rows_landed = rows_landed - %s "
                    "where load_id = %s and slice_date = %s",
                    (count, load_id, day),
                )
            for load_id in landed | self._quarantined:
                cursor.execute(
                    "update audit.loads set rows_landed = rows_landed - %(landed)s, "
                    "rows_quarantined = rows_quarantined - %(quarantined)s, "
                    "rows_suppressed = rows_suppressed + %(landed)s + %(quarantined)s where load_id = %(load_id)s",
                    {"landed": landed[load_id], "quarantined": self._quarantined[load_id], "load_id": load_id},
                )
                # the models lost the same rows: they need not take the load in anew
                cursor.execute(
                    "update audit.built_loads set rows_landed = rows_landed - %s where load_id = %s",
                    (landed[load_id], load_id),
                )


def _first_landed_at(connection: psycopg.Connection, domain: str, user_ids: Iterable[int]) -> dict[int, datetime]:
    first: dict[int, datetime] = {}
    for source in sources_of(domain):
        statement = sql.SQL("select user_id, first_landed_at from {} where user_id = any(%s)").format(
            sql.Identifier(*source.users_table)
        )
        for user_id, landed_at in connection.execute(statement, (list(user_ids),)):
            first[user_id] = min(landed_at, first.get(user_id, landed_at))
    return first


def _mark_models(
    connection: psycopg.Connection, domain: str, first_landed_at: dict[int, datetime]
) -> dict[int, list[str]]:
    """Note on every model fitted since a person first landed that they were erased; return the versions of each."""
    fitted = [
        (name, version, created_at)
        for (name,) in connection.execute(
            "select table_name from information_schema.columns "
            "where table_schema = %s and column_name = 'erased_user_count' order by table_name",
            (f"ml_{domain}",),
        ).fetchall()
        for version, created_at in connection.execute(
            sql.SQL("select model_version, created_at from {} order by created_at, model_version").format(
                sql.Identifier(f"ml_{domain}", name)
            )
        ).fetchall()
    ]
    for name, version, created_at in fitted:
        count = sum(landed_at <= created_at for landed_at in first_landed_at.values())
        if count:
            statement = sql.SQL("update {} set erased_user_count = erased_user_count + %s where model_version = %s")
            connection.execute(statement.format(sql.Identifier(f"ml_{domain}", name)), (count, version))
    return {
        user_id: [
            f"{name.removesuffix('_runs')} {version}" for name, version, created_at in fitted if landed_at <= created_at
        ]
        for user_id, landed_at in first_landed_at.items()
    }


def _write_receipt(
    connection: psycopg.Connection, domain: str, rows_by_table: dict[str, int], models_marked: list[str]
) -> Receipt:
    row = connection.execute(
        "insert into audit.erasures (domain, rows_by_table, models_marked) values (%s, %s, %s) "
        "returning receipt_id::text, erased_at",
        (domain, json.dumps(rows_by_table, sort_keys=True), models_marked),
    ).fetchone()
    assert row is not None
    return Receipt(row[0], domain, row[1], rows_by_table, models_marked)
