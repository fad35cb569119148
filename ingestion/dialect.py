"""How a foreign file is written, and its records: a dialect is declared, never guessed.

Bytes become records of text here, whatever columns they have. A line that cannot be read costs one row: after a quote
that is never closed, reading goes on with the next physical line. What values mean is not known here; `door` knows.
"""

import codecs
import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from itertools import islice

from ingestion.door import LONGEST_LINE_BYTES, RejectedLine
from ingestion.source import Rejection
from ingestion.spool import WIDE_ENCODINGS, wide_codec
from warehouse.errors import UserError

# a quote that stays open for longer was never meant as one
MOST_LINES_OF_RECORD = 1000
MOST_LINES_SKIPPED = 10**9
HEAD_BYTES = 1024
LONE_SURROGATE = re.compile("[\ud800-\udfff]")

Blocks = Iterable[tuple[bytes, int]]


@dataclass(frozen=True)
class Dialect:
    """How a file is written, as somebody says who has looked at it.

    Lines end with LF, CRLF or CR.

    Args:
        delimiter: what stands between fields; it may have several characters.
        quote: the character around fields that hold a delimiter or a line break; empty if there is none.
        escape: the character that takes the next one's meaning away. None: a quote within quotes is doubled. Empty: it
            stands as it is, and a quote ends its field only before a delimiter or the end of the line.
        encoding: Python's name of it. A byte order mark and the NUL bytes of UTF-16 say more than it, and so does text
            that is UTF-8.
        skip_lines: physical lines before the header, or before the first row if `columns` are given.
        columns: names of the columns if the file does not say them; empty if its first record does.
        decimal: the decimal mark of numbers, a point or a comma.

    Raises:
        UserError: no file can be written so.
    """

    delimiter: str = ","
    quote: str = '"'
    escape: str | None = None
    encoding: str = "utf-8"
    skip_lines: int = 0
    columns: tuple[str, ...] = ()
    decimal: str = "."

    def __post_init__(self) -> None:
        marks = (self.delimiter, self.quote, self.escape or "", *self.columns)
        if LONE_SURROGATE.search("".join(marks)):
            raise UserError("--delimiter, --quote, --escape or --columns is no UTF-8: check the terminal's encoding.")
        if not self.delimiter or set("\r\n\0") & {*self.delimiter, *self.quote, *(self.escape or "")}:
            raise UserError("--delimiter, --quote and --escape cannot be a line break or NUL: pass for instance ';'.")
        if len(self.quote) > 1 or len(self.escape or "") > 1:
            raise UserError("--quote and --escape are one character each, or 'none'.")
        if {self.quote, self.escape} & {*self.delimiter}:
            raise UserError("--delimiter holds the quote or the escape character: pass different ones.")
        if self.decimal not in (".", ","):
            raise UserError(f"--decimal '{self.decimal}' is no decimal mark: pass . or ,")
        if not 0 <= self.skip_lines <= MOST_LINES_SKIPPED:
            raise UserError(f"--skip-lines {self.skip_lines} is no number of lines: pass how many to leave out.")
        try:
            can_be_cut = is_wide(self.encoding) or "\r\n".encode(self.encoding).endswith(b"\r\n")
            # some codecs are for other things than files
            b"a".decode(self.encoding, "replace")
        except (LookupError, UnicodeError):
            raise UserError(f"There is no encoding '{self.encoding}': pass for instance --encoding cp1252.") from None
        if not can_be_cut:
            raise UserError(f"Text in {self.encoding} cannot be cut into lines: convert the file to UTF-8.")


@dataclass(frozen=True, slots=True)
class Record:
    """The fields of one record, with the physical number of the line on which it begins."""

    line_number: int
    fields: list[str]


def is_wide(encoding: str) -> bool:
    """Whether its characters have two or four bytes; LookupError if there is no such encoding."""
    return codecs.lookup(encoding).name.startswith(tuple(WIDE_ENCODINGS))


def settled_encoding(blocks: Blocks, declared: str) -> str:
    """The encoding of a file: by its mark, else by its NUL bytes, else UTF-8 if most lines beyond ASCII are, else as
    declared.

    All blocks are read, unless the first ones settle it.
    """
    votes = 0
    rest = b""
    for number, block in enumerate(_with_whole_head(blocks)):
        if number == 0:
            if block.startswith(codecs.BOM_UTF8):
                return "utf-8"
            codec = wide_codec(block)
            if codec:
                return codec
            # without a mark and of few Latin letters: still, its line ends hold NUL bytes
            if is_wide(declared) and b"\0" in block:
                return _with_byte_order(declared, block)
            if is_wide(declared) or codecs.lookup(declared).name in ("utf-8", "utf-8-sig"):
                return "utf-8"
        # a letter that two blocks share must not count against UTF-8
        block = rest + block
        cut = max(block.rfind(b"\n"), block.rfind(b"\r")) + 1
        block, rest = block[:cut], block[cut:][:LONGEST_LINE_BYTES]
        votes += _votes_for_utf_8(block)
    votes += _votes_for_utf_8(rest)
    return "utf-8" if votes > 0 else declared


def _with_byte_order(declared: str, block: bytes) -> str:
    """The wide encoding, told apart by where its NUL bytes stand if it does not say its byte order."""
    name = codecs.lookup(declared).name
    if name not in ("utf-16", "utf-32"):
        return declared
    size = 2 if name == "utf-16" else 4
    return name + ("-be" if block[::size].count(0) > block[size - 1 :: size].count(0) else "-le")


def _with_whole_head(blocks: Blocks) -> Iterator[bytes]:
    """The blocks, the first of them long enough to show what the file is."""
    head: bytes | None = b""
    for block, _ in blocks:
        if head is not None:
            head += block
            if len(head) < HEAD_BYTES:
                continue
            block, head = head, None
        yield block
    if head:
        yield head


def _votes_for_utf_8(block: bytes) -> int:
    if block.isascii():
        return 0
    return sum(1 if _is_utf_8(line) else -1 for line in block.splitlines() if not line.isascii())


def _is_utf_8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def read_records(blocks: Blocks, dialect: Dialect, encoding: str) -> Iterator[Record | RejectedLine]:
    """Yield the records of a file in its order, the header's first unless the dialect names the columns.

    Empty lines are none. A record of more or fewer fields than there are columns is turned away, never filled up or
    cut. A line that is turned away is kept in UTF-8, or as it is if it cannot be decoded.

    Args:
        blocks: the file, cut anywhere, with anything beside; one block at a time is held.
        dialect: how it is written.
        encoding: what `settled_encoding` says of it.
    """
    lines = _lines(blocks, encoding)
    return _Reader(dialect, "utf-8" if is_wide(encoding) else encoding, lines).records()


def _lines(blocks: Blocks, encoding: str) -> Iterator[bytes]:
    """Physical lines with their ends, in UTF-8 if the encoding is wide; too long ones are cut but stay too long."""
    rest = b""
    is_first = True
    whole = _with_whole_head(blocks)
    for block in _narrow(whole, encoding) if is_wide(encoding) else whole:
        if is_first:
            block = block.removeprefix(codecs.BOM_UTF8)
        is_first = False
        lines = (rest + block).splitlines(keepends=True)
        # the line feed of a carriage return may begin the next block
        rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        if len(rest) > LONGEST_LINE_BYTES and not rest.endswith(b"\r"):
            rest = rest[: LONGEST_LINE_BYTES + 1]
        yield from lines
    if rest:
        yield rest


def _narrow(blocks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)("agora_lone_surrogate")
    for block in blocks:
        yield decoder.decode(block).encode("utf-8", "surrogatepass")
    yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")


# what cannot be decoded becomes invalid UTF-8, which costs its line and no other
codecs.register_error("agora_lone_surrogate", lambda error: ("\udfff", error.end))  # type: ignore[attr-defined]


class _End(Enum):
    """How a line ended: its record is complete, goes on, or is malformed."""

    CLOSED = auto()
    OPEN = auto()
    MALFORMED = auto()


@dataclass
class _Line:
    """A physical line, decoded; bytes that are not of the encoding stand as lone surrogates."""

    number: int
    raw: bytes
    body: str
    end: str


class _Scan:
    """The fields of the lines it was fed, one record's."""

    def __init__(self, syntax: "_Syntax") -> None:
        self._syntax = syntax
        self.fields: list[str] = []
        # the field that is open
        self._pieces: list[str] = []
        self._is_open = self._is_quoted = False

    def feed(self, line: _Line) -> _End:
        syntax, body, position = self._syntax, line.body, 0
        while True:
            if not self._is_open:
                self._is_quoted = syntax.quote != "" and body.startswith(syntax.quote, position)
                position += self._is_quoted
            inner = syntax.quoted if self._is_quoted else syntax.plain
            found = inner.match(body, position)
            assert found, "an inner pattern matches the empty text"
            position = found.end()
            self._pieces.append(syntax.meant(found[0], self._is_quoted))
            is_closed = body.startswith(syntax.quote, position) if self._is_quoted else True
            if not self._is_quoted and syntax.escape and body[position:] == syntax.escape:
                is_closed = False
            if not is_closed:
                # an escape character at the end of a line stands before its line break
                self._pieces.append(line.end)
                self._is_open = True
                return _End.OPEN
            position += self._is_quoted
            self.fields.append("".join(self._pieces))
            self._pieces, self._is_open = [], False
            if position == len(body):
                return _End.CLOSED
            if not body.startswith(syntax.delimiter, position):
                return _End.MALFORMED
            position += len(syntax.delimiter)


class _Syntax:
    """What may stand within a field of a dialect, as patterns that always match."""

    def __init__(self, dialect: Dialect) -> None:
        self.delimiter, self.quote = dialect.delimiter, dialect.quote
        is_doubled = dialect.escape is None or dialect.escape == dialect.quote
        self.escape = "" if is_doubled else dialect.escape or ""
        delimiter, quote, escape = (re.escape(mark) for mark in (self.delimiter, self.quote, self.escape))
        escaped = f"{escape}.|" if escape else ""
        # no group is possessive (`*+`): Python before 3.11.5 ends those too early
        if is_doubled or escape:
            self.quoted = re.compile(f"(?:{escaped}{quote}{quote}|[^{escape}{quote}]++)*" if quote else "")
        else:
            # up to a quote that ends its field, or to the end of the line
            self.quoted = re.compile(rf".*?(?={quote}(?:{delimiter}|\Z))|.*", re.DOTALL)
        # a writer that quotes would have quoted a field with a quote in it
        stray = quote if is_doubled or escape else ""
        if len(self.delimiter) == 1:
            self.plain = re.compile(f"(?:{escaped}[^{escape}{stray}{delimiter}]++)*")
        else:
            first = re.escape(self.delimiter[0])
            self.plain = re.compile(f"(?:{escaped}[^{escape}{stray}{first}\n]++|(?!{delimiter}){first})*")
        self._is_csv = len(self.delimiter) == 1 and (is_doubled or self.escape != "")
        pairs = [f"{escape}([{delimiter}{quote}{escape}])"] if escape else []
        self._pairs_plain = re.compile("|".join(pairs)) if pairs else None
        pairs += [f"{quote}({quote})"] if quote and (is_doubled or escape) else []
        self._pairs_quoted = re.compile("|".join(pairs)) if pairs else None

    def plainly(self, body: str) -> list[str] | None:
        """The fields of a line of no more than fields and delimiters, or of fields that are quoted as they should be;
        None if it takes a closer look."""
        if self.escape and self.escape in body:
            return None
        if not self.quote or self.quote not in body:
            return body.split(self.delimiter)
        if not self._is_csv:
            return None
        try:
            fields = next(csv.reader((body,), delimiter=self.delimiter, quotechar=self.quote, strict=True))
        except csv.Error:
            return None
        # csv tolerates a quote within a field that has none around it
        return None if self.quote in "".join(fields) else fields

    def meant(self, text: str, is_quoted: bool) -> str:
        """The text that is meant by what stands within a field."""
        pairs = self._pairs_quoted if is_quoted else self._pairs_plain
        # an escape character before any other one is that character's neighbour: C:\temp
        return pairs.sub(lambda pair: pair[pair.lastindex or 0], text) if pairs else text


class _Reader:
    """Makes records of lines, looking ahead as far as a quote is open."""

    def __init__(self, dialect: Dialect, encoding: str, lines: Iterator[bytes]) -> None:
        self._syntax = _Syntax(dialect)
        self._encoding = encoding
        self._numbered = enumerate(lines, 1)
        self._field_count = len(dialect.columns)
        self._ahead: deque[_Line] = deque()
        for _ in islice(self._numbered, dialect.skip_lines):
            pass

    def records(self) -> Iterator[Record | RejectedLine]:
        while (line := self._line(0)) is not None:
            if not line.body:
                self._ahead.popleft()
                continue
            record = self._record(line)
            if not self._field_count:
                self._field_count = len(record.fields) if isinstance(record, Record) else 0
            yield record

    def _line(self, ahead: int) -> _Line | None:
        """The line that stands so many after the next; None beyond the end."""
        while len(self._ahead) <= ahead:
            numbered = next(self._numbered, None)
            if numbered is None:
                return None
            number, raw = numbered
            # not "surrogateescape": of some encodings ASCII, too, may be undecodable
            text = raw.decode(self._encoding, "agora_lone_surrogate")
            body = text.rstrip("\r\n")
            self._ahead.append(_Line(number, raw, body, text[len(body) :]))
        return self._ahead[ahead]

    def _record(self, first: _Line) -> Record | RejectedLine:
        """Take the next record, or the lines that are turned away in its place."""
        fields = self._syntax.plainly(first.body)
        if fields and not self._rejection(_End.CLOSED, fields, len(first.raw)) and not self._undecodable([first]):
            return Record(self._ahead.popleft().number, fields)
        scan = _Scan(self._syntax)
        end = scan.feed(first)
        taken = 1
        size_bytes = len(first.raw)
        while end is _End.OPEN and taken < MOST_LINES_OF_RECORD and size_bytes <= LONGEST_LINE_BYTES:
            line = self._line(taken)
            if line is None:
                break
            end = scan.feed(line)
            taken += 1
            size_bytes += len(line.raw)
        rejection = self._rejection(end, scan.fields, size_bytes)
        if rejection and taken > 1 and (end is not _End.CLOSED or self._holds_record(taken)):
            # the quote was never meant to be one, or swallowed a good record: reading goes on behind its line
            taken = 1
        lines = [self._ahead.popleft() for _ in range(taken)]
        if rejection is None:
            rejection = self._undecodable(lines)
        if rejection is None:
            return Record(first.number, scan.fields)
        return RejectedLine(first.number, rejection, _kept(lines), is_unread=True)

    def _rejection(self, end: _End, fields: list[str], size_bytes: int) -> Rejection | None:
        if size_bytes > LONGEST_LINE_BYTES:
            return Rejection("line_too_long", f"the line has more than {LONGEST_LINE_BYTES} bytes")
        if end is _End.OPEN:
            return Rejection("malformed_line", "a quote in the line is never closed")
        if end is _End.MALFORMED:
            return Rejection("malformed_line", "a quote stands where none can in the line")
        if self._field_count and len(fields) != self._field_count:
            return Rejection("wrong_field_count", f"the line has {len(fields)} fields, not {self._field_count}")
        return None

    def _holds_record(self, taken: int) -> bool:
        """Whether one of the lines behind the first is a good record by itself."""
        for line in list(self._ahead)[1:taken]:
            scan = _Scan(self._syntax)
            if scan.feed(line) is _End.CLOSED and len(scan.fields) == self._field_count:
                return True
        return False

    def _undecodable(self, lines: list[_Line]) -> Rejection | None:
        if all(line.body.isascii() for line in lines):
            return None
        if any(map(_holds_undecodable, lines)):
            if self._encoding == "utf-8":
                return Rejection("invalid_utf8", "the line is not UTF-8")
            return Rejection("invalid_encoding", f"the line is not {self._encoding}")
        if self._encoding != "utf-8" and any(not line.body.isascii() and _is_utf_8(line.raw) for line in lines):
            return Rejection("invalid_encoding", f"the line is UTF-8 in a file of {self._encoding}")
        return None


def _holds_undecodable(line: _Line) -> bool:
    return LONE_SURROGATE.search(line.body) is not None


def _kept(lines: list[_Line]) -> bytes:
    kept = (line.raw if _holds_undecodable(line) else (line.body + line.end).encode() for line in lines)
    return b"".join(kept).rstrip(b"\r\n")
