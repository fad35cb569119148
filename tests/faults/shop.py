"""The shop whose files the fault tests land; made by the fixture `shop`."""

from dataclasses import dataclass
from pathlib import Path

MONTHS = ("2019-Oct", "2019-Nov", "2019-Dec")


@dataclass(frozen=True)
class Shop:
    """Three months of a simulated shop."""

    october: Path
    november: Path
    december: Path

    @property
    def months(self) -> tuple[Path, Path, Path]:
        return self.october, self.november, self.december
