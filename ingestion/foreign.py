"""Foreign files at the door: records of a declared dialect become lines as the door knows them.

A record becomes one line in UTF-8 with commas and doubled quotes, under the number of the physical line on which it
begins. How records are read is known to `dialect`, what may land to `door`.
"""

from collections.abc import Iterator, Set
from dataclasses import replace
from itertools import islice

from ingestion.dialect import Blocks, Dialect, Record, read_records, settled_encoding
from ingestion.door import Checked, Door, Header, RejectedLine, people_of, understand_header
from ingestion.source import Decimal, Source
from ingestion.spool import Spooled
from warehouse.errors import UserError

RECORDS_AT_A_TIME = 5000
SWAPPED_MARKS = str.maketrans(".,", ",.")


class ForeignFile:
    """A spooled file of a declared dialect."""

    def __init__(self, spool: Spooled, dialect: Dialect, source: Source) -> None:
        """Read as far as the header.

        Raises:
            UserError: the file is none of text, or its header cannot be read, cut or understood.
        """
        self._dialect = dialect
        self._bytes_done = 0
        encoding = settled_encoding(spool.blocks(may_be_wide=True), dialect.encoding)
        self._records = read_records(self._watched(spool.blocks(may_be_wide=True)), dialect, encoding)
        self.header = self._understood_header(source, spool.file_name)

    def check(self, door: Door) -> Iterator[Checked]:
        """Check all records, batch by batch."""
        has_comma = self._dialect.decimal == ","
        numbers = {place for place, column in enumerate(door.layout) if has_comma and isinstance(column, Decimal)}
        while batch := list(islice(self._records, RECORDS_AT_A_TIME)):
            numbered_lines = []
            unread = []
            for record in batch:
                if isinstance(record, Record):
                    fields = _with_points(record.fields, numbers) if numbers else record.fields
                    numbered_lines.append((record.line_number, canonical_line(fields)))
                else:
                    unread.append(_unread(record, door))
            checked = door.check(numbered_lines, self._bytes_done)
            rejected = sorted(checked.rejected + unread, key=lambda line: line.line_number)
            yield replace(checked, rejected=rejected)

    def _watched(self, blocks: Blocks) -> Iterator[tuple[bytes, int]]:
        for block, self._bytes_done in blocks:
            yield block, self._bytes_done

    def _understood_header(self, source: Source, file_name: str) -> Header:
        if self._dialect.columns:
            return understand_header(canonical_line(list(self._dialect.columns)), source, file_name, "--columns")
        first = next(self._records, None)
        if first is None:
            raise UserError(f"{file_name} holds no rows: deliver it again.")
        where = f"line {first.line_number}"
        if not isinstance(first, Record):
            raise UserError(
                f"{file_name}, {where}: the header cannot be read ({first.rejection.detail}): name the columns with "
                "--columns and leave the header out with --skip-lines."
            )
        if len(first.fields) == 1:
            raise UserError(
                f"{file_name}, {where}: the header is not cut by '{self._dialect.delimiter}': pass the file's "
                "--delimiter, and --skip-lines if something stands before the header."
            )
        return understand_header(canonical_line(first.fields), source, file_name, where)


def canonical_line(fields: list[str]) -> bytes:
    """The line of these fields in UTF-8, with commas, quoted where need be; without a line end."""
    line = ",".join(fields)
    if '"' in line or "\n" in line or "\r" in line or line.count(",") >= len(fields):
        line = ",".join(map(_quoted, fields))
    return line.encode()


def _quoted(field: str) -> str:
    if any(mark in field for mark in ',"\r\n'):
        return '"' + field.replace('"', '""') + '"'
    return field


def _with_points(fields: list[str], numbers: Set[int]) -> list[str]:
    """The fields, those of numbers with a decimal point. Both marks are swapped, so that a point that stood there for
    thousands is turned away."""
    return [field.translate(SWAPPED_MARKS) if place in numbers else field for place, field in enumerate(fields)]


def _unread(line: RejectedLine, door: Door) -> RejectedLine:
    """The line as it may be kept: not at all if it may be about somebody who asked to be forgotten."""
    if door.is_suppressed and door.is_suppressed(people_of(line.line, (), door.source).ids):
        return replace(line, line=b"", is_suppressed=True)
    return line
