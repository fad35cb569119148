"""Rows in and out in bulk: CSV for people, frames for computations, COPY for what was computed.

No statement is composed here from anything but a caller's query and identifiers; the door has its own binary writer.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

import psycopg
from psycopg import pq, sql
from psycopg.abc import Buffer
from psycopg.adapt import Loader

from warehouse.errors import UserError
from warehouse.frames import read_frame

__all__ = ["copy_rows", "query_csv", "read_frame"]

STREAM_ROWS = 2000
COPY_STATEMENT = re.compile(r"\s*copy\b", re.IGNORECASE)
NEEDS_QUOTES = re.compile(r'[",\r\n]')
COPY_PLACE = re.compile(r"\b(line \d+(?:, column \w+)?)")


class _TextLoader(Loader):
    """Leaves a value as Postgres writes it."""

    def load(self, data: Buffer) -> str:
        return bytes(data).decode()


class _BooleanLoader(Loader):
    """Spells a truth value out: Postgres writes `t` and `f`."""

    def load(self, data: Buffer) -> str:
        return "true" if bytes(data) == b"t" else "false"


def query_csv(connection: psycopg.Connection, statement: str, stream: TextIO) -> None:
    """Run any statement and write its rows as CSV with a header: UTC, `true`/`false`, null empty, empty text `""`.

    Rows are streamed, not gathered. A statement without rows to give writes nothing; of several statements in one
    string each result is written. Committing is the caller's.

    Raises:
        UserError: the statement is a COPY, whose data has nowhere to go.
        psycopg.Error: whatever the server says of the statement.
    """
    if COPY_STATEMENT.match(statement):
        raise UserError("copy does not work here: write a select, its rows come out as CSV.")
    with connection.cursor() as cursor:
        _leave_as_text(cursor)
        names = _column_names(connection, statement)
        if names:
            _write_line(stream, names)
            for row in cursor.stream(statement.encode(), size=STREAM_ROWS):
                _write_line(stream, row)
            return
        cursor.execute(statement.encode())
        for result in cursor.results():
            if result.description:
                _write_line(stream, [column.name for column in result.description])
                for row in result:
                    _write_line(stream, row)


def _leave_as_text(cursor: psycopg.Cursor) -> None:
    for type_info in psycopg.adapters.types:
        cursor.adapters.register_loader(type_info.oid, _TextLoader)
        cursor.adapters.register_loader(type_info.array_oid, _TextLoader)
    # all other types
    cursor.adapters.register_loader(0, _TextLoader)
    cursor.adapters.register_loader("bool", _BooleanLoader)


def _column_names(connection: psycopg.Connection, statement: str) -> list[str]:
    """Ask the server what a statement returns without running it; nothing for several statements in one."""
    prepared = connection.pgconn.prepare(b"", statement.encode())
    if prepared.status == pq.ExecStatus.FATAL_ERROR:
        state = (prepared.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
        message = prepared.get_error_message()
        if "multiple commands" in message:
            return []
        raise psycopg.errors.lookup(state)(message)
    described = connection.pgconn.describe_prepared(b"")
    return [(described.fname(index) or b"").decode() for index in range(described.nfields)]


def _write_line(stream: TextIO, values: Sequence[str | None]) -> None:
    stream.write(",".join(["" if value is None else _field(value) for value in values]) + "\n")


def _field(value: str) -> str:
    # as Postgres' own CSV: the quotes tell an empty text from a null, which Python's csv module cannot
    if value and not NEEDS_QUOTES.search(value):
        return value
    return '"' + value.replace('"', '""') + '"'


def copy_rows(connection: psycopg.Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> int:
    """Write rows to a table by COPY and return their number. All or none; committing is the caller's.

    Args:
        connection: of a role that may insert.
        table: `schema.table`, or the name of a temporary table.
        columns: names in the order of each row's values.
        rows: values that psycopg can adapt; None is null.

    Raises:
        psycopg.Error: the server refused a row. The message says where but not what: values may be personal.
    """
    target = sql.Identifier(*table.split("."))
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    row_count = 0
    try:
        statement = sql.SQL("copy {} ({}) from stdin").format(target, names)
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
                row_count += 1
    except psycopg.DatabaseError as error:
        raise _without_values(error, table) from None
    return row_count


def _without_values(error: psycopg.DatabaseError, table: str) -> psycopg.DatabaseError:
    if error.sqlstate is None:
        return error
    # `COPY t, line 3, column price: "…"`
    place = COPY_PLACE.search(error.diag.context or "")
    where = f", {place.group(1)}" if place else ""
    return type(error)(f"{type(error).__name__} ({error.sqlstate}) on copying into {table}{where}")
