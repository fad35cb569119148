"""Files that must not land: one sentence that says what, where and what to do, and not a row anywhere."""

import gzip
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import agora

from ingestion import spool
from ingestion.ecommerce.source import EVENTS
from ingestion.loader import FilesRefused, Progress, load
from warehouse.connections import connect
from warehouse.errors import UserError

HEADER = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
OCTOBER = (
    "2019-10-05 00:00:00 UTC,view,44600062,2103807459595387724,,b,1.50,541312140,72d76fde-8bb3-4e00-8c23-a032dfed738c\n"
)
NOVEMBER = OCTOBER.replace("2019-10-05", "2019-11-05")
BLURRED = OCTOBER.replace("541312140", "5.41E+08")
CUT_BY_COMMA = OCTOBER.replace("2103807459595387724", "2,10381E+18")

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("empty_warehouse")]


@pytest.fixture
def empty_warehouse(warehouse: Path) -> Iterator[None]:
    yield
    assert list((warehouse / "spool").glob("*")) == []
    with connect() as connection:
        connection.execute(
            "truncate raw_ecommerce.events, raw_ecommerce.users, quarantine.rows, audit.load_slices, audit.loads "
            "restart identity cascade"
        )


def rows_of(statement: str) -> list[tuple[Any, ...]]:
    with connect() as connection:
        return connection.execute(statement).fetchall()


def assert_nothing_landed() -> None:
    for table in ("raw_ecommerce.events", "raw_ecommerce.users", "quarantine.rows", "audit.load_slices"):
        assert rows_of(f"select count(*) from {table}") == [(0,)], table


def refuse(path: Path, **options: Any) -> str:
    """Load a file that is to be refused; return the sentence."""
    with pytest.raises(FilesRefused) as refusal:
        load(EVENTS, [path], **options)
    sentence = str(refusal.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    (result,) = refusal.value.results
    assert (result.status, result.message, result.rows_read) == ("failed", sentence, 0)
    assert rows_of("select file_name, status, error, finished_at is null from audit.loads") == [
        (path.name, "failed", sentence, False)
    ]
    assert_nothing_landed()
    for value in ("541312140", "44600062", "72d76fde"):
        assert value not in sentence
    return sentence


PACKED = gzip.compress((HEADER + OCTOBER * 1000).encode())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "F is empty (0 bytes): deliver it again."),
        (gzip.compress(b""), "F holds no rows: deliver it again."),
        (HEADER.encode(), "F holds no rows, only a header: deliver it again."),
        ((HEADER + "\n\r\n").encode(), "F holds no rows, only a header: deliver it again."),
        (OCTOBER.encode() * 2, "F, line 1: there is no header; *"),
        ((HEADER.replace(",price", "") + OCTOBER).encode(), "F, line 1: the header lacks price: *"),
        ((HEADER + OCTOBER).replace(",", ";").encode(), "F, line 1: columns are separated by ';': *"),
        ((HEADER + OCTOBER).replace(",", "\t").encode(), "F, line 1: columns are separated by a tab: *"),
        ((HEADER.strip() + ",price\n" + OCTOBER).encode(), "F, line 1: the column price stands there twice: *"),
        (
            (HEADER + OCTOBER.replace(",", ";") * 50).encode(),
            "F, line 2: the line has 1 fields, not 9, and no row of the file is good (50 of 50 like this one): *",
        ),
        (PACKED[:-20], "F: the gzip stream ends too early (cut off?): deliver the file again."),
        (PACKED[:-6] + b"\1\1" + PACKED[-4:], "F: the gzip stream is damaged: *"),
        (PACKED + b"more", "F: something follows the gzip stream: *"),
        (gzip.compress(HEADER.encode() + OCTOBER.encode() * 500_000), "F: the gzip stream grows more than 200 times *"),
        (b"PK\x03\x04" + os.urandom(99), "F is a zip archive or an Excel workbook, not CSV text: export it as CSV."),
        (b"PAR1" + os.urandom(99), "F is a Parquet file, not CSV text: export it as CSV."),
        ((HEADER + OCTOBER).encode("utf-16"), "F is encoded in UTF-16: export it in UTF-8 or pass --encoding utf-16."),
        ((HEADER + OCTOBER).encode("utf-16-le"),
         "F is encoded in UTF-16 (little-endian): export it in UTF-8 or pass --encoding utf-16."),
        (b"\0" * 9999, "F is filled with NUL bytes *"),
        ((HEADER + NOVEMBER * 5 + OCTOBER * 5).encode(),
         "F, line 2: event_time lies outside 2019-10, as in 5 of 10 rows; if this is 2019-11's file, rename it or pass "
         "--period 2019-11."),
        ((HEADER + OCTOBER * 99 + BLURRED).encode(),
         "F, line 101: user_id is in a spreadsheet's scientific notation, as in 1 of 100 rows; export the file again "
         "without a spreadsheet in between."),
        ((HEADER + OCTOBER + CUT_BY_COMMA).encode(),
         "F, line 3: category_id is in a spreadsheet's scientific notation, as in 1 of 2 rows; *"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_in_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "2019-Oct.csv"
    path.write_bytes(content)
    told = refuse(path)
    expected = sentence.replace("F", path.name, 1)
    assert told.startswith(expected.removesuffix("*"))
    assert expected.endswith("*") or told == expected


def test_a_line_ended_by_carriage_returns_alone_is_told(tmp_path: Path) -> None:
    path = tmp_path / "2019-Oct.csv"
    path.write_bytes((HEADER + OCTOBER).replace("\n", "\r").encode())
    assert "as CSV text with line feeds" in refuse(path)


def test_below_the_limit_only_rows_are_turned_away(tmp_path: Path) -> None:
    path = tmp_path / "2019-Oct.csv"
    path.write_text(HEADER + NOVEMBER * 49 + BLURRED + OCTOBER * 51)
    (result,) = load(EVENTS, [path])
    assert (result.rows_landed, result.quarantined_by_reason) == (51, {"outside_period": 49, "scientific_notation": 1})
    november = path.rename(tmp_path / "2019-Oct.2.csv")
    november.write_text(HEADER + NOVEMBER * 9)
    refused = load_and_fail(november)
    assert "rename it or pass --period 2019-11" in refused
    (result,) = load(EVENTS, [november], period="2019-11")
    assert (result.rows_landed, result.period) == (9, "2019-11")


def load_and_fail(*paths: Path, **options: Any) -> str:
    with pytest.raises(UserError) as refusal:
        load(EVENTS, paths, **options)
    return str(refusal.value)


def test_a_file_that_grows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "BLOCK_BYTES", 1000)
    path = tmp_path / "2019-Oct.csv"
    path.write_text(HEADER + OCTOBER * 100)

    def grow(progress: Progress) -> None:
        with path.open("a") as stream:
            stream.write(OCTOBER)

    assert "still growing or changing" in refuse(path, on_progress=grow)


def missing(folder: Path) -> Path:
    return folder / "2019-Nov.csv"


def unnamed(folder: Path) -> Path:
    (folder / "events.csv").write_text(HEADER + OCTOBER)
    return folder / "events.csv"


def empty_folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (missing, "There is no file "),
        (unnamed, "The name of events.csv states no period"),
        (empty_folder, "holds no file named like YYYY-Mon"),
    ],
)
def test_what_is_wrong_before_a_file_is_opened_stops_everything(
    tmp_path: Path, make: Callable[[Path], Path], told: str
) -> None:
    good = tmp_path / "2019-Oct.csv"
    good.write_text(HEADER + OCTOBER)
    assert told in load_and_fail(good, make(tmp_path))
    assert rows_of("select count(*) from audit.loads") == [(0,)]
    assert_nothing_landed()


def test_a_bad_period_is_told(tmp_path: Path) -> None:
    assert "is no period" in load_and_fail(tmp_path, period="October")
    assert "is no period" in load_and_fail(tmp_path, since="2019-13")


def test_a_bad_file_does_not_keep_the_others_out(tmp_path: Path) -> None:
    (tmp_path / "2019-Oct.csv").write_text(HEADER + OCTOBER)
    (tmp_path / "2019-Oct.2.csv").write_bytes(PACKED[:-9])
    (tmp_path / "2019-Nov.csv").write_text("")
    (tmp_path / "2019-Dec.csv").write_text(HEADER + OCTOBER.replace("2019-10", "2019-12"))
    with pytest.raises(FilesRefused) as refusal:
        load(EVENTS, [tmp_path])
    assert [(result.file_name, result.status) for result in refusal.value.results] == [
        ("2019-Oct.2.csv", "failed"),
        ("2019-Oct.csv", "loaded"),
        ("2019-Nov.csv", "failed"),
        ("2019-Dec.csv", "loaded"),
    ]
    assert len(str(refusal.value).splitlines()) == 2
    assert rows_of("select count(*) from raw_ecommerce.events") == [(2,)]


def test_what_has_landed_beside_a_bad_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "2019-Oct.csv").write_text(HEADER + OCTOBER)
    (tmp_path / "2019-Nov.csv").write_text("")
    said = agora("load", "ecommerce.events", tmp_path, expect=2)
    assert "2019-Oct.csv (2019-10): loaded as load 1: 1 rows read, 1 landed" in said
    assert "agora: 2019-Nov.csv is empty" in said
    assert "2019-Nov.csv (" not in said


def test_a_refused_replacement_leaves_its_predecessor(tmp_path: Path) -> None:
    path = tmp_path / "2019-Oct.csv"
    path.write_text(HEADER + OCTOBER)
    load(EVENTS, [path])
    path.write_text(HEADER + OCTOBER + NOVEMBER * 3)
    load_and_fail(path)
    load_and_fail(path, force=True)
    assert rows_of("select status from audit.loads order by load_id") == [("loaded",), ("failed",), ("failed",)]
    assert rows_of("select _load_id from raw_ecommerce.events") == [(1,)]
