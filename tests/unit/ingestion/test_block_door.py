"""The compiled door against the truth: the same rows, rejections, days and people as `check_line`, line for line.

What it writes is decoded here by hand, after Postgres' documentation of the binary COPY format; that Postgres reads the
same is for tests/integration/test_landing.py.
"""

import csv
import io
import os
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest
from hostile_lines import GOOD, ODD_PRICES, ODD_VALUES, SESSION, in_blocks, line, lines
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ingestion import block_door
from ingestion.block_door import BlockDoor, is_within_reach
from ingestion.door import Checked, Door, Layout, RejectedLine, check_line, check_texts, people_of, whole_lines
from ingestion.ecommerce.source import EVENTS, period_of_text
from ingestion.source import Period, Rejection, Text, WholeNumber

CHECKOUT = Path(__file__).parents[3]
OCTOBER = period_of_text("2019-10")
LAYOUT = EVENTS.columns
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
APPENDED = struct.pack(">iqii", 8, 7, -1, -1)
APPENDED_CSV = b",7,,\n"

Row = tuple[object, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a file: rows by line number, and the rest."""

    rows: dict[int, Row]
    rejected: list[RejectedLine]
    suppressed: list[int]
    rows_by_day: Counter[bytes]


def is_forgotten(person_id: int) -> bool:
    return person_id % 7 == 0


def pseudonym_of(person_id: int) -> int | None:
    """One that fits 64 bits and is nobody's id."""
    return None if is_forgotten(person_id) else ~person_id


class Negated(dict[bytes, bytes]):
    """The same pseudonyms for the slow way."""

    def __missing__(self, key: bytes) -> bytes:
        pseudonym = pseudonym_of(int(key))
        return b"" if pseudonym is None else b"%d" % pseudonym


def value_of(sql_type: str, text: str | None) -> object:
    """The value Postgres makes of a text."""
    if text is None or text == "":
        return None
    if sql_type == "timestamptz":
        return datetime.fromisoformat(text.replace(" UTC", "+00:00"))
    if sql_type == "bigint":
        return int(text)
    if sql_type == "numeric":
        number = Decimal(text)
        # Postgres knows no negative zero, but keeps how many digits follow the point
        return str(abs(number) if number.is_zero() else number)
    return UUID(text) if sql_type == "uuid" else text


def by_the_truth(lines_in_order: Sequence[bytes], layout: Layout = LAYOUT, period: Period = OCTOBER) -> Outcome:
    """What `check_line` says of each line, which begin below the header."""
    columns = [column for column in layout if column]
    person = [column.name for column in columns].index(EVENTS.person)
    time = [column.name for column in columns].index(EVENTS.time)
    outcome = Outcome({}, [], [], Counter())
    for number, one in enumerate(lines_in_order, 2):
        checked = check_line(one, layout, period) if one else None
        if isinstance(checked, Rejection):
            forgotten = any(map(is_forgotten, people_of(one, layout, EVENTS).ids))
            outcome.rejected.append(RejectedLine(number, checked, b"" if forgotten else one[: 2**16 + 1], forgotten))
        elif checked:
            values = [value_of(column.sql_type, value) for column, value in zip(columns, checked, strict=True)]
            pseudonym = pseudonym_of(int(str(checked[person])))
            if pseudonym is None:
                outcome.suppressed.append(number)
                continue
            values[person] = pseudonym
            outcome.rows[number] = tuple(values)
            outcome.rows_by_day[str(checked[time])[:10].encode()] += 1
    return outcome


def door_of(layout: Layout = LAYOUT, period: Period = OCTOBER) -> Door:
    return Door(EVENTS, layout, period, Negated(), APPENDED_CSV, lambda people: any(map(is_forgotten, people)))


def by_blocks(text: bytes, block_bytes: int = 2**20, layout: Layout = LAYOUT, period: Period = OCTOBER) -> Outcome:
    """What the compiled door says of a text below the header."""
    door = BlockDoor(door_of(layout, period), pseudonym_of, APPENDED)
    outcome = Outcome({}, [], [], Counter())
    texts = whole_lines(in_blocks(text, block_bytes))
    for checked in check_texts(door.check_text, texts, first_line_number=2):
        rows = decoded(checked, door)
        assert checked.rows_good == len(rows) == checked.rows_by_day.total()
        assert not outcome.rows.keys() & rows.keys()
        outcome.rows.update(rows)
        outcome.rejected.extend(checked.rejected)
        outcome.suppressed.extend(checked.suppressed)
        outcome.rows_by_day.update(checked.rows_by_day)
    return outcome


def decoded(checked: Checked, door: BlockDoor) -> dict[int, Row]:
    """The rows of both formats by line number."""
    types = [column.sql_type for column in door.columns]
    rows: dict[int, Row] = {}
    stream = io.BytesIO(checked.rows)
    while fields := stream.read(2):
        assert int.from_bytes(fields, "big") == len(types) + 4
        values = tuple(_field(stream, sql_type) for sql_type in types)
        number = _field(stream, "bigint")
        assert isinstance(number, int)
        assert number not in rows
        rows[number] = values
        assert stream.read(len(APPENDED)) == APPENDED
    for row in csv.reader(io.StringIO(checked.odd_rows.decode(), newline="")):
        *texts, number_text, load_id, nothing, nor_here = row
        assert (load_id, nothing, nor_here) == ("7", "", "")
        assert int(number_text) not in rows
        rows[int(number_text)] = tuple(value_of(*pair) for pair in zip(types, texts, strict=True))
    return rows


def _field(stream: io.BytesIO, sql_type: str) -> object:
    (length,) = struct.unpack(">i", stream.read(4))
    if length == -1:
        return None
    content = stream.read(length)
    assert len(content) == length
    if sql_type == "timestamptz":
        return EPOCH + timedelta(microseconds=struct.unpack(">q", content)[0])
    if sql_type == "bigint":
        return struct.unpack(">q", content)[0]
    if sql_type == "uuid":
        return UUID(bytes=content)
    if sql_type == "numeric":
        count, weight, sign, scale = struct.unpack(">hhHh", content[:8])
        groups = struct.unpack(f">{count}h", content[8:])
        assert all(0 <= group < 10_000 for group in groups)
        assert sign in (0, 0x4000)
        digits = "".join(f"{group:04}" for group in groups)
        whole, fraction = digits[: 4 * (weight + 1)], digits[4 * (weight + 1) :]
        assert set(fraction[scale:]) <= {"0"}
        return value_of("numeric", f"{'-' if sign else ''}{whole}.{fraction[:scale]}")
    return content.decode("ascii")


# the first draw of any text builds tables of Unicode, which takes a second
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
line_ends = st.sampled_from([b"\n", b"\n", b"\r\n"])


@patient
@given(st.lists(st.tuples(lines(), line_ends), max_size=12), st.sampled_from([7, 100, 1000, 2**20]))
@example([(line(), b"\n"), (b"", b"\n"), (line(user_id="14"), b"\r\n"), (line(user_id="15"), b"\r\n")], 100)
@example([(line(user_id="14", price="?"), b"\n"), (line(brand="é"), b"\n"), (line(user_id="7", brand="é"), b"\n")], 7)
@example([(line(user_session=SESSION + "\r"), b"\r\n"), (b"\r", b"\r\n"), (b"\r", b"\n"), (line(), b"\n")], 2**20)
@example([(line(price=price), b"\n") for price in ("1.50", "-0.00", "10000", "9" * 18 + "." + "9" * 18)], 2**20)
def test_line_for_line_as_the_truth(some_lines: list[tuple[bytes, bytes]], block_bytes: int) -> None:
    text = b"".join(one + end for one, end in some_lines)
    # a carriage return before the line feed is half of a line end, wherever it came from
    without_ends = [(one + end)[:-1].removesuffix(b"\r") for one, end in some_lines]
    assert by_blocks(text, block_bytes) == by_the_truth(without_ends)


def test_every_odd_value_in_every_column() -> None:
    odd = [line(**{name: value}) for name in GOOD for value in ODD_VALUES + ODD_PRICES]
    assert by_blocks(b"".join(one + b"\n" for one in odd)) == by_the_truth([one.removesuffix(b"\r") for one in odd])


def test_every_byte_of_a_good_line_in_turn_replaced_or_left_out() -> None:
    good = line(price="-35.79")
    others = [bytes([byte]) for byte in b'\0\t\r !"%+,-./0123456789:;@AFGTUZ`afgz{|~\x7f\x80\xff'] + [b""]
    odd = [good[:place] + other + good[place + 1 :] for place in range(len(good)) for other in others]
    assert by_blocks(b"".join(one + b"\n" for one in odd)) == by_the_truth([one.removesuffix(b"\r") for one in odd])


@patient
@given(st.lists(lines(), max_size=5), st.permutations(LAYOUT))
def test_in_any_order_of_columns(some_lines: list[bytes], layout: list[Text]) -> None:
    places = [LAYOUT.index(column) for column in layout]
    shuffled = [
        b",".join(fields[place] for place in places) if len(fields) == len(places) else one
        for one in some_lines
        for fields in [one.split(b",")]
    ]
    text = b"".join(one + b"\n" for one in shuffled)
    without_ends = [one.removesuffix(b"\r") for one in shuffled]
    assert by_blocks(text, layout=tuple(layout)) == by_the_truth(without_ends, tuple(layout))


@pytest.mark.parametrize(
    ("changes", "is_plain"),
    [
        ({}, True),
        ({"price": ""}, True),
        ({"price": "-0.01"}, True),
        ({"price": "9" * 18 + "." + "9" * 18}, True),
        ({"category_id": ""}, True),
        ({"category_code": "", "brand": ""}, True),
        ({"brand": r"\."}, True),
        ({"user_id": "008"}, True),
        ({"user_id": "8" * 19}, True),
        ({"user_id": "9" * 17 + "8"}, True),
        ({"user_id": "9" * 19}, False),
        ({"user_id": "-8"}, False),
        ({"price": "+5"}, False),
        ({"brand": "é"}, False),
        ({"brand": "a%40b"}, False),
        ({"user_session": SESSION.upper()}, False),
        ({"event_time": "2019-10-01T00:00:00Z"}, False),
    ],
)
def test_which_lines_go_the_compiled_way(changes: dict[str, str], is_plain: bool) -> None:
    checked = BlockDoor(door_of(), pseudonym_of, APPENDED).check_text(line(**changes) + b"\n", 2)
    assert bool(checked.rows) is is_plain
    assert bool(checked.odd_rows) is (not is_plain and not checked.rejected)


@pytest.mark.parametrize("period", ["2020-02", "2019-02", "2019-04", "2019-12", "2019-10-15", "1999-12", "2000-01"])
def test_the_days_of_a_period(period: str) -> None:
    year_and_month = period[:7]
    moments = [f"{year_and_month}-{day:02} {clock} UTC" for day in range(33) for clock in ("00:00:00", "23:59:59")]
    every_line = [line(event_time=moment) for moment in moments]
    found = by_blocks(b"".join(one + b"\n" for one in every_line), period=period_of_text(period))
    expected = by_the_truth(every_line, period=period_of_text(period))
    assert found == expected
    assert found.rows_by_day


def test_more_lines_and_people_than_the_arrays_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_door, "ROWS_AT_A_TIME", 5)
    monkeypatch.setattr(block_door, "OUT_BYTES", 700)
    monkeypatch.setattr(block_door, "PEOPLE_REMEMBERED", 40)
    monkeypatch.setattr(block_door, "FEWEST_ENTRIES", 2)
    many = [line(user_id=str(n * n % 101), price="" if n % 3 else "?", brand="é" * (n % 2)) for n in range(1000)]
    assert by_blocks(b"".join(one + b"\n" for one in many), 10_000) == by_the_truth(many)


def test_everybody_is_asked_for_once() -> None:
    asked: list[int] = []

    def ask(person_id: int) -> int:
        asked.append(person_id)
        return person_id

    door = BlockDoor(door_of(), ask, APPENDED)
    text = b"".join(line(user_id=str(n % 5000)) + b"\n" for n in range(10_000))
    for first_line_number in (2, 10_002):
        assert door.check_text(text, first_line_number).rows_good == 10_000
    assert sorted(asked) == list(range(5000))


def test_a_last_line_without_line_feed() -> None:
    for end in (b"", b"\n", b"\r", b"\r\n"):
        assert by_blocks(line() + end) == by_the_truth([line()])


def test_what_the_parser_does_not_know_goes_the_slow_way() -> None:
    assert is_within_reach(door_of())
    assert not is_within_reach(door_of((*LAYOUT, None)))
    october = period_of_text("2019-10")
    assert not is_within_reach(door_of(period=replace(october, end=datetime(2019, 11, 2, tzinfo=UTC))))

    class Other(WholeNumber):
        pass

    assert not is_within_reach(door_of((*LAYOUT, Other("other"))))


def test_small_files_do_not_wait_for_numba() -> None:
    loaded = "import sys, ingestion.loader; sys.exit('numba' in sys.modules or 'ingestion.block_door' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], cwd=CHECKOUT).returncode == 0


def test_where_the_installation_may_not_be_written_compiled_code_goes_under_the_home(tmp_path: Path) -> None:
    shown = (
        "import os; os.access = lambda path, mode: False; "
        "from ingestion import block_parser; print(block_parser.parse._cache.cache_path)"
    )
    environment = os.environ | {"AGORA_HOME": str(tmp_path)}
    path = subprocess.run(
        [sys.executable, "-c", shown], cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert Path(path.strip()).is_relative_to(tmp_path / "compiled")
