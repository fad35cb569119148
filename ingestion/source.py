"""What the landing has to know about a source: its columns, its periods, its file names and where its rows go.

A source is a value, not code that runs: `ingestion/<domain>/source.py` writes one down, the loader does the rest.
Reading a file, checking its lines and talking to the database live elsewhere (`spool`, `door`, `landing`, `loader`).
"""

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from warehouse.errors import UserError

BIGGEST_BIGINT = 2**63 - 1
BLANKS = " \t"
# generous: a brand with an at sign in it is turned away rather than a person's address let in
EMAIL = re.compile(r"[^\s@]\s*(?:@|%40)+\s*[^\s@]", re.IGNORECASE)


@dataclass(frozen=True, order=True)
class Period:
    """The stretch of time a file is about: `start` included, `end` left out, both UTC; `text` names it."""

    text: str
    start: datetime
    end: datetime


@dataclass(frozen=True)
class Rejection:
    """Why a line is turned away: `detail` names column and rule, never the value; `hint` is the period it fits."""

    error_code: str
    detail: str
    hint: str | None = None


@dataclass(frozen=True)
class Column(ABC):
    """One canonical column: how a delivered text becomes a value (`read`, the truth) and which bytes plainly are one.

    `read` gives the text Postgres is to read, None for a missing value, or the reason to turn the line away.
    `plain` gives a regular expression of bytes that COPY may take unchanged: whatever it matches, `read` accepts,
    and Postgres makes the same value of both. None means that no bytes are plainly good.
    """

    sql_type: ClassVar[str]
    name: str

    @abstractmethod
    def read(self, text: str, period: Period) -> str | Rejection | None: ...

    @abstractmethod
    def plain(self, period: Period) -> bytes | None: ...


@dataclass(frozen=True)
class Text(Column):
    """Any text, as delivered, but none that holds an e-mail address; empty is missing."""

    sql_type: ClassVar[str] = "text"

    def read(self, text: str, period: Period) -> str | Rejection | None:
        if EMAIL.search(unicodedata.normalize("NFKC", text)):
            return Rejection("personal_data", f"{self.name} holds an e-mail address")
        return text or None

    def plain(self, period: Period) -> bytes | None:
        return rb'[^\x00-\x1f"%,;@|\x7f-\xff]{0,255}'


@dataclass(frozen=True)
class Choice(Column):
    """One of a few words, spelt exactly so."""

    sql_type: ClassVar[str] = "text"
    words: tuple[str, ...]

    def read(self, text: str, period: Period) -> str | Rejection | None:
        if text in self.words:
            return text
        return Rejection(f"unknown_{self.name}", f"{self.name} is not one of {', '.join(self.words)}")

    def plain(self, period: Period) -> bytes | None:
        return b"(?:" + b"|".join(re.escape(word).encode() for word in self.words) + b")"


@dataclass(frozen=True)
class WholeNumber(Column):
    """A whole number of 64 bits, written in ASCII digits; blanks around, a sign and leading zeros are tolerated."""

    sql_type: ClassVar[str] = "bigint"
    required: bool = False

    def read(self, text: str, period: Period) -> str | Rejection | None:
        text = text.strip(BLANKS)
        if not text:
            return Rejection(f"empty_{self.name}", f"{self.name} is empty") if self.required else None
        if is_scientific(text):
            return Rejection("scientific_notation", f"{self.name} is in a spreadsheet's scientific notation")
        number = whole_number(text)
        if number is None:
            return Rejection("not_a_number", f"{self.name} is not a whole number of 64 bits")
        return str(number)

    def plain(self, period: Period) -> bytes | None:
        # 19 digits that begin with 9 may be too many for 64 bits: those are for `read`
        number = rb"(?:[0-8][0-9]{18}|[0-9]{1,18})"
        return number if self.required else number + b"?"


@dataclass(frozen=True)
class Decimal(Column):
    """A plain decimal number of at most 18 digits on either side of the point; neither exponent, NaN nor Infinity."""

    sql_type: ClassVar[str] = "numeric"

    def read(self, text: str, period: Period) -> str | Rejection | None:
        text = text.strip(BLANKS)
        if not text:
            return None
        if not re.fullmatch(r"[+-]?(?:[0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})", text):
            return Rejection("not_a_number", f"{self.name} is not a plain decimal number")
        return text

    def plain(self, period: Period) -> bytes | None:
        return rb"(?:-?[0-9]{1,18}(?:\.[0-9]{1,18})?)?"


@dataclass(frozen=True)
class Uuid(Column):
    """A uuid of 32 hexadecimal digits, in groups of 8-4-4-4-12 or in one; upper case is tolerated."""

    sql_type: ClassVar[str] = "uuid"
    required: bool = False

    def read(self, text: str, period: Period) -> str | Rejection | None:
        text = text.strip(BLANKS)
        if not text:
            return Rejection(f"empty_{self.name}", f"{self.name} is empty") if self.required else None
        if not re.fullmatch(r"[0-9a-fA-F]{8}(-?)[0-9a-fA-F]{4}\1[0-9a-fA-F]{4}\1[0-9a-fA-F]{4}\1[0-9a-fA-F]{12}", text):
            return Rejection("invalid_uuid", f"{self.name} is not a uuid")
        return text.lower()

    def plain(self, period: Period) -> bytes | None:
        uuid = rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
        return uuid if self.required else b"(?:" + uuid + b")?"


@dataclass(frozen=True)
class Moment(Column):
    """A moment with its zone ("2019-10-01 00:00:00 UTC", "2025-10-08T18:00:00.5+02:00") within the file's period."""

    sql_type: ClassVar[str] = "timestamptz"

    def read(self, text: str, period: Period) -> str | Rejection | None:
        moment = moment_of(text.strip(BLANKS))
        if moment is None:
            return Rejection("invalid_timestamp", f"{self.name} is not a date and time with its zone")
        if not period.start <= moment < period.end:
            precision = "%Y-%m-%d" if period.end - period.start <= timedelta(days=1) else "%Y-%m"
            return Rejection("outside_period", f"{self.name} lies outside {period.text}", moment.strftime(precision))
        return moment.strftime("%Y-%m-%d %H:%M:%S.%f+00")

    def plain(self, period: Period) -> bytes | None:
        last = period.end - timedelta(days=1)
        whole_days = all(moment.time() == datetime.min.time() for moment in (period.start, period.end))
        if not whole_days or (period.start.year, period.start.month) != (last.year, last.month):
            return None
        days = b"|".join(b"%02d" % day for day in range(period.start.day, last.day + 1))
        month = period.start.strftime("%Y-%m").encode()
        return month + b"-(?:" + days + rb") (?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9] UTC"


@dataclass(frozen=True)
class Limit:
    """A reason that tells against the whole file once `share_ratio` of its rows have it; `remedy` may use {hint}."""

    error_code: str
    share_ratio: float
    remedy: str


@dataclass(frozen=True)
class Source:
    """One kind of file and the raw table it lands in.

    `columns` stand in canonical order; `person` is the one a pseudonym replaces, `time` the one rows are sliced by.
    When nothing has landed for `late_after`, the source is late, after `stale_after` it is stale and people are told.
    `period_of_file` gives None for a name that states no period; `period_of_text` raises UserError for a bad one.
    """

    name: str
    raw_table: tuple[str, str]
    users_table: tuple[str, str]
    columns: tuple[Column, ...]
    person: str
    time: str
    file_names: str
    period_of_file: Callable[[str], Period | None]
    period_of_text: Callable[[str], Period]
    limits: tuple[Limit, ...]
    late_after: timedelta
    stale_after: timedelta

    @property
    def domain(self) -> str:
        return self.name.split(".")[0]


def sources() -> dict[str, Source]:
    """All sources by name."""
    # a source is written in terms of this module, so it cannot be imported above
    from ingestion.ecommerce.source import EVENTS

    return {source.name: source for source in (EVENTS,)}


def source_named(name: str) -> Source:
    """The source of that name; UserError, listing those there are, for an unknown one."""
    known = sources()
    if name not in known:
        raise UserError(f"There is no source '{name}'. Known sources: {', '.join(sorted(known))}.")
    return known[name]


def whole_number(text: str) -> int | None:
    """The 64-bit whole number that `text` is, or None: ASCII digits, a sign and leading zeros allowed."""
    if not re.fullmatch(r"[+-]?[0-9]{1,40}", text):
        return None
    number = int(text)
    return number if -BIGGEST_BIGINT - 1 <= number <= BIGGEST_BIGINT else None


def is_scientific(text: str) -> bool:
    """Whether `text` is a number a spreadsheet has shortened: 5.41E+08, or 2,10381E+18 where the comma is decimal."""
    return re.fullmatch(r"[+-]?[0-9]+(?:[.,][0-9]+)?[eE][+-]?[0-9]+", text) is not None


def moment_of(text: str) -> datetime | None:
    """The moment in UTC that `text` states with its zone, or None. Neither 24:00:00 nor a leap second is one."""
    parts = re.fullmatch(
        r"([0-9]{4})-([0-9]{2})-([0-9]{2})[ T]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,6}))?"
        r"(?: ?(?:UTC|Z)|([+-])([0-9]{2}):?([0-9]{2})?)",
        text,
    )
    if parts is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in parts.groups()[:6])
    microsecond = int((parts[7] or "0").ljust(6, "0"))
    zone_hours, zone_minutes = int(parts[9] or 0), int(parts[10] or 0)
    if zone_hours > 15 or zone_minutes > 59:
        return None
    offset = timedelta(hours=zone_hours, minutes=zone_minutes) * (-1 if parts[8] == "-" else 1)
    try:
        return datetime(year, month, day, hour, minute, second, microsecond, tzinfo=UTC) - offset
    except (ValueError, OverflowError):
        return None
