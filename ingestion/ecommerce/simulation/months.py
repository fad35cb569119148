"""The simulated period: its calendar months, the names of their files, and the slots that a day is cut into.

Not here: who comes when in a month (`sessions`).
"""

import calendar
import datetime
from dataclasses import dataclass
from typing import Final

DAY_SECONDS: Final = 86_400
SLOT_SECONDS: Final = 14_400
SLOT_COUNT_PER_DAY: Final = DAY_SECONDS // SLOT_SECONDS
MONTH_WEIGHTS: Final = (0.9, 0.85, 0.95, 0.95, 0.9, 0.85, 0.85, 0.9, 0.95, 1.0, 1.3, 1.2)
# Not from `calendar`, whose names follow the locale.
_MONTH_NAMES: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True)
class Month:
    """A calendar month and its place in the simulated period, whose first second is 0."""

    first_day: datetime.date
    day_count: int
    first_day_index: int
    is_last: bool

    @property
    def period(self) -> str:
        return f"{self.first_day:%Y-%m}"

    @property
    def file_name(self) -> str:
        return f"{self.first_day.year:04d}-{_MONTH_NAMES[self.first_day.month - 1]}.csv.gz"

    @property
    def start_second(self) -> int:
        return self.first_day_index * DAY_SECONDS

    @property
    def end_second(self) -> int:
        return (self.first_day_index + self.day_count) * DAY_SECONDS

    @property
    def weight(self) -> float:
        return self.day_count * MONTH_WEIGHTS[self.first_day.month - 1]


def calendar_months(start_month: datetime.date, month_count: int) -> list[Month]:
    """Consecutive months; `start_month` may be any day of the first."""
    months = []
    day_index = 0
    for offset in range(month_count):
        year, month = shifted_month(start_month.year, start_month.month, offset)
        day_count = calendar.monthrange(year, month)[1]
        months.append(Month(datetime.date(year, month, 1), day_count, day_index, offset == month_count - 1))
        day_index += day_count
    return months


def shifted_month(year: int, month: int, offset: int) -> tuple[int, int]:
    """Year and month (1 to 12), `offset` months later."""
    years, month_index = divmod(year * 12 + month - 1 + offset, 12)
    return years, month_index + 1
