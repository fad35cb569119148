"""A statement's rows as CSV, for people. Frames, for computations: `warehouse.frames`; the door has its own writer."""

import re
from collections.abc import Sequence
from typing import TextIO

import psycopg
from psycopg import pq
from psycopg.abc import Buffer
from psycopg.adapt import Loader

from warehouse.errors import UserError

STREAM_ROWS = 2000
COPY_STATEMENT = re.compile(r"\s*copy\b", re.IGNORECASE)
NEEDS_QUOTES = re.compile(r'[",\r\n]')


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
