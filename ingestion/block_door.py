"""The compiled way through the door, for so much text that it pays: three times as fast, once numba is imported.

Blocks of text go in, rows in COPY's binary format come out. What the parser does not take for plainly good goes line by
line through `door`, which stays the judge; sources with other kinds of columns, and files with columns that are left
out, go that way altogether. The parser itself is `block_parser`.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import ClassVar

import numpy as np

from ingestion import block_parser
from ingestion.block_parser import Bytes, Integers
from ingestion.door import Checked, Door
from ingestion.source import Choice, Column, Decimal, Moment, Text, Uuid, WholeNumber

# a block of 1 MB has about 8,000 lines, whose rows take half as much again
ROWS_AT_A_TIME = 16_384
OUT_BYTES = 3 * 2**20
# 64 MB as a table at most half full
PEOPLE_REMEMBERED = 2_000_000
FEWEST_ENTRIES = 2**12
# where Postgres' time begins
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
# by their numbers in the parser
KINDS: tuple[type[Column], ...] = (Moment, Choice, WholeNumber, Decimal, Uuid, Text)


class BlockDoor:
    """A door whose rows are binary; line for line it agrees with the `Door` it is made of.

    `pseudonym_of` gives the pseudonym of a person's id, none for one who asked to be forgotten; `appended` are the
    three fields after the line number, in binary.
    """

    copy_format: ClassVar[str] = "binary"

    def __init__(self, door: Door, pseudonym_of: Callable[[int], int | None], appended: bytes) -> None:
        self._door = door
        self._people = _People(pseudonym_of)
        self._shape, longest_row = _shape(door, appended)
        self._month = door.period.start.strftime("%Y-%m-").encode()
        self._out = np.empty(OUT_BYTES + longest_row, np.uint8)
        self._rows = np.empty((ROWS_AT_A_TIME, block_parser.ROW_FIELDS), np.int64)
        self._odd = np.empty((ROWS_AT_A_TIME, block_parser.ODD_FIELDS), np.int64)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns that land, in the order of the file."""
        return self._door.columns

    def check_text(self, text: bytes, first_line_number: int, bytes_done: int = 0) -> Checked:
        """Check whole lines, each with its line feed, of which the first has the number `first_line_number`."""
        octets = np.frombuffer(text, np.uint8)
        at, number = 0, first_line_number
        rows: list[bytes] = []
        rows_good = 0
        rows_by_day: Counter[bytes] = Counter()
        suppressed: list[int] = []
        odd_lines: list[tuple[int, bytes]] = []
        while at < len(text):
            at, number, end, row_count, odd_count = block_parser.parse(
                octets, at, number, *self._shape, self._out, self._rows, self._odd
            )
            found = self._rows[:row_count]
            forgotten = self._people.put_pseudonyms(self._out, found)
            rows.append(self._without(forgotten, found, end))
            suppressed += found[forgotten, block_parser.LINE_NUMBER].tolist()
            rows_good += row_count - len(forgotten)
            days = np.bincount(np.delete(found[:, block_parser.DAY], forgotten), minlength=1)
            rows_by_day.update({self._month + b"%02d" % day: int(days[day]) for day in np.flatnonzero(days)})
            odd_lines += [(line, text[start:stop]) for line, start, stop in self._odd[:odd_count].tolist()]
        odd = self._door.check(odd_lines, bytes_done)
        return replace(
            odd,
            rows=b"".join(rows),
            odd_rows=odd.rows,
            rows_good=rows_good + odd.rows_good,
            rows_by_day=rows_by_day + odd.rows_by_day,
            suppressed=sorted(suppressed + odd.suppressed),
        )

    def _without(self, forgotten: Integers, found: Integers, end: int) -> bytes:
        """The rows in the output but for those of people who asked to be forgotten."""
        if not len(forgotten):
            return self._out[:end].tobytes()
        ends = found[:, block_parser.ROW_END]
        starts = np.concatenate(([0], ends))
        cuts = [0, *np.column_stack((starts[forgotten], ends[forgotten])).ravel().tolist(), end]
        return b"".join(self._out[start:stop].tobytes() for start, stop in zip(cuts[::2], cuts[1::2], strict=True))


def is_within_reach(door: Door) -> bool:
    """Whether the parser knows every column of these lines, and their period."""
    return None not in door.layout and all(
        type(column) in KINDS and column.plain(door.period) is not None for column in door.columns
    )


class _People:
    """The table of pseudonyms that the parser reads, at most half full; a person unknown to it is asked for once."""

    def __init__(self, pseudonym_of: Callable[[int], int | None]) -> None:
        self._pseudonym_of = pseudonym_of
        self._count = 0
        self._table = _empty_table(FEWEST_ENTRIES)
        self._unknown = np.empty(ROWS_AT_A_TIME, np.int64)
        self._forgotten = np.empty(ROWS_AT_A_TIME, np.int64)

    def put_pseudonyms(self, out: Bytes, rows: Integers) -> Integers:
        """Write everybody's pseudonym where it belongs; return which rows are of people who asked to be forgotten."""
        unknown, forgotten = self._put(out, rows)
        if len(unknown):
            self._ask_for(np.unique(rows[unknown, block_parser.PERSON_ID]))
            _, more = self._put(out, rows[unknown])
            forgotten = np.sort(np.concatenate((forgotten, unknown[more])))
        return forgotten

    def _put(self, out: Bytes, rows: Integers) -> tuple[Integers, Integers]:
        unknown_count, forgotten_count = block_parser.put_pseudonyms(
            self._table, out, rows, self._unknown, self._forgotten
        )
        return self._unknown[:unknown_count].copy(), self._forgotten[:forgotten_count].copy()

    def _ask_for(self, ids: Integers) -> None:
        if self._count + len(ids) > PEOPLE_REMEMBERED:
            self._count = 0
            self._table = _empty_table(FEWEST_ENTRIES)
        self._count += len(ids)
        if 2 * self._count > len(self._table):
            before = self._table
            self._table = _empty_table(1 << (2 * self._count).bit_length())
            block_parser.remember(self._table, before[:, 0].copy(), before[:, 1].copy())
        pseudonyms = [self._pseudonym_of(person_id) for person_id in ids.tolist()]
        is_forgotten = np.array([pseudonym is None for pseudonym in pseudonyms])
        block_parser.remember(
            self._table,
            np.where(is_forgotten, ~ids, ids),
            np.array([pseudonym or 0 for pseudonym in pseudonyms], np.int64),
        )


def _empty_table(entries: int) -> Integers:
    return np.full((entries, 2), block_parser.NOBODY, np.int64)


def _shape(door: Door, appended: bytes) -> tuple[tuple[object, ...], int]:
    """What the parser is to know of lines and rows, in the order of its parameters; and the longest row's bytes."""
    columns, period = door.columns, door.period
    names = [column.name for column in columns]
    choices = [column.words if isinstance(column, Choice) else () for column in columns]
    words = [word.encode() for choice in choices for word in choice]
    month = period.start.strftime("%Y-%m-").encode()
    day_zero = (period.start - EPOCH).days - period.start.day
    number_bytes = 8 + 4 * block_parser.MOST_GROUPS
    longest_field = 4 + max(block_parser.LONGEST_TEXT, number_bytes, *map(len, words))
    longest_row = 2 + longest_field * len(columns) + 12 + len(appended)
    shape = (
        np.array([KINDS.index(type(column)) for column in columns], np.int64),
        np.array([isinstance(column, WholeNumber | Uuid) and not column.required for column in columns]),
        names.index(door.source.person),
        names.index(door.source.time),
        np.frombuffer(month, np.uint8),
        period.start.day,
        (period.end - timedelta(days=1)).day,
        day_zero * 86_400 * 1_000_000,
        np.frombuffer(b"".join(words), np.uint8),
        np.array(list(accumulate(map(len, words))), np.int64),
        np.array([0, *accumulate(map(len, choices))], np.int64),
        np.frombuffer(appended, np.uint8),
        longest_row,
    )
    return shape, longest_row
