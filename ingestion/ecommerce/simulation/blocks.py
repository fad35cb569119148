"""A month's sessions played in blocks, their events in order of time across the borders of blocks and months.

Events of a block that happen after the next block's first session wait for that block, so a file comes out sorted while
memory holds one month of sessions and one block of events. Not here: what happens in a session (`events`).
"""

import itertools
from collections.abc import Iterator
from typing import Final

import numpy as np

from ingestion.ecommerce.simulation.catalogue import Catalogue
from ingestion.ecommerce.simulation.customers import Population
from ingestion.ecommerce.simulation.dirt import DirtPlanter
from ingestion.ecommerce.simulation.draws import Rng
from ingestion.ecommerce.simulation.events import Events, no_events, play_sessions
from ingestion.ecommerce.simulation.months import Month
from ingestion.ecommerce.simulation.sessions import Sessions

BLOCK_EVENT_COUNT: Final = 1 << 16


class Player:
    """Plays sessions as events in order of time, across the borders of blocks and months."""

    def __init__(self, rng: Rng, population: Population, catalogue: Catalogue, planter: DirtPlanter) -> None:
        self._rng = rng
        self._population = population
        self._catalogue = catalogue
        self._planter = planter
        self._waiting = no_events()

    def play(self, month: Month, sessions: Sessions) -> Iterator[Events]:
        """Blocks of the month's events; those of its sessions that fall after its end come with the next month."""
        ends = np.cumsum(sessions.event_count)
        block_starts = np.arange(0, ends[-1] if len(ends) else 0, BLOCK_EVENT_COUNT)
        borders = [*np.unique(np.searchsorted(ends, block_starts)).tolist(), len(ends)]
        for first, last in itertools.pairwise(borders):
            block = Sessions(**{name: column[first:last] for name, column in vars(sessions).items()})
            events = self._planter.plant(play_sessions(self._rng, self._population, self._catalogue, block))
            next_start_second = int(sessions.start_second[last]) if last < len(ends) else month.end_second
            yield self._release(events, min(next_start_second, month.end_second))
        yield self._release(no_events(), month.end_second)

    def _release(self, new_events: Events, before_second: int) -> Events:
        """What happens before the given second, in order of time (ties as they came); the rest waits."""
        events = self._waiting.followed_by(new_events)
        # Sorting distinct whole numbers is many times faster than a stable argsort, and gives the same.
        index_bits = 32
        ranked = np.sort((events.second << index_bits) | np.arange(len(events)))
        ready_count = int(np.searchsorted(ranked, before_second << index_bits))
        order = ranked & ((1 << index_bits) - 1)
        self._waiting = events.take(order[ready_count:])
        return events.take(order[:ready_count])
