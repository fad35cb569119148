"""The shop's event log: monthly or daily files `YYYY-Mon[-DD][.part].csv[.gz]` of the REES46 layout."""

import re
from datetime import UTC, datetime, timedelta

from ingestion.source import Choice, Decimal, Limit, Moment, Period, Source, Text, Uuid, WholeNumber
from warehouse.errors import UserError

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
FILE_NAME = re.compile(
    r"((?:19|20)[0-9]{2})-([a-z]{3})(?:-([0-9]{2}))?(?:\.[\w-]+)?\.csv(?:\.gz)?", re.IGNORECASE | re.ASCII
)


def period_of_file(name: str) -> Period | None:
    """The month or day a file's name states, or None: 2019-Oct.csv.gz, 2019-Oct-15.csv, 2019-Oct.2.csv.gz."""
    parts = FILE_NAME.fullmatch(name)
    if parts is None or parts[2].lower() not in MONTHS:
        return None
    return _period(int(parts[1]), MONTHS.index(parts[2].lower()) + 1, int(parts[3]) if parts[3] else None)


def period_of_text(text: str) -> Period:
    """The month ("2019-10") or day ("2019-10-15") that `text` names; UserError if it names none."""
    parts = re.fullmatch(r"((?:19|20)[0-9]{2})-([0-9]{2})(?:-([0-9]{2}))?", text)
    period = _period(int(parts[1]), int(parts[2]), int(parts[3]) if parts[3] else None) if parts else None
    if period is None:
        raise UserError(f"'{text}' is no period: write a month as 2019-10 or a day as 2019-10-15.")
    return period


def _period(year: int, month: int, day: int | None) -> Period | None:
    try:
        start = datetime(year, month, 1 if day is None else day, tzinfo=UTC)
        if day is not None:
            return Period(f"{start:%Y-%m-%d}", start, start + timedelta(days=1))
        return Period(f"{start:%Y-%m}", start, datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC))
    except (ValueError, OverflowError):
        return None


EVENTS = Source(
    name="ecommerce.events",
    raw_table=("raw_ecommerce", "events"),
    users_table=("raw_ecommerce", "users"),
    columns=(
        Moment("event_time"),
        Choice("event_type", ("view", "cart", "remove_from_cart", "remove", "purchase")),
        WholeNumber("product_id", required=True),
        WholeNumber("category_id"),
        Text("category_code"),
        Text("brand"),
        Decimal("price"),
        WholeNumber("user_id", required=True),
        Uuid("user_session", required=True),
    ),
    person="user_id",
    time="event_time",
    file_names="YYYY-Mon[-DD][.part].csv[.gz]",
    period_of_file=period_of_file,
    period_of_text=period_of_text,
    limits=(
        Limit("outside_period", 0.5, "if this is {hint}'s file, rename it or pass --period {hint}"),
        Limit("scientific_notation", 0.01, "export the file again without a spreadsheet in between"),
    ),
    # delivered every day: one delivery may be missed, two in a row are somebody's business
    late_after=timedelta(hours=26),
    stale_after=timedelta(hours=49),
)
