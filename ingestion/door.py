"""The checks at the door: which lines of a delivered file may land, and why the others may not.

Structure, types, null keys and the file's period; business rules and duplicates are dbt's. One physical line is one
record, so that an unclosed quote costs one row; an entirely empty line is none. There are two ways to check a line,
and they agree: `check_line`, slow and obvious, is the truth; `plain_pattern` accepts only lines that are plainly good
ASCII, whose bytes go to COPY unchanged. No file, no database and no key is touched here.
"""

import csv
import decimal
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import ClassVar

from ingestion.source import Column, Period, Rejection, Source, WholeNumber, is_scientific, whole_number
from warehouse.errors import UserError

LONGEST_LINE_BYTES = 2**16
# of a line without a readable id, no more is looked at: a row has nine
MOST_FIELDS = 500
LONGEST_NUMBER = 200
OTHER_DELIMITERS = (";", "\t", "|", ":")
# what it is called, and how the option is told
DELIMITER_NAMES = {"\t": ("a tab", "tab")}

# one entry per field of the file's lines; None for a column that is left out
Layout = tuple[Column | None, ...]


@dataclass(frozen=True)
class Header:
    """The first line, understood: what stands where, and the names of columns that are left out."""

    layout: Layout
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class RejectedLine:
    """A line that is turned away, with its physical line number (the header is line 1).

    `is_suppressed`: it may be about somebody who asked to be forgotten, and must not be kept. `is_unread`: a foreign
    file's line that never became fields; what it holds is not in the order of the file's columns.
    """

    line_number: int
    rejection: Rejection
    line: bytes
    is_suppressed: bool = False
    is_unread: bool = False


@dataclass(frozen=True)
class Checked:
    """What became of a batch of lines: rows for COPY, how many they are and on which UTC days, and the rest.

    `suppressed` are the numbers of good lines about people who asked to be forgotten. They do not land; nor is a line
    kept that is turned away and may be about one of them.

    `rows` are in the door's format; its columns are the header's, in the order of the file, the person's id replaced;
    then the line number; then whatever the caller appends to every row. `odd_rows` are rows in CSV, where that is not
    the door's format.
    """

    rows: bytes
    rows_good: int
    rows_by_day: Counter[bytes]
    rejected: list[RejectedLine]
    suppressed: list[int]
    bytes_done: int
    odd_rows: bytes = b""


@dataclass(frozen=True)
class Door:
    """What the lines of one file are checked against, and what becomes of those that pass.

    `pseudonyms` gives the bytes to land for the bytes of a person's id, none for one who asked to be forgotten;
    `is_suppressed` says whether one of the people a line turned away may be about did; `appended` ends every row,
    line feed included.
    """

    copy_format: ClassVar[str] = "csv"

    source: Source
    layout: Layout
    period: Period
    pseudonyms: Mapping[bytes, bytes]
    appended: bytes
    is_suppressed: Callable[[Iterable[int]], bool] | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns that land, in the order of the file."""
        return tuple(column for column in self.layout if column is not None)

    def check_text(self, text: bytes, first_line_number: int, bytes_done: int = 0) -> Checked:
        """Check whole lines, each with its line feed, of which the first has the number `first_line_number`."""
        return self.check(enumerate(split_lines(text), first_line_number), bytes_done)

    def check(self, numbered_lines: Iterable[tuple[int, bytes]], bytes_done: int = 0) -> Checked:
        """Check lines, each with its physical number; the plainly good ones go the short way."""
        match = self._plain_match
        pseudonyms, appended = self.pseudonyms, self.appended
        good: list[bytes] = []
        days: list[bytes] = []
        rejected: list[RejectedLine] = []
        suppressed: list[int] = []
        for number, line in numbered_lines:
            plain = match(line)
            if plain:
                start, end = plain.span("person")
                pseudonym = pseudonyms[line[start:end]]
                if pseudonym:
                    good.append(b"%b%b%b,%d%b" % (line[:start], pseudonym, line[end:], number, appended))
                    days.append(plain["time"][:10])
                else:
                    suppressed.append(number)
            elif line:
                checked = check_line(line, self.layout, self.period)
                if not isinstance(checked, Rejection):
                    row, day = self._row(checked, number)
                    if row:
                        good.append(row)
                        days.append(day)
                    else:
                        suppressed.append(number)
                else:
                    rejected.append(self._rejected(number, checked, line))
        return Checked(b"".join(good), len(good), Counter(days), rejected, suppressed, bytes_done)

    def _rejected(self, number: int, rejection: Rejection, line: bytes) -> RejectedLine:
        line = line[: LONGEST_LINE_BYTES + 1]
        is_suppressed = self.is_suppressed and self.is_suppressed(people_of(line, self.layout, self.source).ids)
        return RejectedLine(number, rejection, b"" if is_suppressed else line, bool(is_suppressed))

    @cached_property
    def _plain_match(self) -> Callable[[bytes], re.Match[bytes] | None]:
        pattern = plain_pattern(self.source, self.layout, self.period)
        return pattern.fullmatch if pattern else lambda line: None

    def _row(self, values: Sequence[str | None], number: int) -> tuple[bytes, bytes]:
        """The CSV of a line that took the long way, empty if its person asked to be forgotten, and its day."""
        by_name = dict(zip((column.name for column in self.columns), values, strict=True))
        person, time = by_name[self.source.person], by_name[self.source.time]
        # their columns see to it
        assert person is not None
        assert time is not None
        pseudonym = self.pseudonyms[person.encode()].decode()
        if not pseudonym:
            return b"", b""
        by_name[self.source.person] = pseudonym
        quoted = ("" if value is None else '"' + value.replace('"', '""') + '"' for value in by_name.values())
        return f"{','.join(quoted)},{number}".encode() + self.appended, time[:10].encode()


def check_line(line: bytes, layout: Layout, period: Period) -> tuple[str | None, ...] | Rejection:
    """Say what Postgres is to read for each column that lands, in the order of the file, or why the line may not.

    `line` comes without its line end. The first rule broken, columns from left to right, is the one told.
    """
    if len(line) > LONGEST_LINE_BYTES:
        return Rejection("line_too_long", f"the line has more than {LONGEST_LINE_BYTES} bytes")
    if b"\0" in line:
        return Rejection("nul_byte", "the line holds a NUL byte")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return Rejection("invalid_utf8", "the line is not UTF-8")
    fields = split_fields(text)
    if fields is None:
        return Rejection("malformed_line", "the line's quotes do not pair up, or a carriage return stands within it")
    if len(fields) != len(layout):
        return _wrong_field_count(fields, layout)
    values: list[str | None] = []
    for column, field in zip(layout, fields, strict=True):
        if column is None:
            continue
        value = column.read(field, period)
        if isinstance(value, Rejection):
            return value
        values.append(value)
    return tuple(values)


@dataclass(frozen=True)
class People:
    """The ids of those whom a line is about (one, `is_certain`), or may be about."""

    ids: frozenset[int]
    is_certain: bool


def people_of(line: bytes, layout: Layout, source: Source) -> People:
    """Say whom a line, broken as it may be, is about.

    The id in its column, however a spreadsheet has written it. Where there is none, every field of the line that is a
    number may be the id, for columns may be missing or swapped; and so may digits within the column of ids.
    """
    # UTF-16 read as bytes has a NUL beside every digit
    text = unicodedata.normalize("NFKC", line.replace(b"\0", b"").decode("utf-8", errors="replace"))
    fields = split_fields(text)
    digits: list[str] = []
    names = [column.name if column else None for column in layout]
    # a line that was never read has a layout without columns
    if fields is not None and len(fields) == len(names) and source.person in names:
        field = fields[names.index(source.person)]
        person_id = id_meant(field)
        if person_id is not None:
            return People(frozenset((person_id,)), is_certain=True)
        digits = re.findall(r"[0-9]{1,40}", field)
    pieces = re.split(r"[,;\t|\"]", text, maxsplit=MOST_FIELDS)[:MOST_FIELDS]
    if source.person not in names:
        # whatever the delimiter of its file is
        pieces += re.split(r"[^\w.+-]+", text, maxsplit=MOST_FIELDS)[:MOST_FIELDS]
    ids = (id_meant(piece) for piece in (*pieces, *digits))
    return People(frozenset(person_id for person_id in ids if person_id is not None), is_certain=False)


def id_meant(text: str) -> int | None:
    """The 64-bit whole number that a text stands for, with separators or in scientific notation as well; or None."""
    text = re.sub(r"(?<=[0-9])[\s'’_.,](?=[0-9]{3}(?![0-9]))", "", text.strip())
    if len(text) > LONGEST_NUMBER or not re.fullmatch(r"[+-]?[0-9]+(?:[.,][0-9]*)?(?:[eE][+-]?[0-9]{1,3})?", text):
        return None
    number = decimal.Decimal(text.replace(",", "."))
    # beyond it, the number is not one of 64 bits
    if number.adjusted() > 18 or number != number.to_integral_value():
        return None
    return whole_number(str(int(number)))


def plain_pattern(source: Source, layout: Layout, period: Period) -> re.Pattern[bytes] | None:
    """The pattern of lines that are plainly good, with groups `person` and `time`.

    None where no line is: extra columns, or a period of odd bounds.
    """
    groups = {source.person: b"(?P<person>%b)", source.time: b"(?P<time>%b)"}
    pieces = []
    for column in layout:
        piece = column.plain(period) if column else None
        if column is None or piece is None:
            return None
        pieces.append(groups.get(column.name, b"%b") % piece)
    return re.compile(b",".join(pieces))


def split_fields(text: str, delimiter: str = ",") -> list[str] | None:
    """The fields of one line, or None if its quotes do not pair up or a carriage return stands within it."""
    try:
        return next(csv.reader([text], strict=True, delimiter=delimiter), [])
    except csv.Error:
        return None


def understand_header(line: bytes, source: Source, file_name: str, where: str = "line 1") -> Header:
    """Map the first line by name onto the source's columns: any order, case, blanks around and BOM are tolerated.

    Raises:
        UserError: the line is no header, is cut by another delimiter, names a column twice or lacks one.
    """
    text = line.decode("utf-8-sig", errors="replace")
    by_name = {column.name: column for column in source.columns}
    names = _names(text, ",")
    found = [name for name in names if name in by_name]
    for delimiter in OTHER_DELIMITERS:
        if len(found) < 2 <= sum(name in by_name for name in _names(text, delimiter)):
            seen, option = DELIMITER_NAMES.get(delimiter, (f"'{delimiter}'", f"'{delimiter}'"))
            raise UserError(
                f"{file_name}, {where}: columns are separated by {seen}: export the file with commas or pass "
                f"--delimiter {option}."
            )
    if not found:
        raise UserError(
            f"{file_name}, {where}: there is no header; the first line must name the columns "
            f"{','.join(by_name)}: export the file with its header, as CSV text with line feeds, or name its "
            "columns with --columns."
        )
    for name in found:
        if found.count(name) > 1:
            raise UserError(f"{file_name}, {where}: the column {name} stands there twice: export the file again.")
    missing = [name for name in by_name if name not in found]
    if missing:
        raise UserError(
            f"{file_name}, {where}: the header lacks {', '.join(missing)}: export the file with all of its columns, "
            f"{','.join(by_name)}."
        )
    layout = tuple(by_name.get(name) for name in names)
    return Header(layout, tuple(_shown(name) for name in names if name not in by_name))


def whole_lines(blocks: Iterable[tuple[bytes, int]]) -> Iterator[tuple[bytes, int]]:
    """Cut blocks where lines end, passing on each block's bytes done; a last line without line feed is given one.

    A line longer than the door allows is cut just beyond that length, so that it stays too long but costs no memory.
    """
    rest = b""
    done = 0
    for block, done in blocks:
        end = block.rfind(b"\n") + 1
        if end:
            yield rest + block[:end], done
            rest = b""
        # one byte to spare: a carriage return at the cut must not turn into a line end that shortens the line
        rest = (rest + block[end:])[: LONGEST_LINE_BYTES + 2]
    if rest:
        yield rest + b"\n", done


def split_lines(text: bytes) -> list[bytes]:
    """Whole lines without their ends (LF or CRLF)."""
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n")
    return text.split(b"\n")[:-1]


def take_first_line(texts: Iterable[tuple[bytes, int]]) -> tuple[bytes | None, Iterator[tuple[bytes, int]]]:
    """The first line without its end (None if there is none) and the texts without it."""
    remaining = iter(texts)
    for text, done in remaining:
        first_line, rest = text.split(b"\n", 1)
        return first_line.removesuffix(b"\r"), chain([(rest, done)], remaining)
    return None, remaining


def check_texts(
    check_text: Callable[[bytes, int, int], Checked], texts: Iterable[tuple[bytes, int]], first_line_number: int
) -> Iterator[Checked]:
    """Check all lines with a door's `check_text`; the first of them has the number `first_line_number` in its file."""
    number = first_line_number
    for text, done in texts:
        yield check_text(text, number, done)
        number += text.count(b"\n")


def _shown(name: str) -> str:
    # a first line of data would be shown as if its values were names
    is_plain = re.fullmatch(r"[^\W\d][\w .:/-]*", name) and not re.search(r"[0-9]{4}", name)
    return name[:40] if is_plain else "(unnamed)"


def _names(text: str, delimiter: str) -> list[str]:
    return [name.strip().lower() for name in split_fields(text, delimiter) or []]


def _wrong_field_count(fields: Sequence[str], layout: Layout) -> Rejection:
    # "2,10381E+18" without quotes: the spreadsheet's decimal comma has cut an id in two
    for column, whole, cut in zip(layout, fields, fields[1:], strict=False):
        if isinstance(column, WholeNumber) and whole_number(whole) is not None and is_scientific(cut):
            return Rejection("scientific_notation", f"{column.name} is in a spreadsheet's scientific notation")
    return Rejection("wrong_field_count", f"the line has {len(fields)} fields, not {len(layout)}")
