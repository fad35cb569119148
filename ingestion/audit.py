"""The history of attempts to land a file: `audit.loads`.

An attempt's row is written on a connection of its own, outside the loading transaction, so that a killed load leaves
evidence. That connection holds an advisory lock while the attempt lives: an attempt that is still `started` without
its lock is dead.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

import psycopg
from psycopg.rows import class_row

from warehouse.connections import connect
from warehouse.errors import UserError
from warehouse.settings import now

_LOCK_OF_ATTEMPT: LiteralString = "hashtextextended('attempt ' || %(load_id)s::bigint, 0)"


class LoadError(Exception):
    """A load failed for a reason that is not the user's. The message never holds a value of the file."""


@dataclass(frozen=True)
class Counts:
    """Rows of one load: read = landed + quarantined + suppressed."""

    rows_read: int = 0
    rows_landed: int = 0
    rows_quarantined: int = 0
    rows_suppressed: int = 0


@dataclass(frozen=True)
class LoadRecord:
    """One row of audit.loads."""

    load_id: int
    source: str
    file_name: str
    sha256: str | None
    period: str | None
    key_id: str | None
    rows_read: int | None
    rows_landed: int | None
    rows_quarantined: int | None
    rows_suppressed: int | None
    seconds: float | None
    status: str
    error: str | None
    started_at: datetime
    finished_at: datetime | None
    version_id: str | None


_SELECT: LiteralString = (
    "select load_id, source, file_name, sha256, period, key_id, rows_read, rows_landed, rows_quarantined, "
    "rows_suppressed, seconds, status, error, started_at, finished_at, version_id from audit.loads"
)


@contextmanager
def open_attempt(
    source_name: str, file_name: str, period: str, key_id: str
) -> Iterator[tuple[psycopg.Connection, int]]:
    """Open an attempt and yield its connection and load_id; whatever the block raises closes it as `failed`.

    The block closes it otherwise, with `close_attempt`, on this connection or within the loading transaction.
    """
    with connect("loader", autocommit=True) as connection:
        mark_abandoned(connection)
        load_id = _start(connection, source_name, file_name, period, key_id)
        try:
            yield connection, load_id
        except BaseException as error:
            # a broken connection leaves the attempt to be found abandoned
            with suppress(psycopg.Error):
                close_attempt(connection, load_id, "failed", error=_sentence(error))
            raise


def close_attempt(
    connection: psycopg.Connection,
    load_id: int,
    status: str,
    *,
    counts: Counts | None = None,
    seconds: float | None = None,
    error: str | None = None,
) -> bool:
    """Give an attempt its final status and return True, unless it has one already."""
    cursor = connection.execute(
        """
        update audit.loads
        set status = %s, rows_read = %s, rows_landed = %s, rows_quarantined = %s, rows_suppressed = %s,
            seconds = %s, error = %s, finished_at = %s
        where load_id = %s and status = 'started'
        """,
        (
            status,
            counts.rows_read if counts else None,
            counts.rows_landed if counts else None,
            counts.rows_quarantined if counts else None,
            counts.rows_suppressed if counts else None,
            seconds,
            error,
            now(),
            load_id,
        ),
    )
    return cursor.rowcount == 1


def note_bytes(connection: psycopg.Connection, load_id: int, sha256: str | None, version_id: str | None) -> None:
    """Note what the delivered bytes are and, of a file on a server, by what it is known again unread."""
    connection.execute(
        "update audit.loads set sha256 = %s, version_id = %s where load_id = %s", (sha256, version_id, load_id)
    )


def loads_standing(connection: psycopg.Connection, source_name: str) -> list[LoadRecord]:
    """Return the loads of a source whose rows stand in raw, oldest first."""
    with connection.cursor(row_factory=class_row(LoadRecord)) as cursor:
        cursor.execute(_SELECT + " where source = %s and status = 'loaded' order by load_id", (source_name,))
        return cursor.fetchall()


def mark_abandoned(connection: psycopg.Connection) -> list[int]:
    """Mark attempts whose process is gone as `abandoned` and return their ids; as loader or steward."""
    rows = connection.execute("select load_id from audit.loads where status = 'started' order by load_id").fetchall()
    return [load_id for (load_id,) in rows if _mark_if_dead(connection, load_id)]


def loads(limit: int = 50) -> list[LoadRecord]:
    """Return the latest attempts, latest first, after marking the dead ones."""
    with connect("loader", autocommit=True) as connection:
        mark_abandoned(connection)
        with connection.cursor(row_factory=class_row(LoadRecord)) as cursor:
            cursor.execute(_SELECT + " order by load_id desc limit %s", (limit,))
            return cursor.fetchall()


def load_record(connection: psycopg.Connection, load_id: int) -> LoadRecord:
    """Return one attempt; UserError if there is none of that number."""
    with connection.cursor(row_factory=class_row(LoadRecord)) as cursor:
        record = cursor.execute(_SELECT + " where load_id = %s", (load_id,)).fetchone()
    if record is None:
        raise UserError(f"There is no load {load_id}: `agora loads` lists them.")
    return record


def _start(connection: psycopg.Connection, source_name: str, file_name: str, period: str, key_id: str) -> int:
    # one transaction: the row must not be seen before its lock is held
    with connection.transaction():
        row = connection.execute(
            "insert into audit.loads (source, file_name, period, key_id, status, started_at) "
            "values (%s, %s, %s, %s, 'started', %s) returning load_id",
            (source_name, file_name, period, key_id, now()),
        ).fetchone()
        assert row is not None
        load_id: int = row[0]
        connection.execute("select pg_advisory_lock(" + _LOCK_OF_ATTEMPT + ")", {"load_id": load_id})
    return load_id


def _mark_if_dead(connection: psycopg.Connection, load_id: int) -> bool:
    lock = {"load_id": load_id}
    got = connection.execute("select pg_try_advisory_lock(" + _LOCK_OF_ATTEMPT + ")", lock).fetchone()
    if got != (True,):
        return False
    try:
        cursor = connection.execute(
            "update audit.loads set status = 'abandoned', error = %s, finished_at = %s "
            "where load_id = %s and status = 'started'",
            ("the process that loaded it is gone", now(), load_id),
        )
        return cursor.rowcount == 1
    finally:
        connection.execute("select pg_advisory_unlock(" + _LOCK_OF_ATTEMPT + ")", lock)


def _sentence(error: BaseException) -> str:
    if isinstance(error, (UserError, LoadError)):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    # its text may hold a value of the file
    return f"failed by {type(error).__name__}"
