"""The public data set whose shape the shop's log has: where its seven months lie, and what they need.

Addresses and sizes are those of the data set's page (kaggle.com/datasets/mkechinov/ecommerce-behavior-data-from-multi-
category-store), which states sizes in GiB; rows are as counted by people who loaded all seven, and add up to
411,709,736. Nothing is fetched here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

FOLDER = "https://data.rees46.com/datasets/marketplace/"
GIB = 2**30


@dataclass(frozen=True)
class Month:
    """A file of the data set; `size_gib` is that of the gzipped file, rounded as its page has it."""

    name: str
    size_gib: float
    row_count: int

    @property
    def url(self) -> str:
        return f"{FOLDER}{self.name}.csv.gz"


MONTHS = (
    Month("2019-Oct", 1.62, 42_448_764),
    Month("2019-Nov", 2.69, 67_501_979),
    Month("2019-Dec", 2.74, 67_542_878),
    Month("2020-Jan", 2.23, 55_967_041),
    Month("2020-Feb", 2.19, 55_318_565),
    Month("2020-Mar", 2.25, 56_341_241),
    Month("2020-Apr", 2.73, 66_589_268),
)


@dataclass(frozen=True)
class PerRow:
    """What an event takes: bytes of disk at rest and, in all, at the worst moment of a build; seconds to build."""

    measured_rows: int
    raw_bytes: float
    built_bytes: float
    marts_bytes: float
    peak_bytes: float
    build_seconds: float


@dataclass(frozen=True)
class Need:
    """What months need, in GiB and seconds. `peak_gib` holds all the others but the download."""

    row_count: int
    download_gib: float
    spool_gib: float
    raw_gib: float
    built_gib: float
    marts_gib: float
    peak_gib: float
    land_seconds: float
    build_seconds: float

    @property
    def disk_gib(self) -> float:
        """The most that is needed at once: landing has a download on the disk, building its peak."""
        return max(self.peak_gib, self.raw_gib + self.spool_gib)


def need(months: Sequence[Month], per_row: PerRow, land_rows_per_second: float) -> Need:
    """What to have ready for `months`, in proportion to their rows; downloads lie on the disk one at a time."""
    row_count = sum(month.row_count for month in months)
    return Need(
        row_count=row_count,
        download_gib=sum(month.size_gib for month in months),
        spool_gib=max((month.size_gib for month in months), default=0.0),
        raw_gib=row_count * per_row.raw_bytes / GIB,
        built_gib=row_count * per_row.built_bytes / GIB,
        marts_gib=row_count * per_row.marts_bytes / GIB,
        peak_gib=row_count * per_row.peak_bytes / GIB,
        land_seconds=row_count / land_rows_per_second,
        build_seconds=row_count * per_row.build_seconds,
    )


def months_that_fit(per_row: PerRow, free_gib: float) -> int:
    """How many months, from the first on, `free_gib` of disk are enough for."""
    return sum(need(MONTHS[:count], per_row, 1.0).disk_gib <= free_gib for count in range(1, len(MONTHS) + 1))
