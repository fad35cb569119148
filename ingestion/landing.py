"""Rows into raw and out again, always within the caller's transaction.

Delivered ids never reach the server, not even for a moment: the door has replaced them by pseudonyms.
"""

import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, LiteralString

import psycopg
from psycopg import sql
from psycopg.copy import QueuedLibpqWriter

from ingestion.audit import LoadError
from ingestion.door import Checked, Door, Layout
from ingestion.keys import Key, Pseudonyms
from ingestion.source import Period, Source
from ingestion.suppression import suppressions
from warehouse.settings import now

if TYPE_CHECKING:
    from ingestion.block_door import BlockDoor

BATCHES_PER_COPY = 32
NOTICE_AFTER_SECONDS = 1.0
# COPY's binary format: signature, flags and length of the header's extension; then rows; then a row of -1 fields
BINARY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
BINARY_END = b"\xff\xff"
# its time begins
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
# two fields: a pseudonym, and the rest of its HMAC
_PERSON = struct.Struct(">hi8si24s")

_INSERT_SLICES: LiteralString = (
    "insert into audit.load_slices (load_id, slice_date, rows_landed) "
    "select %s, slices.* from unnest(%s::date[], %s::bigint[]) as slices"
)
_ADDING_TO_SLICES: LiteralString = (
    " on conflict (load_id, slice_date) do update set rows_landed = load_slices.rows_landed + excluded.rows_landed"
)


class Landing:
    """The rows of one load on their way into raw."""

    def __init__(self, connection: psycopg.Connection, source: Source, load_id: int, file_name: str, key: Key) -> None:
        self._connection = connection
        self._source = source
        suppressed = suppressions(connection, source.domain)
        self._pseudonyms = Pseudonyms(key, suppressed.holds)
        self._is_suppressed = suppressed.holds_any if suppressed.entries else None
        loaded_at = now()
        quoted_name = '"' + file_name.replace('"', '""') + '"'
        self._appended = f",{load_id},{quoted_name},{loaded_at:%Y-%m-%d %H:%M:%S.%f}+00\n".encode()
        # the same three fields in COPY's binary format
        name, microseconds = file_name.encode(), (loaded_at - EPOCH) // timedelta(microseconds=1)
        self._appended_binary = struct.pack(f">iqi{len(name)}siq", 8, load_id, len(name), name, 8, microseconds)
        self._rows_checked = 0
        self.rows_landed = 0
        self.rows_by_day: Counter[bytes] = Counter()
        connection.execute("create temporary table people (user_id bigint, hmac_remainder bytea) on commit drop")

    def door(self, layout: Layout, period: Period) -> Door:
        """The door that makes rows of this load."""
        return Door(self._source, layout, period, self._pseudonyms, self._appended, self._is_suppressed)

    def bulk_door(self, door: Door) -> "Door | BlockDoor":
        """The faster door, where that can be; it starts in a second, the first time on a machine in ten."""
        # numba takes most of a second to import
        from ingestion.block_door import BlockDoor, is_within_reach

        return BlockDoor(door, self._pseudonyms.compute, self._appended_binary) if is_within_reach(door) else door

    def land(
        self,
        door: "Door | BlockDoor",
        checked: Iterable[Checked],
        on_checked: Callable[[Checked], None] | None = None,
        on_pause: Callable[[], None] | None = None,
    ) -> None:
        """Copy what passed a door of this load into raw.

        The COPY pauses now and then, and at its end, for `on_pause` to write on the same connection.
        """
        remaining = iter(checked)
        batch_count = BATCHES_PER_COPY
        while batch_count == BATCHES_PER_COPY:
            batch_count = 0
            odd_rows: list[bytes] = []
            with self._copy(door, door.copy_format) as copy:
                for batch in islice(remaining, BATCHES_PER_COPY):
                    batch_count += 1
                    copy.write(batch.rows)
                    odd_rows.append(batch.odd_rows)
                    self._rows_checked += batch.rows_good
                    self.rows_by_day.update(batch.rows_by_day)
                    if on_checked:
                        on_checked(batch)
            if any(odd_rows):
                with self._copy(door, "csv") as copy:
                    for rows in odd_rows:
                        copy.write(rows)
            self._gather_people()
            if on_pause:
                on_pause()

    @contextmanager
    def _copy(self, door: "Door | BlockDoor", copy_format: str) -> Iterator[psycopg.Copy]:
        statement = sql.SQL(
            "copy {} ({}, _row_number, _load_id, _source_file, _loaded_at) from stdin (format {})"
        ).format(
            sql.Identifier(*self._source.raw_table),
            sql.SQL(", ").join(sql.Identifier(column.name) for column in door.columns),
            sql.SQL(copy_format),
        )
        cursor = self._connection.cursor()
        with cursor.copy(statement, writer=QueuedLibpqWriter(cursor)) as copy:
            if copy_format == "binary":
                copy.write(BINARY_HEADER)
            yield copy
            if copy_format == "binary":
                copy.write(BINARY_END)
        self.rows_landed += cursor.rowcount

    def finish(self) -> None:
        """Write the people of this load down and see that nothing went missing.

        Raises:
            LoadError: two people share a pseudonym, within this load or with one who landed earlier; or not every row
                that passed the door has landed.
        """
        users = sql.Identifier(*self._source.users_table)
        # the sources of a domain share the table
        self._connection.execute("select pg_advisory_xact_lock(hashtext(%s))", (f"people {self._source.domain}",))
        self._connection.execute("analyze people")
        # sorted, newcomers touch each page of the key once; checking for conflicts row by row took twice as long
        compare_and_add = sql.SQL(
            """
            with compared as (
                select people.user_id, people.hmac_remainder, known.hmac_remainder as known_remainder
                from people
                left join {users} as known on people.user_id = known.user_id
            ),

            added as (
                insert into {users} (user_id, hmac_remainder, first_landed_at)
                select distinct user_id, hmac_remainder, cast(%s as timestamptz)
                from compared
                where known_remainder is null
                order by user_id
            )

            select exists (select from compared where known_remainder <> hmac_remainder)
            """
        ).format(users=users)
        try:
            is_shared = self._connection.execute(compare_and_add, (now(),)).fetchone() == (True,)
        except psycopg.errors.UniqueViolation:
            is_shared = True
        if is_shared:
            raise LoadError(
                "two people share one pseudonym: nothing was landed; the pseudonym key must be replaced"
            ) from None
        if self.rows_landed != self._rows_checked:
            raise LoadError(f"{self._rows_checked} rows passed the door but {self.rows_landed} landed")

    def _gather_people(self) -> None:
        with self._connection.cursor().copy("copy people from stdin (format binary)") as copy:
            copy.write(BINARY_HEADER)
            copy.write(b"".join(_PERSON.pack(2, 8, hmac[:8], 24, hmac[8:]) for hmac in self._pseudonyms.take_new()))
            copy.write(BINARY_END)


def lock_source(connection: psycopg.Connection, source: Source, notice: Callable[[str], None]) -> None:
    """Be the only one who lands or removes rows of this source, until the transaction ends."""
    _take_lock(connection, f"load {source.name}", notice, f"waiting for another load of {source.name} to end")


def lock_build(connection: psycopg.Connection, source: Source, notice: Callable[[str], None]) -> None:
    """Keep runs of this domain out until the transaction ends: rows must not vanish under a build."""
    _take_lock(connection, f"build {source.domain}", notice, f"waiting for the run of {source.domain} to end")


def note_slices(connection: psycopg.Connection, load_id: int, rows_by_day: Mapping[bytes, int]) -> None:
    """Note on which UTC days the rows of a load lie."""
    connection.execute(_INSERT_SLICES, _slices(load_id, rows_by_day))


def settle_replay(
    connection: psycopg.Connection,
    load_id: int,
    landed: Sequence[int],
    suppressed: Sequence[int],
    rows_by_day: Mapping[bytes, int],
) -> None:
    """Book lines, by their numbers, over from quarantine: landed after all, or suppressed; as steward."""
    connection.execute(
        "delete from quarantine.rows where load_id = %s and line_number = any(%s)", (load_id, [*landed, *suppressed])
    )
    connection.execute(
        "update audit.loads set rows_landed = rows_landed + %(landed)s, "
        "rows_suppressed = rows_suppressed + %(suppressed)s, "
        "rows_quarantined = rows_quarantined - %(landed)s - %(suppressed)s where load_id = %(load_id)s",
        {"load_id": load_id, "landed": len(landed), "suppressed": len(suppressed)},
    )
    connection.execute(_INSERT_SLICES + _ADDING_TO_SLICES, _slices(load_id, rows_by_day))


def remove_rows(connection: psycopg.Connection, source: Source, load_ids: Sequence[int], status: str) -> int:
    """Delete all that these loads put into raw and quarantine and give them `status`; return the raw rows deleted.

    Their slices stay: a removal rebuilds the right days. The caller is steward and holds both locks.
    """
    ids = list(load_ids)
    cursor = connection.execute(
        sql.SQL("delete from {} where _load_id = any(%s)").format(sql.Identifier(*source.raw_table)), (ids,)
    )
    connection.execute("delete from quarantine.rows where load_id = any(%s)", (ids,))
    connection.execute("update audit.loads set status = %s where load_id = any(%s)", (status, ids))
    return cursor.rowcount


def _slices(load_id: int, rows_by_day: Mapping[bytes, int]) -> tuple[int, list[str], list[int]]:
    return load_id, [day.decode() for day in rows_by_day], list(rows_by_day.values())


def _take_lock(connection: psycopg.Connection, name: str, notice: Callable[[str], None], message: str) -> None:
    until = time.monotonic() + NOTICE_AFTER_SECONDS
    while time.monotonic() < until:
        if connection.execute("select pg_try_advisory_xact_lock(hashtext(%s))", (name,)).fetchone() == (True,):
            return
        time.sleep(0.05)
    notice(message)
    connection.execute("select pg_advisory_xact_lock(hashtext(%s))", (name,))
