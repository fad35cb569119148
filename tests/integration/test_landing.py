"""Landing against a real Postgres: what lands, what replaces what, and what a crash leaves behind."""

import csv
import gzip
import hashlib
import hmac
import json
import os
import re
import signal
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hostile_lines import lines as hostile_lines
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingestion import door, keys, landing, loader
from ingestion.audit import LoadError, loads, mark_abandoned
from ingestion.ecommerce import source as ecommerce_source
from ingestion.ecommerce.simulator import simulate
from ingestion.ecommerce.source import EVENTS
from ingestion.keys import Key, key_of, pseudonyms
from ingestion.loader import LoadResult, Progress, load, replay, undo
from ingestion.quarantine import Seal, list_rows, quarantined_lines
from ingestion.source import Choice
from ingestion.suppression import suppress
from warehouse.connections import connect
from warehouse.errors import UserError

CHECKOUT = Path(__file__).parents[2]
REAL_DATA = CHECKOUT / "../shared/data"
# where the data is, a missing sample is a failure
REAL_SAMPLE = REAL_DATA / "rees46/2019-Oct.sample.csv"
SECRET = bytes(range(32))
HEADER = b"event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
SESSION = "72d76fde-8bb3-4e00-8c23-a032dfed738c"

pytestmark = pytest.mark.usefixtures("empty_warehouse")


@pytest.fixture
def empty_warehouse(warehouse: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The module's warehouse without a row, a known pseudonym key, and a faster door that has yet to start."""
    monkeypatch.setenv("AGORA_KEY_ECOMMERCE", SECRET.hex())
    monkeypatch.delitem(sys.modules, "ingestion.block_door", raising=False)
    yield
    assert list((warehouse / "spool").glob("*")) == []
    with connect() as connection:
        connection.execute(
            "truncate raw_ecommerce.events, raw_ecommerce.users, quarantine.rows, audit.load_slices, "
            "audit.built_loads, audit.suppressions, audit.keys, audit.loads restart identity cascade"
        )


def rows_of(statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with connect() as connection:
        return connection.execute(statement, values).fetchall()


def one(statement: str, *values: Any) -> Any:
    ((value,),) = rows_of(statement, *values)
    return value


def row_counts() -> tuple[int, int]:
    """Rows in raw and in quarantine."""
    return one("select count(*) from raw_ecommerce.events"), one("select count(*) from quarantine.rows")


def statuses() -> list[str]:
    return [status for (status,) in rows_of("select status from audit.loads order by load_id")]


def event(user: object = 541312140, day: str = "2019-10-01", **changes: object) -> bytes:
    fields = {
        "event_time": f"{day} 00:00:00 UTC",
        "event_type": "view",
        "product_id": 44600062,
        "category_id": 2103807459595387724,
        "category_code": "",
        "brand": "shiseido",
        "price": "35.79",
        "user_id": user,
        "user_session": SESSION,
    }
    return ",".join(str(value) for value in {**fields, **changes}.values()).encode() + b"\n"


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file of the given lines below the header."""

    def write(name: str, *lines: bytes, folder: str = ".") -> Path:
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        content = HEADER + b"".join(lines)
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return write


def load_one(path: Path, **options: Any) -> LoadResult:
    (result,) = load(EVENTS, [path], **options)
    assert result.rows_read == result.rows_landed + result.rows_quarantined + result.rows_suppressed
    assert result.rows_quarantined == sum(result.quarantined_by_reason.values())
    return result


def pseudonym(person_id: int) -> int:
    digest = hmac.new(SECRET, str(person_id).encode(), hashlib.sha256).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


# What lands -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL_DATA.exists(), reason="the real data is not beside this checkout")
def test_the_real_sample_lands_value_by_value() -> None:
    told: list[Progress] = []
    result = load_one(REAL_SAMPLE, on_progress=told.append)
    assert (result.status, result.period, result.file_name) == ("loaded", "2019-10", "2019-Oct.sample.csv")
    assert (result.rows_read, result.rows_landed, result.rows_quarantined) == (17_435, 17_434, 1)
    assert rows_of("select load_id, line_number, error_code, detail from quarantine.rows") == [
        (result.load_id, 17_436, "wrong_field_count", "the line has 8 fields, not 9")
    ]

    with REAL_SAMPLE.open(encoding="utf-8", newline="") as stream:
        delivered = [row for row in csv.DictReader(stream) if row["user_session"]]
    assert len(delivered) == 17_434
    expected = [
        (
            datetime.strptime(row["event_time"], "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC),
            row["event_type"],
            int(row["product_id"]),
            int(row["category_id"]),
            row["category_code"] or None,
            row["brand"] or None,
            row["price"],
            pseudonym(int(row["user_id"])),
            UUID(row["user_session"]),
            line_number,
        )
        for line_number, row in enumerate(delivered, 2)
    ]
    landed = rows_of(
        "select event_time, event_type, product_id, category_id, category_code, brand, price::text, user_id, "
        "user_session, _row_number from raw_ecommerce.events order by _row_number"
    )
    assert landed == expected
    assert one("select count(distinct (_load_id, _source_file, _loaded_at)) from raw_ecommerce.events") == 1
    assert rows_of("select load_id, slice_date, rows_landed from audit.load_slices") == [
        (result.load_id, date(2019, 10, 1), 17_434)
    ]
    people = {int(row["user_id"]) for row in delivered}
    assert len(people) == 4_504
    users = dict(rows_of("select user_id, hmac_remainder from raw_ecommerce.users"))
    assert users == {
        pseudonym(person): hmac.new(SECRET, str(person).encode(), hashlib.sha256).digest()[8:] for person in people
    }
    record = loads(1)[0]
    assert record.sha256 == hashlib.sha256(REAL_SAMPLE.read_bytes()).hexdigest()
    assert (record.rows_read, record.rows_landed, record.rows_quarantined, record.rows_suppressed) == (
        17_435,
        17_434,
        1,
        0,
    )
    assert record.finished_at is not None
    assert record.finished_at >= record.started_at
    loading = [progress for progress in told if progress.stage == "loading"]
    assert (loading[-1].bytes_done, loading[-1].bytes_total, loading[-1].rows) == (2_344_707, 2_344_707, 17_435)


@pytest.mark.skipif(not REAL_DATA.exists(), reason="the real data is not beside this checkout")
def test_no_delivered_id_is_left_anywhere(warehouse: Path, tmp_path: Path) -> None:
    # a second file of the same people whose last line is broken in another way
    lines = REAL_SAMPLE.read_bytes().splitlines(keepends=True)
    other = tmp_path / "2019-Oct.other.csv"
    other.write_bytes(b"".join(lines[:3000]) + lines[3000].replace(b"UTC,", b"UTC,,"))
    load_one(REAL_SAMPLE)
    load_one(other)
    load_one(other, force=True)
    replay(1)
    delivered = {line.split(b",")[7].decode() for line in lines[1:]}

    tables = rows_of(
        "select table_schema, table_name from information_schema.tables "
        "where table_schema not in ('pg_catalog', 'information_schema') and table_type = 'BASE TABLE'"
    )
    assert ("raw_ecommerce", "events") in tables
    for schema, table in tables:
        words = {
            word
            for (row,) in rows_of(f'select t::text from {schema}."{table}" as t')
            for word in re.findall(r"\w+", row)
        }
        assert not words & delivered, f"{schema}.{table}"
    assert rows_of("select relname from pg_class where relpersistence = 't'") == []

    # data files, write-ahead log, server log, spool, keys: as text and as bigint
    some = sorted(delivered)[::300]
    patterns = [text.encode() for text in some] + [struct.pack("<q", int(text)) for text in some]
    landed = [struct.pack("<q", pseudonym(int(text))) for text in some]
    landed_found = 0
    for path in warehouse.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [pattern for pattern in patterns if pattern in content], path
            landed_found += sum(pattern in content for pattern in landed)
    # the search would have found them, where the data files are at hand
    assert landed_found or not list(warehouse.rglob("PG_VERSION"))


def test_the_door_turns_away_what_the_simulator_planted(tmp_path: Path) -> None:
    simulation = simulate(tmp_path, seed=3, user_count=300, event_count=30_000, month_count=2)
    planted = json.loads(simulation.manifest_path.read_text())["expected"]["planted"]
    results = load(EVENTS, [tmp_path])
    assert [result.status for result in results] == ["loaded", "loaded"]
    assert sum(result.rows_read for result in results) == 30_000
    assert sum((Counter(result.quarantined_by_reason) for result in results), Counter()) == {
        "wrong_field_count": planted["cut_short"] + planted["extra_field"],
        "not_a_number": planted["text_for_number"],
        "invalid_uuid": planted["invalid_uuid"],
        "invalid_utf8": planted["invalid_utf8"],
        "invalid_timestamp": planted["impossible_date"],
        "empty_user_id": planted["null_user"],
        "empty_product_id": planted["null_product"],
        "empty_user_session": planted["null_session"],
        "outside_period": planted["foreign_date"],
    }
    assert one("select count(*) from raw_ecommerce.events") == sum(result.rows_landed for result in results)


HOSTILE_BUT_GOOD = [
    event(),
    event("007"),
    event("7"),
    event(" +7 "),
    event(-7),
    event(price=""),
    event(price="+5"),
    event(price=".5"),
    event(price="5."),
    event(category_id="", category_code="", brand=""),
    event(category_id="9223372036854775807"),
    event(brand=r"\."),
    event(brand=r"\N"),
    event(brand="  two  words "),
    event(brand='"with "" quote, comma"'),
    event(brand="'; drop table"),
    event(brand="é ☂ \u2028"),
    event(brand='"carriage\rreturn"'),
    event(category_code="a;b|c"),
    event(user_session=SESSION.upper()),
    event(user_session=SESSION.replace("-", "")),
    event(event_time="2019-10-31 23:59:59.999999 UTC"),
    event(event_time="2019-11-01T01:59:59+02:00"),
    event(event_type="remove"),
]
HOSTILE = [
    event(""),
    event("abc"),
    event("9" * 19),
    event("١٢"),
    event(price="NaN"),
    event(price="1e5"),
    event(price="Infinity"),
    event(day="2019-02-30"),
    event(day="2019-11-01"),
    event(event_time="2019-10-01 24:00:00 UTC"),
    event(event_time="2019-10-01 23:59:60 UTC"),
    event(user_session="-" * 36),
    event(brand='"unclosed'),
    event(brand="a\0b"),
    event(event_type="click"),
    event(brand="é").decode().encode("latin-1"),
    b"\\.\n",
    b"   \n",
    b"x" * 70_000 + b"\n",
]


def what_landed(path: Path) -> tuple[Any, ...]:
    """Land a file in place of what it landed before; all that is to be the same whichever way it took."""
    result = load_one(path, force=True)
    with connect("steward") as connection:
        key = keys.open_key(connection, keys.QUARANTINE, may_generate=False)
        kept = list(quarantined_lines(connection, Seal(key), EVENTS, result.load_id))
    return (
        rows_of(
            "select event_time, event_type, product_id, category_id, category_code, brand, price::text, user_id, "
            "user_session, _row_number, _source_file, _loaded_at from raw_ecommerce.events where _load_id = %s "
            "order by _row_number",
            result.load_id,
        ),
        rows_of("select line_number, error_code, detail from quarantine.rows order by line_number"),
        kept,
        rows_of("select user_id, hmac_remainder from raw_ecommerce.users order by user_id"),
        rows_of(
            "select slice_date, rows_landed from audit.load_slices where load_id = %s order by slice_date",
            result.load_id,
        ),
        replace(result, load_id=0, seconds=0, message=""),
    )


def test_every_way_through_the_door_lands_the_same(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGORA_NOW", "2020-01-01T12:00:00.123456Z")
    path = write("2019-Oct.csv", *HOSTILE_BUT_GOOD, *HOSTILE, *[event(n) for n in range(1000)])
    by_short_way = what_landed(path)
    landed, turned_away, *_ = by_short_way
    assert (len(landed), len(turned_away)) == (len(HOSTILE_BUT_GOOD) + 1000, len(HOSTILE))
    assert [row[9] for row in landed][: len(HOSTILE_BUT_GOOD)] == list(range(2, 2 + len(HOSTILE_BUT_GOOD)))
    monkeypatch.setattr(loader, "_is_worth_compiling", lambda _: True)
    assert what_landed(path) == by_short_way
    monkeypatch.setattr(loader, "_is_worth_compiling", lambda _: False)
    monkeypatch.setattr(door, "plain_pattern", lambda *_: None)
    assert what_landed(path) == by_short_way
    values = {row[9]: row for row in landed}
    assert values[3][7] == values[4][7] == values[5][7] == pseudonym(7)
    assert values[6][7] == pseudonym(-7)
    assert values[7][6] is None
    assert values[11][3:6] == (None, None, None)
    assert values[16][5] == 'with " quote, comma'
    assert values[19][5] == "carriage\rreturn"
    assert values[8][6:7] + values[9][6:7] + values[10][6:7] == ("5", "0.5", "5")
    assert values[24][0] == datetime(2019, 10, 31, 23, 59, 59, tzinfo=UTC)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(hostile_lines(), min_size=50, max_size=100))
def test_postgres_reads_hostile_lines_the_same_from_either_format(
    write: Write, monkeypatch: pytest.MonkeyPatch, some_lines: list[bytes]
) -> None:
    path = write("2019-Oct.csv", *[one + b"\n" for one in some_lines], event())
    monkeypatch.setenv("AGORA_NOW", "2020-01-01T12:00:00Z")
    monkeypatch.setattr("ingestion.spool.BLOCK_BYTES", 2000)
    monkeypatch.setattr(loader, "_refuse_hopeless", lambda *_: None)
    outcomes = []
    for is_compiled in (True, False):
        monkeypatch.setattr(loader, "_is_worth_compiling", lambda _, chosen=is_compiled: chosen)
        outcomes.append(what_landed(path))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0]


def test_a_large_dirty_file_lands_the_same_from_either_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = simulate(tmp_path, seed=5, user_count=2000, event_count=100_000, month_count=1)
    (path,) = simulation.files
    people = [int(person) for person in json.loads(simulation.manifest_path.read_text())["users"]]
    with connect("steward") as connection:
        suppress(connection, "ecommerce", people[::50])
    monkeypatch.setenv("AGORA_NOW", "2020-01-01T12:00:00Z")
    outcomes = []
    for is_compiled in (True, False):
        monkeypatch.setattr(loader, "_is_worth_compiling", lambda _, chosen=is_compiled: chosen)
        outcomes.append(what_landed(path))
    assert outcomes[0] == outcomes[1]
    *_, result = outcomes[0]
    assert min(result.rows_landed, result.rows_quarantined, result.rows_suppressed) > 500
    assert not {row[7] for row in outcomes[0][0]} & {pseudonym(person) for person in people[::50]}


def test_the_faster_door_starts_for_much_text_in_one_file_or_in_many(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [write(f"2019-Oct.{n}.csv{suffix}", *[event(n)] * 1000) for n, suffix in enumerate(["", ".gz", "", ""])]
    plain_bytes = files[0].stat().st_size
    compiled: list[str] = []

    def bulk_door(_: landing.Landing, line_by_line: door.Door) -> door.Door:
        compiled.append(line_by_line.appended.decode().split('"')[1])
        return line_by_line

    monkeypatch.setattr(landing.Landing, "bulk_door", bulk_door)
    monkeypatch.setattr(loader, "BULK_BYTES", 2 * plain_bytes)
    load(EVENTS, files)
    # as long as the files that are left hold enough
    assert compiled == ["2019-Oct.0.csv", "2019-Oct.1.csv.gz", "2019-Oct.2.csv"]
    compiled.clear()
    load(EVENTS, files[3:], force=True)
    assert compiled == []
    monkeypatch.setitem(sys.modules, "ingestion.block_door", sys)
    load(EVENTS, files[3:], force=True)
    assert compiled == ["2019-Oct.3.csv"]


def test_many_batches_people_and_rejections(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingestion.spool.BLOCK_BYTES", 4000)
    monkeypatch.setattr("ingestion.landing.BATCHES_PER_COPY", 3)
    monkeypatch.setattr("ingestion.keys.PEOPLE_REMEMBERED", 50)
    lines = [event(n % 500 if n % 7 else "", day=f"2019-10-{n % 31 + 1:02}") for n in range(5000)]
    result = load_one(write("2019-Oct.csv.gz", *lines))
    bad = len(range(0, 5000, 7))
    assert (result.rows_landed, result.rows_quarantined) == (5000 - bad, bad)
    assert rows_of("select array_agg(line_number order by line_number) from quarantine.rows") == [
        ([2 + n for n in range(0, 5000, 7)],)
    ]
    assert one("select count(*) from raw_ecommerce.users") == 500
    assert rows_of("select slice_date, rows_landed from audit.load_slices order by 1") == rows_of(
        "select (event_time at time zone 'UTC')::date, count(*) from raw_ecommerce.events group by 1 order by 1"
    )


def test_shapes_of_files_that_are_fine(tmp_path: Path) -> None:
    names = HEADER.decode().strip().split(",")
    line = dict(zip(names, event().decode().strip().split(","), strict=True))
    reordered = [*reversed(names)]
    files = {
        "2019-Oct.crlf.csv": HEADER.replace(b"\n", b"\r\n") + event().replace(b"\n", b"\r\n") * 2,
        "2019-Oct.bom.csv": b"\xef\xbb\xbf" + HEADER + event() + event(),
        "2019-Oct.blank.csv": HEADER + b"\n" + event() + b"\r\n\n" + event() + b"\n",
        "2019-Oct.end.csv": HEADER + event() + event().rstrip(b"\n"),
        "2019-Oct.order.csv": (
            ",".join(reordered).upper() + "\n" + (",".join(line[name] for name in reordered) + "\n") * 2
        ).encode(),
        "2019-Oct.extra.csv": HEADER.rstrip(b"\n") + b",ip\n" + (event().rstrip(b"\n") + b",10.0.0.1\n") * 2,
        "2019-Oct.quoted.csv": HEADER + b",".join(b'"%b"' % f for f in event().strip().split(b",")) + b"\n" + event(),
        "2019-Oct.gz-by-content.csv": gzip.compress(HEADER + event() * 2),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    results = load(EVENTS, [tmp_path])
    assert {(result.rows_read, result.rows_landed) for result in results} == {(2, 2)}
    assert {result.file_name for result in results} == set(files)
    values = rows_of(
        "select distinct event_time, event_type, product_id, category_id, brand, price, user_id, user_session "
        "from raw_ecommerce.events"
    )
    assert len(values) == 1
    assert [result.message for result in results if result.message] == ["columns left out: ip"]
    lines = rows_of("select _row_number from raw_ecommerce.events where _source_file = '2019-Oct.blank.csv' order by 1")
    assert lines == [(3,), (6,)]
    assert not [1 for (row,) in rows_of("select e::text from raw_ecommerce.events as e") if "10.0.0.1" in row]


def test_a_folder_lands_in_order_and_since_leaves_out(write: Write) -> None:
    for name, day in [
        ("2020-Jan.csv", "2020-01-05"),
        ("2019-Oct.csv", "2019-10-05"),
        ("2019-Dec-24.csv.gz", "2019-12-24"),
    ]:
        path = write(name, event(day=day))
    results = load(EVENTS, [path.parent], since="2019-12")
    assert [(result.file_name, result.period) for result in results] == [
        ("2019-Dec-24.csv.gz", "2019-12-24"),
        ("2020-Jan.csv", "2020-01"),
    ]
    assert [result.status for result in load(EVENTS, [path.parent])] == ["loaded", "skipped", "skipped"]
    assert load(EVENTS, [path.parent], since="2021-01") == []


# What replaces what -----------------------------------------------------------------------------------------------


def test_the_same_bytes_land_once_under_any_name(write: Write) -> None:
    path = write("2019-Oct.csv", event(), event(""))
    first = load_one(path)
    again = load_one(path)
    other = load_one(path.rename(path.with_name("2019-Oct.2.csv")))
    assert (first.status, again.status, other.status) == ("loaded", "skipped", "skipped")
    assert again.message == "the same bytes have landed as load 1 (2019-Oct.csv, 2019-10)"
    assert (other.rows_read, other.rows_landed) == (0, 0)
    assert row_counts() == (1, 1)
    assert rows_of("select file_name, status, rows_read, sha256 is null from audit.loads order by load_id") == [
        ("2019-Oct.csv", "loaded", 2, False),
        ("2019-Oct.csv", "skipped", 0, False),
        ("2019-Oct.2.csv", "skipped", 0, False),
    ]


def test_a_changed_file_replaces_its_predecessor_only(write: Write) -> None:
    load_one(write("2019-Nov.csv", event(day="2019-11-01")))
    load_one(write("2019-Oct.2.csv", event(3)))
    load_one(write("2019-Oct.csv", event(1), event(2), event(""), event(day="2019-10-02")))
    changed = load_one(write("2019-Oct.csv", event(1), event("x")))
    assert (changed.status, changed.message) == ("loaded", "replaces load 3")
    assert statuses() == ["loaded", "loaded", "superseded", "loaded"]
    assert rows_of("select _load_id, user_id from raw_ecommerce.events order by 1") == [
        (1, pseudonym(541312140)),
        (2, pseudonym(3)),
        (4, pseudonym(1)),
    ]
    assert rows_of("select load_id, line_number from quarantine.rows") == [(4, 3)]
    # the days of the rows that went are still known
    assert rows_of("select load_id, slice_date::text from audit.load_slices where load_id > 2 order by 1, 2") == [
        (3, "2019-10-01"),
        (3, "2019-10-02"),
        (4, "2019-10-01"),
    ]
    # and the first bytes may come back
    back = load_one(write("2019-Oct.csv", event(1), event(2), event(""), event(day="2019-10-02")))
    assert (back.status, back.message) == ("loaded", "replaces load 4")


def test_a_file_that_changes_into_one_that_has_landed(write: Write) -> None:
    load_one(write("2019-Oct.csv", event(1)))
    load_one(write("2019-Oct.2.csv", event(2)))
    result = load_one(write("2019-Oct.csv", event(2)))
    assert (result.status, statuses()) == ("skipped", ["superseded", "loaded", "skipped"])
    assert result.message == "replaces load 1; the same bytes have landed as load 2 (2019-Oct.2.csv, 2019-10)"
    assert rows_of("select user_id from raw_ecommerce.events") == [(pseudonym(2),)]


def test_the_period_given_makes_another_file_of_it(write: Write) -> None:
    path = write("export.csv", event(1))
    assert load_one(path, period="2019-10").status == "loaded"
    assert load_one(write("export.csv", event(2)), period="2019-10-01").status == "loaded"
    assert statuses() == ["loaded", "loaded"]


def test_force_lands_the_same_bytes_again(write: Write) -> None:
    path = write("2019-Oct.csv", event(), event(""))
    load_one(path)
    forced = load_one(path, force=True)
    assert (forced.status, forced.message, statuses()) == ("loaded", "replaces load 1", ["superseded", "loaded"])
    assert rows_of("select distinct _load_id from raw_ecommerce.events") == [(2,)]
    assert row_counts() == (1, 1)
    changed = load_one(write("2019-Oct.csv", event(2)), force=True)
    assert (changed.message, statuses()) == ("replaces load 2", ["superseded", "superseded", "loaded"])
    # where there is nothing to replace it is a plain load
    assert load_one(write("2019-Nov.csv", event(day="2019-11-01")), force=True).status == "loaded"


def test_undo_takes_all_of_a_load_back(write: Write) -> None:
    load_one(write("2019-Oct.csv", event(1), event("")))
    path = write("2019-Oct.2.csv", event(2), event("x"))
    load_one(path)
    result = undo(2)
    assert (result.status, result.rows_landed, result.message) == ("undone", 1, "1 rows removed")
    assert statuses() == ["loaded", "undone"]
    assert rows_of("select _load_id from raw_ecommerce.events") == [(1,)]
    assert rows_of("select load_id from quarantine.rows") == [(1,)]
    with pytest.raises(UserError, match=r"Load 2 \(2019-Oct.2.csv\) is undone"):
        undo(2)
    with pytest.raises(UserError, match="There is no load 99"):
        undo(99)
    assert load_one(path).status == "loaded"


def test_only_what_removes_rows_is_done_as_steward(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    roles: list[str] = []

    def connect_and_note(role: str, **options: Any) -> Any:
        roles.append(role)
        return connect(role, **options)

    for module in ("loader", "audit"):
        monkeypatch.setattr(f"ingestion.{module}.connect", connect_and_note)
    load_one(write("2019-Oct.csv", event(1)))
    load_one(write("2019-Oct.csv", event(1)))
    assert set(roles) == {"loader"}
    load_one(write("2019-Oct.csv", event(2)))
    assert "steward" in roles


# Quarantine -------------------------------------------------------------------------------------------------------


def test_quarantine_is_sealed_and_summed_up(write: Write, warehouse: Path) -> None:
    load_one(write("2019-Oct.csv", event("secret-9"), event("secret-8"), event(price="secret-7"), event()))
    assert [
        (entry.load_id, entry.file_name, entry.error_code, entry.detail, entry.row_count, entry.first_line_number)
        for entry in list_rows()
    ] == [
        (1, "2019-Oct.csv", "not_a_number", "user_id is not a whole number of 64 bits", 2, 2),
        (1, "2019-Oct.csv", "not_a_number", "price is not a plain decimal number", 1, 4),
    ]
    assert list_rows(2) == []
    payload = one("select payload from quarantine.rows where line_number = 2")
    assert b"secret" not in payload
    key = key_of(bytes.fromhex((warehouse / "keys/quarantine.key").read_text()))
    assert Seal(key).open(payload, 1, 2) == HEADER + event("secret-9").rstrip(b"\n")


def test_replay_lands_what_passes_today(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    load_one(
        write(
            "2019-Oct.csv",
            event(1),
            event(2, event_type="click"),
            event(3, "2019-10-02", event_type="click"),
            event(""),
        )
    )
    load_one(write("2019-Oct.2.csv", event(4, event_type="click"), event()))
    assert replay(1) == loader.ReplayResult(1, 0, 3)

    today = tuple(
        replace(column, words=(*column.words, "click")) if isinstance(column, Choice) else column
        for column in EVENTS.columns
    )
    monkeypatch.setattr(ecommerce_source, "EVENTS", replace(EVENTS, columns=today))
    assert replay(1) == loader.ReplayResult(1, 2, 1)
    assert rows_of(
        "select _row_number, user_id, event_type, _source_file from raw_ecommerce.events where _load_id = 1 order by 1"
    ) == [
        (2, pseudonym(1), "view", "2019-Oct.csv"),
        (3, pseudonym(2), "click", "2019-Oct.csv"),
        (4, pseudonym(3), "click", "2019-Oct.csv"),
    ]
    assert rows_of("select load_id, line_number from quarantine.rows order by 1, 2") == [(1, 5), (2, 2)]
    record = loads()[-1]
    assert (record.rows_read, record.rows_landed, record.rows_quarantined, record.status) == (4, 3, 1, "loaded")
    assert rows_of("select slice_date::text, rows_landed from audit.load_slices where load_id = 1 order by 1") == [
        ("2019-10-01", 2),
        ("2019-10-02", 1),
    ]
    assert one("select count(*) from raw_ecommerce.users") == 4
    assert replay(1) == loader.ReplayResult(1, 0, 1)

    undo(1)
    with pytest.raises(UserError, match="is undone"):
        replay(1)
    with pytest.raises(UserError, match="There is no load 99"):
        replay(99)


def test_replay_understands_a_file_of_another_column_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "2019-Oct.csv"
    lines = (HEADER, event(8), event(9, event_type="click", brand="b"))
    reordered = [b",".join(reversed(line.strip().split(b","))) for line in lines]
    path.write_bytes(b"".join(b"extra," + line + b"\n" for line in reordered))
    assert load_one(path).quarantined_by_reason == {"unknown_event_type": 1}
    words = tuple(replace(c, words=("click",)) if isinstance(c, Choice) else c for c in EVENTS.columns)
    monkeypatch.setattr(ecommerce_source, "EVENTS", replace(EVENTS, columns=words))
    assert replay(1).rows_landed == 1
    assert rows_of("select user_id, brand, price from raw_ecommerce.events where _row_number = 3") == [
        (pseudonym(9), "b", Decimal("35.79"))
    ]


# Crashes, interrupts and company ----------------------------------------------------------------------------------

KILLED_LOAD = """
import os, signal, sys
from ingestion.loader import load
from ingestion.source import source_named

# a suite started in the background ignores interrupts, and so would this process
signal.signal(signal.SIGINT, signal.default_int_handler)

def tell(progress):
    if progress.stage == "loading" and progress.rows:
        os.kill(os.getpid(), getattr(signal, sys.argv[2]))

load(source_named("ecommerce.events"), [sys.argv[1]], on_progress=tell)
"""


def start_killed_load(path: Path, signal_name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", KILLED_LOAD, path, signal_name],
        cwd=CHECKOUT, env=os.environ, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_a_killed_load_leaves_its_attempt_and_nothing_else(write: Write) -> None:
    path = write("2019-Oct.csv", *[event(n if n % 3 else "") for n in range(20_000)])
    assert start_killed_load(path, "SIGKILL").returncode == -signal.SIGKILL
    assert statuses() == ["started"]
    assert row_counts() == (0, 0)
    result = load_one(path)
    assert (result.status, result.rows_read) == ("loaded", 20_000)
    assert rows_of("select status, error, finished_at is null from audit.loads order by load_id") == [
        ("abandoned", "the process that loaded it is gone", False),
        ("loaded", None, False),
    ]
    assert one("select count(distinct _load_id) from raw_ecommerce.events") == 1


def test_an_interrupted_load_leaves_nothing(write: Write) -> None:
    path = write("2019-Oct.csv", *[event(n if n % 3 else "") for n in range(20_000)])
    interrupted = start_killed_load(path, "SIGINT")
    assert interrupted.returncode != 0
    assert rows_of("select status, error from audit.loads") == [("failed", "interrupted")]
    assert row_counts() == (0, 0)
    assert one("select count(*) from raw_ecommerce.users") == 0


def test_a_living_attempt_is_not_taken_for_dead(write: Write) -> None:
    seen: list[list[int]] = []

    def look(progress: Progress) -> None:
        with connect("loader", autocommit=True) as connection:
            seen.append(mark_abandoned(connection))

    load_one(write("2019-Oct.csv", event()), on_progress=look)
    assert seen
    assert not any(seen)
    assert statuses() == ["loaded"]


def test_loads_are_listed_latest_first_and_honestly(write: Write) -> None:
    load_one(write("2019-Oct.csv", event()))
    with connect("loader") as connection:
        connection.execute(
            "insert into audit.loads (source, file_name, status, started_at) "
            "values ('ecommerce.events', 'x.csv', 'started', now())"
        )
    assert [(record.load_id, record.status) for record in loads()] == [(2, "abandoned"), (1, "loaded")]
    assert [record.load_id for record in loads(1)] == [2]


def in_threads(*tasks: Callable[[], object]) -> list[object]:
    results: list[object] = [None] * len(tasks)

    def run(place: int) -> None:
        results[place] = tasks[place]()

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return results


def test_two_loaders_of_one_file_land_it_once(write: Write) -> None:
    path = write("2019-Oct.csv", *[event(n) for n in range(20_000)])
    both_ready = threading.Barrier(2)

    def meet(progress: Progress) -> None:
        if progress.stage == "copying":
            both_ready.wait(30)

    results = in_threads(*[lambda: load_one(path, on_progress=meet).status] * 2)
    assert sorted(map(str, results)) == ["loaded", "skipped"]
    assert sorted(statuses()) == ["loaded", "skipped"]
    assert row_counts() == (20_000, 0)


def undo_first(write: Write, tell: Callable[[Progress], None]) -> None:
    undo(1, on_progress=tell)


def replace_first(write: Write, tell: Callable[[Progress], None]) -> None:
    load_one(write("2019-Oct.csv", event(2)), on_progress=tell)


def force_first(write: Write, tell: Callable[[Progress], None]) -> None:
    load_one(write("2019-Oct.csv", event()), force=True, on_progress=tell)


@pytest.mark.parametrize(
    ("remove", "status"), [(undo_first, "undone"), (replace_first, "superseded"), (force_first, "superseded")]
)
def test_rows_do_not_vanish_under_a_running_build(
    write: Write, remove: Callable[[Write, Callable[[Progress], None]], None], status: str
) -> None:
    load_one(write("2019-Oct.csv", event()))
    told: list[str] = []
    waits = threading.Event()

    def listen(progress: Progress) -> None:
        if progress.notice:
            told.append(progress.notice)
            waits.set()

    with connect("transformer", autocommit=True) as build:
        build.execute("select pg_advisory_lock(hashtext('build ecommerce'))")
        # a plain load does not wait
        assert load_one(write("2019-Nov.csv", event(day="2019-11-01"))).status == "loaded"
        thread = threading.Thread(target=lambda: remove(write, listen))
        thread.start()
        assert waits.wait(30)
        assert statuses()[0] == "loaded"
        # nor does a plain load wait for the one that waits
        assert load_one(write("2019-Nov.2.csv", event(1, day="2019-11-01"))).status == "loaded"
    thread.join(30)
    assert statuses()[0] == status
    assert told == ["waiting for the run of ecommerce to end"]


# People and keys --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_compiled", [True, False])
def test_two_people_on_one_pseudonym_fail_the_load(
    write: Write, monkeypatch: pytest.MonkeyPatch, is_compiled: bool
) -> None:
    monkeypatch.setattr(loader, "_is_worth_compiling", lambda _: is_compiled)
    monkeypatch.setattr(keys.Pseudonyms, "_hmac", lambda _, person: b"agreeing" + b"%024d" % person)
    with pytest.raises(LoadError, match="two people share one pseudonym") as failure:
        load_one(write("2019-Oct.csv", event(1), event(2)))
    assert rows_of("select status, error from audit.loads") == [("failed", str(failure.value))]
    assert row_counts() == (0, 0)
    load_one(write("2019-Oct.csv", event(1), event(1)))
    with pytest.raises(LoadError, match="two people share one pseudonym"):
        load_one(write("2019-Oct.2.csv", event(2)))
    assert row_counts() == (2, 0)
    assert one("select count(*) from raw_ecommerce.users") == 1


def test_a_row_that_goes_missing_fails_the_load(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    check = door.Door.check

    def miscount(self: door.Door, lines: Any, bytes_done: int = 0) -> door.Checked:
        checked = check(self, lines, bytes_done)
        return replace(checked, rows_good=checked.rows_good + 1)

    monkeypatch.setattr(door.Door, "check", miscount)
    with pytest.raises(LoadError, match="3 rows passed the door but 2 landed"):
        load_one(write("2019-Oct.csv", event(1), event(2)))
    assert (statuses(), row_counts()) == (["failed"], (0, 0))


def test_what_the_database_says_of_a_value_goes_nowhere(
    write: Write, warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a door that lets everything through
    careless = re.compile(rb"(?P<time>[^,]*),(?:[^,]*,){6}(?P<person>[0-9]+),[^,]*")
    monkeypatch.setattr(door, "plain_pattern", lambda *_: careless)
    with pytest.raises(LoadError) as failure:
        load_one(write("2019-Oct.csv", event(price="indiscreet-541")))
    assert str(failure.value) == "2019-Oct.csv: the database stopped it (InvalidTextRepresentation, 22P02)"
    assert failure.value.__cause__ is None
    assert failure.value.__context__ is None
    assert rows_of("select status, error from audit.loads") == [("failed", str(failure.value))]
    assert row_counts() == (0, 0)
    for path in warehouse.rglob("*"):
        assert not (path.is_file() and b"indiscreet" in path.read_bytes()), path


def test_another_key_is_refused_before_anything_is_tried(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    load_one(write("2019-Oct.csv", event()))
    key_id, fingerprint = rows_of("select key_id, fingerprint from audit.keys where domain = 'ecommerce'")[0]
    expected: Key = key_of(SECRET)
    assert (key_id, fingerprint) == (expected.key_id, expected.fingerprint)
    assert one("select key_id from audit.loads") == key_id
    monkeypatch.setenv("AGORA_KEY_ECOMMERCE", bytes(32).hex())
    with pytest.raises(UserError, match="not the one the database was filled with"):
        load(EVENTS, [write("2019-Nov.csv", event(day="2019-11-01"))])
    with pytest.raises(UserError, match="not the one the database was filled with"):
        pseudonyms("ecommerce", ["1"])
    monkeypatch.delenv("AGORA_KEY_ECOMMERCE")
    with pytest.raises(UserError, match="is missing: put it into"):
        load(EVENTS, [write("2019-Nov.csv", event(day="2019-11-01"))])
    assert statuses() == ["loaded"]


def test_a_business_finds_its_own_people(write: Write) -> None:
    with pytest.raises(UserError, match="no domain 'commerce'"):
        pseudonyms("commerce", [])
    load_one(write("2019-Oct.csv", event(7), event("007")))
    found = list(pseudonyms("ecommerce", ["7\n", " 007 \r\n", "\n", "541312140"]))
    assert found == [("7", pseudonym(7)), ("007", pseudonym(7)), ("541312140", pseudonym(541312140))]
    assert rows_of("select distinct user_id from raw_ecommerce.events") == [(found[0][1],)]
    with pytest.raises(UserError, match=r"^Line 2: the id is not a plain whole number\.$"):
        list(pseudonyms("ecommerce", ["7", "seven"]))


def test_the_loader_may_not_undo_what_has_landed(write: Write) -> None:
    load_one(write("2019-Oct.csv", event(1)))
    with connect("loader") as connection, pytest.raises(psycopg.errors.InsufficientPrivilege, match="has ended"):
        connection.execute("update audit.loads set status = 'undone'")


def test_a_file_without_a_good_row_does_not_replace_its_predecessor(write: Write) -> None:
    load_one(write("2019-Oct.csv", event(1)))
    with pytest.raises(loader.FilesRefused, match="no row of the file is good"):
        loader.load(EVENTS, [write("2019-Oct.csv", b"this;is;not\n", b"an;event\n")])
    assert one("select count(*) from raw_ecommerce.events") == 1
