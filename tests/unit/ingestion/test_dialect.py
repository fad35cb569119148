"""Foreign files: what a dialect means, by hand and against Python's csv module; and what a bad line costs."""

import csv
import io
import re

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ingestion.dialect import MOST_LINES_OF_RECORD, Dialect, Record, read_records, settled_encoding
from ingestion.door import LONGEST_LINE_BYTES, RejectedLine
from warehouse.errors import UserError


def read(content: bytes, dialect: Dialect | None = None, block_bytes: int = 1000) -> list[Record | RejectedLine]:
    dialect = dialect or Dialect()
    blocks = [(content[i : i + block_bytes], i) for i in range(0, len(content), block_bytes)]
    return list(read_records(blocks, dialect, settled_encoding(blocks, dialect.encoding)))


def told(content: bytes, dialect: Dialect | None = None) -> list[tuple[int, list[str] | str]]:
    """Line numbers with the fields, or the code of the rejection."""
    return [
        (one.line_number, one.fields if isinstance(one, Record) else one.rejection.error_code)
        for one in read(content, dialect)
    ]


def test_a_quote_that_is_never_closed_costs_one_row() -> None:
    assert told(b'a,b\n1,"x\n2,y\n3,"z"\n') == [
        (1, ["a", "b"]),
        (2, "malformed_line"),
        (3, ["2", "y"]),
        (4, ["3", "z"]),
    ]


def test_a_quote_that_swallows_good_records_is_given_back() -> None:
    # it closes properly behind the comma in quotes of line 3
    assert told(b'a,b,c\n1,2,"x\n4,5,6\n7,",",9\n') == [
        (1, ["a", "b", "c"]),
        (2, "malformed_line"),
        (3, ["4", "5", "6"]),
        (4, ["7", ",", "9"]),
    ]
    assert told(b'a,b,c\n1,"x\n4,5,6\n7",8,9\n10,11,12') == [
        (1, ["a", "b", "c"]),
        (2, "wrong_field_count"),
        (3, ["4", "5", "6"]),
        (4, "malformed_line"),
        (5, ["10", "11", "12"]),
    ]


def test_a_record_of_several_lines_that_lacks_a_cell_is_one_row() -> None:
    assert told(b'a,b,c\n1,"x\ny\nz"\n4,5,6\n') == [
        (1, ["a", "b", "c"]),
        (2, "wrong_field_count"),
        (5, ["4", "5", "6"]),
    ]
    (_, bad, _) = read(b'a,b,c\n1,"x\ny\nz"\n4,5,6\n')
    assert isinstance(bad, RejectedLine)
    assert bad.line == b'1,"x\ny\nz"'


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("1", "wrong_field_count"),
        ("1,2,3", "wrong_field_count"),
        ('1,"2"3', "malformed_line"),
        ('1,2"', "malformed_line"),
        ('1, "2"', "malformed_line"),
        ('1,""2"', "malformed_line"),
        ('1,"2', "malformed_line"),
        ("1," + "x" * LONGEST_LINE_BYTES, "line_too_long"),
        (b"1,\xe9", "invalid_utf8"),
        (b"1,\xed\xa0\x80", "invalid_utf8"),
    ],
)
def test_what_is_turned_away(line: str | bytes, code: str) -> None:
    bad = line if isinstance(line, bytes) else line.encode()
    assert told(b"a,b\n1,2\n" + bad + b"\n5,6\n") == [(1, ["a", "b"]), (2, ["1", "2"]), (3, code), (4, ["5", "6"])]
    assert told(b"a,b\n1,2\n" + bad)[-1] == (3, code)


@pytest.mark.parametrize(
    ("dialect", "line", "fields"),
    [
        (Dialect(";"), "1;2,5", ["1", "2,5"]),
        (Dialect("\t"), "1\t", ["1", ""]),
        (Dialect(", "), '1, "a, b"', ["1", "a, b"]),
        (Dialect("||"), "1|||2", ["1", "|2"]),
        (Dialect(quote="'"), "1,'it''s, \"'", ["1", "it's, \""]),
        (Dialect(quote=""), '"1,2"', ['"1', '2"']),
        (Dialect(escape="\\"), r'1,"a\"b\\,"', ["1", 'a"b\\,']),
        (Dialect(escape="\\"), r'a\,b,"say ""hi"""', ["a,b", 'say "hi"']),
        (Dialect(escape="\\"), r"C:\temp,\N", [r"C:\temp", r"\N"]),
        (Dialect(escape="\\"), "1,a\\\nb", ["1", "a\nb"]),
        (Dialect(escape="\\", quote=""), 'a\\,b,"', ["a,b", '"']),
        (Dialect(escape=""), '1,"24" wide"', ["1", '24" wide']),
        (Dialect(escape=""), '"a"",b"c', ['a"', 'b"c']),
        (Dialect(escape=""), '"",""', ["", ""]),
        (Dialect(), '1,"a\r\nb\rc\nd"', ["1", "a\r\nb\rc\nd"]),
        (Dialect(), "1, x ", ["1", " x "]),
    ],
)
def test_what_a_dialect_means(dialect: Dialect, line: str, fields: list[str]) -> None:
    header = f"a{dialect.delimiter}b\r\n".encode()
    assert told(header + line.encode() + b"\r\n", dialect)[1:] == [(2, fields)]
    assert told(header + line.encode(), dialect)[1:] == [(2, fields)]


def test_lines_end_in_three_ways() -> None:
    assert told(b"a,b\r1,2\n3,4\r\n\r\n\n5,6\r") == [
        (1, ["a", "b"]),
        (2, ["1", "2"]),
        (3, ["3", "4"]),
        (6, ["5", "6"]),
    ]


def test_a_quote_that_closes_properly_is_meant() -> None:
    assert told(b'a,b,c\n1,"x\n4,5,6\n7",8\n') == [(1, ["a", "b", "c"]), (2, ["1", "x\n4,5,6\n7", "8"])]


def test_lines_before_the_header_are_left_out_and_counted() -> None:
    assert told(b'sep=;\n"never closed\n\na,b\n1,2\n', Dialect(skip_lines=3)) == [(4, ["a", "b"]), (5, ["1", "2"])]
    assert told(b"1,2\n3\n", Dialect(columns=("a", "b"))) == [(1, ["1", "2"]), (2, "wrong_field_count")]
    assert told(b"a,b\n", Dialect(skip_lines=9)) == []


FRENCH = "nom,ville\nThéo,Orléans\nZoë,Nîmes\nMax,Paris\n"


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "cp1252", "iso-8859-15", "mac-roman", "utf-16", "utf-16-le", "utf-16-be", "utf-32"],
)
def test_encodings(encoding: str) -> None:
    names = [one.fields for one in read(FRENCH.encode(encoding), Dialect(encoding=encoding)) if isinstance(one, Record)]
    assert names == [line.split(",") for line in FRENCH.splitlines()]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_bytes_say_more_than_what_was_declared(encoding: str) -> None:
    assert read(FRENCH.encode(encoding), Dialect(encoding="cp1252"))[1] == Record(2, ["Théo", "Orléans"])


@pytest.mark.parametrize("declared", ["utf-16", "utf-32"])
@pytest.mark.parametrize("order", ["-le", "-be"])
def test_text_without_mark_and_of_few_latin_letters(declared: str, order: str) -> None:
    content = "имя,город\nИван,Москва\n".encode(declared + order)
    assert told(content, Dialect(encoding=declared)) == [(1, ["имя", "город"]), (2, ["Иван", "Москва"])]


@pytest.mark.parametrize(
    ("encoding", "bad"), [("utf-7", b"+b,1"), ("iso2022_kr", b"\x1b$B,1"), ("hz", b"~x,1"), ("cp932", b"\x81 ,1")]
)
def test_ascii_that_is_not_of_the_encoding_costs_its_line(encoding: str, bad: bytes) -> None:
    header, turned_away, good = read(b"a,b\n" + bad + b"\n1,2\n", Dialect(encoding=encoding))
    assert (header, good) == (Record(1, ["a", "b"]), Record(3, ["1", "2"]))
    assert isinstance(turned_away, RejectedLine)


def test_one_line_of_another_encoding_costs_that_line() -> None:
    utf_8 = FRENCH.encode() + "Léa,Sète\n".encode("cp1252") + b"Jean,Lyon\n"
    assert told(utf_8, Dialect(encoding="cp1252"))[4:] == [(5, "invalid_utf8"), (6, ["Jean", "Lyon"])]
    cp1252 = FRENCH.encode("cp1252") + "Léa,Sète\n".encode() + b"Jean,Lyon\n"
    assert told(cp1252, Dialect(encoding="cp1252"))[4:] == [(5, "invalid_encoding"), (6, ["Jean", "Lyon"])]
    # 0x81 is no letter of cp1252; half a UTF-16 pair and half a character are none either
    assert told(FRENCH.encode("cp1252") + b"x,\x81\n", Dialect(encoding="cp1252"))[4:] == [(5, "invalid_encoding")]
    utf_16 = FRENCH.encode("utf-16-le") + b"x\0,\0\x00\xd8\n\0y\0,\0z\0\n\0"
    assert told(utf_16, Dialect(encoding="utf-16"))[4:] == [(5, "invalid_utf8"), (6, ["y", "z"])]
    assert told(FRENCH.encode("utf-16-le") + b"x\0,\0y", Dialect(encoding="utf-16"))[4:] == [(5, "invalid_utf8")]


def test_a_line_is_kept_in_utf_8_if_it_can_be() -> None:
    kept = [one.line for one in read("a;b\né\n".encode("cp1252"), Dialect(";", encoding="cp1252"))[1:]]  # type: ignore[union-attr]
    assert kept == ["é".encode()]
    kept = [one.line for one in read(b"a,b\n\xe9,1\n")[1:]]  # type: ignore[union-attr]
    assert kept == [b"\xe9,1"]


def test_quotes_that_stay_open_cost_little() -> None:
    many = b"a,b\n" + b'1,"x\n' + b"1,2\n" * (2 * MOST_LINES_OF_RECORD)
    assert [one for one in told(many) if isinstance(one[1], str)] == [(2, "malformed_line")]
    longest = b"a,b\n" + b'1,"' + b"x\n" * (MOST_LINES_OF_RECORD - 2) + b'"\n3,4\n'
    assert [fields for _, fields in told(longest)][-1] == ["3", "4"]
    assert len(told(longest)) == 3


def test_an_endless_line_costs_one_row_and_little_memory() -> None:
    content = b"a,b\n" + b"x" * (10 * LONGEST_LINE_BYTES) + b"\n1,2\n"
    blocks = [(content[i : i + 100_000], i) for i in range(0, len(content), 100_000)]
    endless = list(read_records(blocks, Dialect(), "utf-8"))
    assert isinstance(endless[1], RejectedLine)
    assert endless[1].rejection.error_code == "line_too_long"
    assert len(endless[1].line) <= 100_000 + LONGEST_LINE_BYTES
    assert endless[2] == Record(3, ["1", "2"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"delimiter": ""}, "--delimiter"),
        ({"delimiter": "\n"}, "--delimiter"),
        ({"delimiter": '";'}, "--delimiter"),
        ({"quote": "''"}, "one character"),
        ({"escape": "ab"}, "one character"),
        ({"encoding": "klingon"}, "no encoding 'klingon'"),
        ({"encoding": "hex"}, "no encoding 'hex'"),
        ({"encoding": "cp037"}, "cannot be cut into lines"),
        ({"decimal": ";"}, "no decimal mark"),
        ({"encoding": "idna"}, "no encoding 'idna'"),
        ({"encoding": "undefined"}, "no encoding 'undefined'"),
        ({"encoding": "cp\udcff"}, "no encoding"),
        ({"delimiter": "\udca7"}, "no UTF-8"),
        ({"columns": ("price", "user\udcff")}, "no UTF-8"),
        ({"skip_lines": -1}, "--skip-lines"),
        ({"skip_lines": 10**20}, "--skip-lines"),
    ],
)
def test_a_dialect_that_cannot_be_is_told(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError) as refusal:
        Dialect(**changes)  # type: ignore[arg-type]
    assert sentence in str(refusal.value)


# Against Python's csv module --------------------------------------------------------------------------------------

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
texts = st.one_of(
    st.text("ab \"'\\,;|\t\r\n", max_size=8),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6),
)


@st.composite
def tables(draw: st.DrawFn) -> list[list[str]]:
    width = draw(st.integers(2, 4))
    names = [[f"column {place}" for place in range(width)]]
    return names + draw(st.lists(st.lists(texts, min_size=width, max_size=width), max_size=6))


@patient
@given(
    tables(),
    st.sampled_from([",", ";", "\t", "|", " ", "^", "-", "]", "é"]),
    st.sampled_from(['"', "'"]),
    st.sampled_from([None, "\\", "!"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONE]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be"]),
    st.integers(1, 50),
)
@example([["a", "b"], ['"', "\\"], ["\\\n", '\\"']], ",", '"', "\\", csv.QUOTE_NONE, "utf-8", 3)
def test_what_csv_writes_is_read_back_unchanged(
    table: list[list[str]],
    delimiter: str,
    quote: str,
    escape: str | None,
    quoting: int,
    encoding: str,
    block_bytes: int,
) -> None:
    if quoting == csv.QUOTE_NONE and escape is None:
        quoting = csv.QUOTE_MINIMAL
    text = io.StringIO(newline="")
    writer = csv.writer(
        text, delimiter=delimiter, quotechar=quote, escapechar=escape, doublequote=escape is None, quoting=quoting
    )
    expected = []
    for fields in table:
        # as Python counts with newline=""
        lines_before = len(re.findall("\r\n|\r|\n", text.getvalue()))
        expected.append(Record(lines_before + 1, fields))
        writer.writerow(fields)
    dialect = Dialect(delimiter, quote, escape, encoding)
    content = text.getvalue().encode(encoding)
    assert read(content, dialect, block_bytes) == expected


@patient
@given(st.lists(st.text("ab\"',;\\\n\ré ", max_size=12), max_size=6), st.sampled_from([None, "", "\\"]))
def test_the_short_way_agrees_with_the_long_one(lines: list[str], escape: str | None) -> None:
    content = ("a,b\n" + "\n".join(lines)).encode()
    short = read(content, Dialect(escape=escape))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ingestion.dialect._Syntax.plainly", lambda syntax, body: None)
        assert read(content, Dialect(escape=escape)) == short


@patient
@given(st.lists(st.sampled_from([b'"', b"\\", b",", b"\n", b"\r", b"a", b"\xe9", b"\0", b'""', b"1,2\n"]), max_size=60))
def test_no_bytes_stop_the_reader(pieces: list[bytes]) -> None:
    content = b"".join(pieces)
    blocks = [(content[i : i + 7], i) for i in range(0, len(content), 7)]
    for dialect in (
        Dialect(),
        Dialect(escape="\\"),
        Dialect(escape=""),
        Dialect(encoding="cp1252", columns=("a", "b")),
    ):
        records = list(read_records(blocks, dialect, dialect.encoding))
        numbers = [one.line_number for one in records]
        assert numbers == sorted(set(numbers))
        # what the file holds is in a record or in a line that is turned away
        letters = sum("".join(one.fields).count("a") for one in records if isinstance(one, Record))
        letters += sum(one.line.count(b"a") for one in records if isinstance(one, RejectedLine))
        assert letters == content.count(b"a")
