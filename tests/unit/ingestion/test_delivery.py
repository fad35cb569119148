"""Which files are meant by paths and folders."""

import os
from pathlib import Path

import pytest

from ingestion.delivery import deliveries
from ingestion.ecommerce.source import EVENTS, period_of_text
from ingestion.source import source_named
from warehouse.errors import UserError


def found(*paths: Path, since: str | None = None, period: str | None = None) -> list[tuple[str, str]]:
    meant = deliveries(
        EVENTS,
        paths,
        since=period_of_text(since) if since else None,
        period=period_of_text(period) if period else None,
        notice=lambda _: None,
    )
    return [(delivery.file.name, delivery.period.text) for delivery in meant]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (
        "2020-Jan.csv.gz",
        "2019-Oct.csv",
        "2019-Dec-15.csv",
        "2019-Dec.2.csv.gz",
        "2019-Dec.10.csv.gz",
        "2019-Nov.csv",
        "readme.txt",
        "notes.csv",
        "2019-Nov.csv.part",
    ):
        (tmp_path / name).write_text("x")
    (tmp_path / "2019-Sep.csv").mkdir()
    return tmp_path


def test_a_folder_means_its_matching_files_in_order_of_period_and_name(folder: Path) -> None:
    told: list[str] = []
    meant = deliveries(EVENTS, [folder], since=None, period=None, notice=told.append)
    assert [(delivery.file.name, delivery.period.text) for delivery in meant] == [
        ("2019-Oct.csv", "2019-10"),
        ("2019-Nov.csv", "2019-11"),
        ("2019-Dec.10.csv.gz", "2019-12"),
        ("2019-Dec.2.csv.gz", "2019-12"),
        ("2019-Dec-15.csv", "2019-12-15"),
        ("2020-Jan.csv.gz", "2020-01"),
    ]
    (notice,) = told
    assert notice.endswith(": 2019-Nov.csv.part, notes.csv")


def test_a_file_is_known_to_hold_about_so_much_text(folder: Path) -> None:
    (folder / "2019-Oct.csv").write_bytes(b"x" * 1000)
    (folder / "2020-Jan.csv.gz").write_bytes(b"x" * 1000)
    meant = deliveries(EVENTS, [folder], since=None, period=None, notice=lambda _: None)
    assert [meant[0].text_bytes, meant[-1].text_bytes] == [1000, 3000]


@pytest.mark.parametrize(
    "address", ["https:/ada:s3cret@h/2019-Oct.csv", "https:ada:s3cret@h/x", " http://a:s3cret@h/x"]
)
def test_a_misspelt_address_is_not_repeated(address: str) -> None:
    with pytest.raises(UserError, match="One of the addresses is no URL") as refusal:
        deliveries(EVENTS, [address], since=None, period=None, notice=lambda _: None)
    assert "s3cret" not in str(refusal.value)


def test_since_leaves_earlier_periods_out(folder: Path) -> None:
    assert [name for name, _ in found(folder, since="2019-12-16")] == [
        "2019-Dec.10.csv.gz",
        "2019-Dec.2.csv.gz",
        "2020-Jan.csv.gz",
    ]
    assert [name for name, _ in found(folder, since="2020-01")] == ["2020-Jan.csv.gz"]
    told: list[str] = []
    late = period_of_text("2021-01")
    assert deliveries(EVENTS, [folder / "2019-Oct.csv"], since=late, period=None, notice=told.append) == []
    assert told == ["nothing to load: all files are of periods before 2021-01"]


def test_a_period_may_be_given(folder: Path) -> None:
    assert found(folder / "notes.csv", period="2019-10") == [("notes.csv", "2019-10")]
    assert found(folder / "2019-Oct.csv", period="2019-11") == [("2019-Oct.csv", "2019-11")]


def test_a_file_named_twice_is_meant_once(folder: Path) -> None:
    assert found(folder / "2019-Oct.csv", folder / "." / "2019-Oct.csv") == [("2019-Oct.csv", "2019-10")]


def test_what_cannot_be_meant_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"The name of notes.csv states no period: .* --period"):
        found(folder / "notes.csv")
    with pytest.raises(UserError, match="One of the locations is empty"):
        deliveries(EVENTS, [""], since=None, period=None, notice=lambda _: None)
    with pytest.raises(UserError, match="There is no file"):
        found(folder / "2019-Oct.csv", folder / "2018-Oct.csv")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="holds no file named like YYYY-Mon"):
        found(empty)
    other = empty / "2019-Oct.csv"
    other.write_text("y")
    with pytest.raises(UserError, match="have the same name"):
        found(folder / "2019-Oct.csv", other)
    unprintable = Path(os.fsdecode(bytes(empty) + b"/caf\xe9.csv"))
    unprintable.write_text("z")
    with pytest.raises(UserError, match="cannot be printed"):
        found(unprintable, period="2019-10")


def test_sources_are_known_by_name() -> None:
    assert source_named("ecommerce.events") is EVENTS
    with pytest.raises(UserError, match=r"no source 'ecommerce.event'. Known sources: .*ecommerce.events"):
        source_named("ecommerce.event")
