"""The shop's simulator: monthly event logs in the REES46 shape, of any size, with planted truth.

Here live the entry, `simulate`, and the limits of its arguments. The parts live in `simulation`: `months`, `customers`,
`catalogue`, `sessions`, `events`, `dirt`, `blocks`, `rendering`, `files`, `manifest`. Not here or there: reading,
checking or loading such files, and the command line. Nothing is copied from the real log: names are invented, only its
shape (columns, id lengths, spellings) is followed.

How it works: a month's sessions are planned first (who, when, how many events), then played in blocks ordered by time,
soiled, rendered as CSV lines and compressed by a second thread, while a tally counts what is written.

Why the manifest is exact: a user's sessions lie more than 30 minutes apart and the events of a session at least one
second apart, so no two clean rows share (event_time, user_id, product_id, event_type); and every row carries at most
one kind of dirt, counted where it is written.
"""

import dataclasses
import datetime
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ingestion.ecommerce.simulation.blocks import Player
from ingestion.ecommerce.simulation.catalogue import draw_catalogue, product_count_for
from ingestion.ecommerce.simulation.customers import CUSTOMER_TYPES, draw_population
from ingestion.ecommerce.simulation.dirt import (
    ANY_ROW_KINDS,
    DEFAULT_DIRT,
    KINDS,
    NO_DIRT,
    Dirt,
    DirtPlanter,
    duplicate_ratio,
)
from ingestion.ecommerce.simulation.files import MonthFile, WrittenFile
from ingestion.ecommerce.simulation.manifest import Tally, write_manifest
from ingestion.ecommerce.simulation.months import calendar_months
from ingestion.ecommerce.simulation.rendering import Renderer
from ingestion.ecommerce.simulation.sessions import plan_months

__all__ = ["CUSTOMER_TYPES", "DEFAULT_DIRT", "KINDS", "NO_DIRT", "Dirt", "Simulation", "simulate"]

# What a user can ask for. Above this many events, a user's sessions would no longer fit apart from one another.
MAX_EVENTS_PER_USER_MONTH: Final = 20_000
MAX_USER_COUNT: Final = 100_000_000
MAX_MONTH_COUNT: Final = 120


@dataclass(frozen=True)
class Simulation:
    """What was written: the files in order of time, data lines in each, wall-clock seconds and where the truth lies."""

    files: tuple[Path, ...]
    row_counts: tuple[int, ...]
    seconds: float
    manifest_path: Path

    @property
    def row_count(self) -> int:
        """Data lines in all files, headers not counted."""
        return sum(self.row_counts)


def simulate(
    out: Path,
    *,
    seed: int,
    user_count: int,
    event_count: int,
    month_count: int,
    start_month: datetime.date = datetime.date(2019, 10, 1),
    dirt: Dirt = DEFAULT_DIRT,
    on_progress: Callable[[int], None] | None = None,
) -> Simulation:
    """Write `month_count` monthly files and `manifest.json` into `out` (made if missing; same names are replaced).

    `event_count` is the exact number of data lines in all files, dirt and duplicates included. Every user has at least
    one event. The same arguments give the same bytes. `start_month` may be any day of the first month. `on_progress`
    gets the number of rows written so far. Files appear under their names only when complete, the manifest last.

    Raises ValueError, with one sentence, for arguments that make no sense together.
    Source: requirements E1 (shape), E3, E4 and E18 (dirt), E6 (sessions), E10 (customer types).
    """
    _check_arguments(seed, user_count, event_count, month_count, dirt)
    started_at = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    manifest_path = out / "manifest.json"
    manifest_path.unlink(missing_ok=True)  # an older one must not vouch for newer files
    rng = np.random.default_rng(seed)
    months = calendar_months(start_month, month_count)
    duplicate_count = min(round(event_count * duplicate_ratio(dirt)), event_count - user_count)
    population = draw_population(rng, user_count, months)
    catalogue = draw_catalogue(rng, product_count_for(event_count), months)
    planter = DirtPlanter(rng, dirt, clean_count=event_count - duplicate_count, duplicate_count=duplicate_count)
    player = Player(rng, population, catalogue, planter)
    tally = Tally(user_count, catalogue)
    renderer = Renderer(rng, seed, population, catalogue)
    plans = plan_months(rng, population, months, event_count - duplicate_count)

    files: list[WrittenFile] = []
    with ThreadPoolExecutor(max_workers=1) as thread:
        for month, sessions in plans:
            tally.open_file(len(sessions.user))
            with MonthFile(out / month.file_name, thread) as file:
                for events in player.play(month, sessions):
                    tally.count(events)
                    file.write(renderer.render(events, month))
                    if on_progress is not None:
                        on_progress(tally.row_count)
            files.append(file.written())
    assert tally.row_count == event_count

    parameters = {
        "user_count": user_count,
        "event_count": event_count,
        "month_count": month_count,
        "start_month": months[0].first_day.isoformat(),
        "dirt": dataclasses.asdict(dirt),
    }
    write_manifest(manifest_path, seed, parameters, months, files, population, catalogue, tally)
    return Simulation(
        files=tuple(file.path for file in files),
        row_counts=tuple(int(counts.sum()) for counts in tally.kind_counts),
        seconds=time.perf_counter() - started_at,
        manifest_path=manifest_path,
    )


def _check_arguments(seed: int, user_count: int, event_count: int, month_count: int, dirt: Dirt) -> None:
    if seed < 0:
        raise ValueError(f"The seed must be 0 or more, not {seed}.")
    if not 1 <= user_count <= MAX_USER_COUNT:
        raise ValueError(f"The number of users must lie between 1 and {MAX_USER_COUNT:,}, not {user_count:,}.")
    if not 1 <= month_count <= MAX_MONTH_COUNT:
        raise ValueError(f"The number of months must lie between 1 and {MAX_MONTH_COUNT}, not {month_count:,}.")
    if event_count < user_count:
        raise ValueError(
            f"Every user has at least one event: {event_count:,} events are too few for {user_count:,} users."
        )
    if event_count > user_count * month_count * MAX_EVENTS_PER_USER_MONTH:
        raise ValueError(
            f"{event_count:,} events are too many for {user_count:,} users in {month_count} months: "
            f"at most {MAX_EVENTS_PER_USER_MONTH:,} per user and month."
        )
    rates = dataclasses.asdict(dirt)
    if min(rates.values()) < 0 or max(rates.values()) > 1:
        raise ValueError("Each share of dirt must lie between 0 and 1.")
    if sum(rates[kind] for kind in ANY_ROW_KINDS) + duplicate_ratio(dirt) > 0.5:
        raise ValueError("The shares of dirt must not exceed 0.5 together, or too few clean rows are left.")
