"""The door: hostile lines with hand-written expectations, and the agreement of the short way with the truth."""

import csv
import io

import pytest
from hostile_lines import GOOD, SESSION, line, lines
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ingestion.door import (
    LONGEST_LINE_BYTES,
    Checked,
    Door,
    People,
    check_line,
    check_texts,
    id_meant,
    people_of,
    plain_pattern,
    split_lines,
    take_first_line,
    understand_header,
    whole_lines,
)
from ingestion.ecommerce.source import EVENTS, period_of_text
from ingestion.source import Rejection
from warehouse.errors import UserError

OCTOBER = period_of_text("2019-10")
NAMES = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"
LAYOUT = EVENTS.columns
PLAIN = plain_pattern(EVENTS, LAYOUT, OCTOBER)


def read(column: str, text: str, period: str = "2019-10") -> str | Rejection | None:
    """What becomes of one column's value in an otherwise good line; the value is quoted as CSV wants it."""
    quoted = f'"{text.replace(chr(34), chr(34) * 2)}"'
    checked = check_line(line(**{column: quoted}), LAYOUT, period_of_text(period))
    return checked if isinstance(checked, Rejection) else checked[list(GOOD).index(column)]


def code_of(checked: object) -> str:
    assert isinstance(checked, Rejection), "the line should have been turned away"
    return checked.error_code


def test_a_good_line_is_read_as_it_stands() -> None:
    assert check_line(line(), LAYOUT, OCTOBER) == (
        "2019-10-01 00:00:00.000000+00",
        "view",
        "44600062",
        "2103807459595387724",
        "appliances.kitchen",
        "shiseido",
        "35.79",
        "541312140",
        SESSION,
    )


@pytest.mark.parametrize(
    ("column", "text", "expected"),
    [
        ("event_time", "2019-10-31 23:59:59 UTC", "2019-10-31 23:59:59.000000+00"),
        ("event_time", " 2019-10-01T00:00:00.5Z ", "2019-10-01 00:00:00.500000+00"),
        ("event_time", "2019-10-01 02:00:00+02:00", "2019-10-01 00:00:00.000000+00"),
        ("event_time", "2019-11-01 01:30:00+0200", "2019-10-31 23:30:00.000000+00"),
        ("product_id", "007", "7"),
        ("product_id", "+5", "5"),
        ("product_id", "-5", "-5"),
        ("product_id", " \t5 ", "5"),
        ("category_id", "9223372036854775807", "9223372036854775807"),
        ("category_id", "", None),
        ("category_id", "  ", None),
        ("category_code", "", None),
        ("category_code", "  Mixed Case ", "  Mixed Case "),
        ("brand", r"\.", r"\."),
        ("brand", r"\N", r"\N"),
        ("brand", 'a "quoted", brand', 'a "quoted", brand'),
        ("brand", "l'oréal ☂", "l'oréal ☂"),
        ("price", "", None),
        ("price", " ", None),
        ("price", "0.00", "0.00"),
        ("price", "-1.5", "-1.5"),
        ("price", "+5", "+5"),
        ("price", " 5 ", "5"),
        ("price", "007.10", "007.10"),
        ("user_session", SESSION.upper(), SESSION),
        ("user_session", SESSION.replace("-", ""), SESSION.replace("-", "")),
    ],
)
def test_values_that_land(column: str, text: str, expected: str | None) -> None:
    assert read(column, text) == expected


@pytest.mark.parametrize(
    ("column", "text", "error_code"),
    [
        ("event_time", "", "invalid_timestamp"),
        ("event_time", "2019-10-01", "invalid_timestamp"),
        ("event_time", "2019-10-01 00:00:00", "invalid_timestamp"),
        ("event_time", "2019-10-01 00:00:00 CET", "invalid_timestamp"),
        ("event_time", "2019-10-32 00:00:00 UTC", "invalid_timestamp"),
        ("event_time", "2019-02-30 00:00:00 UTC", "invalid_timestamp"),
        ("event_time", "2019-10-01 24:00:00 UTC", "invalid_timestamp"),
        ("event_time", "2019-10-01 23:59:60 UTC", "invalid_timestamp"),
        ("event_time", "2019-10-01 00:60:00 UTC", "invalid_timestamp"),
        ("event_time", "2019-10-01 00:00:00.1234567 UTC", "invalid_timestamp"),
        ("event_time", "٢٠١٩-١٠-٠١ 00:00:00 UTC", "invalid_timestamp"),
        ("event_time", "infinity", "invalid_timestamp"),
        ("event_time", "now", "invalid_timestamp"),
        ("event_time", "2019-09-30 23:59:59 UTC", "outside_period"),
        ("event_time", "2019-11-01 00:00:00 UTC", "outside_period"),
        ("event_time", "2019-10-01 00:00:00+02:00", "outside_period"),
        ("event_time", "0001-01-01 00:00:00+14:00", "invalid_timestamp"),
        ("event_type", "", "unknown_event_type"),
        ("event_type", "View", "unknown_event_type"),
        ("event_type", "view ", "unknown_event_type"),
        ("event_type", "click", "unknown_event_type"),
        ("product_id", "", "empty_product_id"),
        ("product_id", " ", "empty_product_id"),
        ("product_id", "12.0", "not_a_number"),
        ("product_id", "1_000", "not_a_number"),
        ("product_id", "0x1F", "not_a_number"),
        ("product_id", "--5", "not_a_number"),
        ("product_id", "NULL", "not_a_number"),
        ("category_id", "9223372036854775808", "not_a_number"),
        ("category_id", "9999999999999999999", "not_a_number"),
        ("category_id", "1" * 5000, "not_a_number"),
        ("category_id", "2.10381E+18", "scientific_notation"),
        ("category_id", "2,10381E+18", "scientific_notation"),
        ("user_id", "5.41E+08", "scientific_notation"),
        ("user_id", "1e5", "scientific_notation"),
        ("user_id", "", "empty_user_id"),
        ("user_id", "\t", "empty_user_id"),
        ("user_id", "١٢", "not_a_number"),
        ("user_id", "५", "not_a_number"),
        ("user_id", "5 5", "not_a_number"),
        ("user_id", "5\u00a0", "not_a_number"),
        ("user_id", "Infinity", "not_a_number"),
        ("price", "1e5", "not_a_number"),
        ("price", "NaN", "not_a_number"),
        ("price", "Infinity", "not_a_number"),
        ("price", "-inf", "not_a_number"),
        ("price", "33,20", "not_a_number"),
        ("price", ".", "not_a_number"),
        ("price", "$5", "not_a_number"),
        ("price", "٣٥", "not_a_number"),
        ("price", "1" * 19, "not_a_number"),
        ("user_session", "", "empty_user_session"),
        ("user_session", "-" * 36, "invalid_uuid"),
        ("user_session", "--------" + "-" * 28, "invalid_uuid"),
        ("user_session", SESSION[:-1], "invalid_uuid"),
        ("user_session", SESSION + "0", "invalid_uuid"),
        ("user_session", "{" + SESSION + "}", "invalid_uuid"),
        ("user_session", SESSION.replace("-", "", 1), "invalid_uuid"),
        ("user_session", SESSION.replace("7", "g"), "invalid_uuid"),
        ("user_session", SESSION.replace("7", "٧"), "invalid_uuid"),
    ],
)
def test_values_that_are_turned_away(column: str, text: str, error_code: str) -> None:
    rejection = read(column, text)
    assert code_of(rejection) == error_code
    assert isinstance(rejection, Rejection)
    assert column in rejection.detail


@pytest.mark.parametrize(
    ("hostile", "error_code"),
    [
        (b"", "wrong_field_count"),
        (b"\\.", "wrong_field_count"),
        (b"   ", "wrong_field_count"),
        (line()[:-40], "wrong_field_count"),
        (line() + b",", "wrong_field_count"),
        (line().replace(b",", b";"), "wrong_field_count"),
        (line(brand='"never closed'), "malformed_line"),
        (line(brand='"closed" too early'), "malformed_line"),
        (line(brand="a\rb"), "malformed_line"),
        (line(brand="a\0b"), "nul_byte"),
        (b"\0" * 100, "nul_byte"),
        (line().replace(b"shiseido", b"\xe9t\xe9"), "invalid_utf8"),
        (line().replace(b"shiseido", b"\xed\xa0\x80"), "invalid_utf8"),
        (line().replace(b"shiseido", b"\xc0\x80"), "invalid_utf8"),
        (line(brand="x" * LONGEST_LINE_BYTES), "line_too_long"),
        # a French spreadsheet's decimal comma cuts the id in two
        (line(category_id="2,10381E+18"), "scientific_notation"),
        (line(user_id="5,41E+08"), "scientific_notation"),
    ],
)
def test_lines_that_are_turned_away(hostile: bytes, error_code: str) -> None:
    assert code_of(check_line(hostile, LAYOUT, OCTOBER)) == error_code
    assert PLAIN is not None
    assert not PLAIN.fullmatch(hostile)


def test_a_reason_never_quotes_the_value() -> None:
    for column in GOOD:
        rejection = read(column, "sécret-987654321")
        if isinstance(rejection, Rejection):
            assert "987654321" not in rejection.detail


def test_the_days_of_a_month_are_known() -> None:
    assert read("event_time", "2020-02-29 12:00:00 UTC", "2020-02") == "2020-02-29 12:00:00.000000+00"
    assert code_of(read("event_time", "2019-02-29 12:00:00 UTC", "2019-02")) == "invalid_timestamp"
    assert code_of(read("event_time", "2019-10-16 00:00:00 UTC", "2019-10-15")) == "outside_period"
    for period, day, is_plain in [
        ("2020-02", "2020-02-29", True),
        ("2019-02", "2019-02-29", False),
        ("2019-04", "2019-04-31", False),
        ("2019-10", "2019-10-31", True),
        ("2019-10-15", "2019-10-15", True),
        ("2019-10-15", "2019-10-16", False),
        ("2019-10-15", "2019-10-14", False),
        ("2019-12", "2019-12-31", True),
        ("2019-12", "2019-11-31", False),
    ]:
        pattern = plain_pattern(EVENTS, LAYOUT, period_of_text(period))
        assert pattern is not None
        assert bool(pattern.fullmatch(line(event_time=f"{day} 12:00:00 UTC"))) is is_plain


def test_the_hint_names_the_period_the_rows_fit() -> None:
    month, day = (read("event_time", "2019-11-03 00:00:00 UTC", period) for period in ("2019-10", "2019-10-15"))
    assert isinstance(month, Rejection)
    assert isinstance(day, Rejection)
    assert (month.hint, day.hint) == ("2019-11", "2019-11-03")


# The short way against the truth ----------------------------------------------------------------------------------


def as_postgres_reads(copied: bytes) -> list[list[str]]:
    """CSV as COPY takes it, timestamps and numbers in one spelling."""
    rows = list(csv.reader(io.StringIO(copied.decode(), newline="")))
    for row in rows:
        row[0] = row[0].replace(" UTC", ".000000+00")
        for place in (2, 3):
            row[place] = row[place] and str(int(row[place]))
    return rows


# the first draw of any text builds tables of Unicode, which takes a second
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def is_suppressed(person_id: int) -> bool:
    return person_id % 7 == 0


class Itself(dict[bytes, bytes]):
    """Pseudonyms that are the canonical ids themselves; none for every seventh person."""

    def __missing__(self, key: bytes) -> bytes:
        return b"" if is_suppressed(int(key)) else b"%d" % int(key)


def through(lines_in_order: list[bytes], *, short_way: bool) -> Checked:
    door = Door(EVENTS, LAYOUT, OCTOBER, Itself(), b",7\n", lambda people: any(map(is_suppressed, people)))
    if not short_way:
        # a cached property is looked up in the instance first
        door.__dict__["_plain_match"] = lambda line: None
    return door.check(enumerate(lines_in_order, 2))


@patient
@given(st.lists(lines(), max_size=8))
@example([line(), line(user_id="007"), line(brand="  "), line(price=""), line(category_id=""), b"", line()[:-1]])
@example([line(user_id="14"), line(user_id="014 "), line(user_id="14", price="?"), line(user_id="15"), b"14,?"])
def test_both_ways_agree_line_for_line(some_lines: list[bytes]) -> None:
    short, slow = through(some_lines, short_way=True), through(some_lines, short_way=False)
    assert as_postgres_reads(short.rows) == as_postgres_reads(slow.rows)
    assert short.rejected == slow.rejected
    assert short.suppressed == slow.suppressed
    assert (short.rows_good, short.rows_by_day) == (slow.rows_good, slow.rows_by_day)
    assert short.rows_good + len(short.rejected) + len(short.suppressed) == sum(1 for one in some_lines if one)


@patient
@given(lines())
def test_what_is_plainly_good_is_good(some_line: bytes) -> None:
    assert PLAIN is not None
    if PLAIN.fullmatch(some_line):
        assert not isinstance(check_line(some_line, LAYOUT, OCTOBER), Rejection)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"price": ""},
        {"category_id": ""},
        {"category_code": "", "brand": ""},
        {"price": "-0.01"},
        {"user_id": "007"},
    ],
)
def test_ordinary_lines_go_the_short_way(changes: dict[str, str]) -> None:
    assert PLAIN is not None
    assert PLAIN.fullmatch(line(**changes))


def test_rows_carry_pseudonym_line_number_and_what_is_appended() -> None:
    door = Door(EVENTS, LAYOUT, OCTOBER, {b"541312140": b"-99"}, b",7,f.csv\n")
    plain = line().replace(b"541312140", b"-99")
    checked = door.check([(5, line()), (6, b""), (7, line(brand="é")), (8, line(user_id=""))], bytes_done=3)
    first, second, rest = checked.rows.split(b"\n")
    assert first == plain + b",5,7,f.csv"
    assert b'"-99"' in second
    assert second.endswith(b",7,7,f.csv")
    assert rest == b""
    assert [(one.line_number, one.rejection.error_code) for one in checked.rejected] == [(8, "empty_user_id")]
    assert (checked.rows_good, checked.rows_by_day, checked.bytes_done) == (2, {b"2019-10-01": 2}, 3)


def test_the_delivered_id_is_in_no_row() -> None:
    door = Door(EVENTS, LAYOUT, OCTOBER, {b"541312140": b"-99"}, b"\n")
    assert b"541312140" not in door.check([(2, line()), (3, line(brand="é")), (4, line(user_id="541312140 "))]).rows


# People who asked to be forgotten ---------------------------------------------------------------------------------


def test_lines_of_people_on_the_list_are_neither_landed_nor_kept() -> None:
    lines_in_order = [
        line(user_id="14"),
        line(user_id="15"),
        line(user_id="14", brand="é"),
        line(user_id="14", price="?"),
        line(user_id="15", price="?"),
        line(user_id="14")[:-30],
    ]
    checked = through(lines_in_order, short_way=True)
    assert checked.rows_good == 1
    assert checked.suppressed == [2, 4]
    # no line of theirs is kept, but a bad line still counts against its file
    assert [(one.line_number, one.is_suppressed, bool(one.line)) for one in checked.rejected] == [
        (5, True, False),
        (6, False, True),
        (7, True, False),
    ]


@pytest.mark.parametrize(
    ("changes", "person_id"),
    [
        ({}, 541312140),
        ({"price": "?"}, 541312140),
        ({"user_id": " 0541312140 "}, 541312140),
        ({"user_id": "-5"}, -5),
        ({"user_id": '"541312140"', "price": "?"}, 541312140),
        ({"user_id": '"541,312,140"'}, 541312140),
        ({"user_id": "541 312 140"}, 541312140),
        ({"user_id": "541\u00a0312\u202f140"}, 541312140),
        ({"user_id": "541'312'140"}, 541312140),
        ({"user_id": "541312140.0"}, 541312140),
        ({"user_id": "5.4131214E+08"}, 541312140),
        ({"user_id": "5413121400000E-4"}, 541312140),
        ({"user_id": "0" * 40 + "541312140"}, 541312140),
        ({"user_id": "\uff15\uff14\uff11\uff13\uff11\uff12\uff11\uff14\uff10"}, 541312140),
    ],
)
def test_a_line_is_about_the_id_in_its_column_however_it_is_written(changes: dict[str, str], person_id: int) -> None:
    assert people_of(line(**changes), LAYOUT, EVENTS) == People(frozenset((person_id,)), is_certain=True)


@pytest.mark.parametrize(
    "broken",
    [
        line(user_id="id 541312140"),
        line(brand='"'),
        line().rsplit(b",", 1)[0],
        line() + b",more",
        b",".join(reversed(line().split(b","))),
        line().replace(b",", b";"),
    ],
)
def test_without_a_readable_id_every_field_that_is_a_number_may_be_one(broken: bytes) -> None:
    people = people_of(broken, LAYOUT, EVENTS)
    assert 541312140 in people.ids
    assert not people.is_certain


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", " ", ":", "~", "\x1f", "§", "'"])
def test_in_a_line_that_was_never_read_ids_are_found_whatever_the_delimiter(delimiter: str) -> None:
    unread = line().replace(b",", delimiter.encode())
    assert 541312140 in people_of(unread, (), EVENTS).ids
    assert people_of(b"", (), EVENTS) == People(frozenset(), is_certain=False)


def test_a_line_of_utf_16_is_read() -> None:
    assert people_of(line(price="?").decode().encode("utf-16-le"), LAYOUT, EVENTS).ids == {541312140}


def test_digits_within_times_uuids_and_prices_are_nobodys_id() -> None:
    people = people_of(line(user_session="77be3f5e-8bb3-4e00-8c23-a032dfed738c") + b",more", LAYOUT, EVENTS)
    assert people.ids == {44600062, 2103807459595387724, 541312140}


@pytest.mark.parametrize("text", ["", "5.41E+07.5", "1.5", "5e999", "9" * 30, "1e-3", "+", "12,34", "nan", "--5"])
def test_what_is_no_whole_number_is_no_id(text: str) -> None:
    assert id_meant(text) is None


def test_the_bytes_of_any_line_can_be_searched() -> None:
    assert people_of(b"", LAYOUT, EVENTS).ids == frozenset()
    assert people_of(bytes(range(256)) * 200, LAYOUT, EVENTS).ids == frozenset()


# Header and lines -------------------------------------------------------------------------------------------------


def test_the_header_is_mapped_by_name() -> None:
    shuffled = ",".join(reversed(NAMES.split(",")))
    assert [column.name for column in understand_header(NAMES.encode(), EVENTS, "f").layout if column] == NAMES.split(
        ","
    )
    header = understand_header(b"\xef\xbb\xbf" + shuffled.upper().replace(",", " , ").encode(), EVENTS, "f")
    assert [column.name for column in header.layout if column] == shuffled.split(",")
    quoted = ",".join(f'"{name}"' for name in NAMES.split(","))
    assert understand_header(b"\xef\xbb\xbf" + quoted.encode(), EVENTS, "f").left_out == ()
    more = understand_header(b"extra," + NAMES.encode() + b",", EVENTS, "f")
    assert more.left_out == ("extra", "(unnamed)")
    assert more.layout[0] is None
    assert plain_pattern(EVENTS, more.layout, OCTOBER) is None


def test_columns_in_another_order_and_extra_ones_are_checked() -> None:
    header = understand_header(b"extra," + ",".join(reversed(NAMES.split(","))).encode(), EVENTS, "f")
    reversed_line = b"secret," + b",".join(reversed(line().split(b",")))
    values = check_line(reversed_line, header.layout, OCTOBER)
    assert not isinstance(values, Rejection)
    assert values[0] == SESSION
    assert values[-1] == "2019-10-01 00:00:00.000000+00"


@pytest.mark.parametrize(
    ("first_line", "told"),
    [
        (NAMES.replace(",", ";").encode(), "separated by ';'"),
        (NAMES.replace(",", "\t").encode(), "separated by a tab"),
        (NAMES.replace(",", "|").encode(), "separated by '|'"),
        (NAMES.replace(",user_id", "").encode(), "lacks user_id:"),
        (b"event_time,event_type", "lacks product_id, category_id"),
        (NAMES.encode() + b",price", "column price stands there twice"),
        (line(), "there is no header"),
        (b"", "there is no header"),
        (b"sep=,", "there is no header"),
        (b"\x89PNG\r\x1a", "there is no header"),
        ((NAMES + "\r" + line().decode()).encode(), "there is no header"),
    ],
)
def test_a_bad_header_is_refused(first_line: bytes, told: str) -> None:
    with pytest.raises(UserError, match=r"^f\.csv, line 1: ") as refusal:
        understand_header(first_line, EVENTS, "f.csv")
    assert told in str(refusal.value)
    assert "541312140" not in str(refusal.value)


@pytest.mark.parametrize("block_bytes", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("last_end", [b"", b"\n", b"\r\n"])
def test_lines_are_cut_wherever_blocks_end(block_bytes: int, last_end: bytes) -> None:
    content = b"a\r\n\r\nb\rc\nd\n\nlast" + last_end
    blocks = [(content[i : i + block_bytes], i) for i in range(0, len(content), block_bytes)]
    assert [one for text, _ in whole_lines(blocks) for one in split_lines(text)] == [
        b"a",
        b"",
        b"b\rc",
        b"d",
        b"",
        b"last",
    ]


def test_an_endless_line_costs_one_row_and_little_memory() -> None:
    endless = [(b"x" * 2**20, n) for n in range(50)]
    found = [one for text, _ in whole_lines([*endless, (b"\n" + line() + b"\n", 51)]) for one in split_lines(text)]
    assert [len(one) > LONGEST_LINE_BYTES for one in found] == [True, False]
    assert len(found[0]) < LONGEST_LINE_BYTES + 10
    # a carriage return at the place where the line is cut
    tricky = b"x" * LONGEST_LINE_BYTES + b"\r" + b"y" * 10
    (cut,) = [one for text, _ in whole_lines([(tricky, 1), (b"\n", 2)]) for one in split_lines(text)]
    assert code_of(check_line(cut, LAYOUT, OCTOBER)) == "line_too_long"


def test_line_numbers_are_physical() -> None:
    blocks = [(NAMES.encode() + b"\n\n" + line(user_id="") + b"\n", 1), (line() + b"\n\n\n" + line(price="x"), 2)]
    first, texts = take_first_line(whole_lines(blocks))
    assert first == NAMES.encode()
    door = Door(EVENTS, LAYOUT, OCTOBER, Itself(), b"\n")
    checked = list(check_texts(door.check_text, texts, first_line_number=2))
    assert [one.line_number for batch in checked for one in batch.rejected] == [3, 7]
    assert b"".join(batch.rows for batch in checked).endswith(b",4\n")


def test_no_lines_at_all() -> None:
    assert take_first_line(whole_lines([]))[0] is None
