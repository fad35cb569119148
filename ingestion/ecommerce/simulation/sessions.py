"""The plan of a month: who comes when, and for how many events.

Not here: what happens in a session (`events`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from ingestion.ecommerce.simulation.customers import Population
from ingestion.ecommerce.simulation.draws import Array, Rng, lognormal
from ingestion.ecommerce.simulation.months import SLOT_COUNT_PER_DAY, SLOT_SECONDS, Month

# A user opens at most one session per slot, in its first part, so that sessions never touch:
# latest start + longest session + 30 minutes < one slot.
LATEST_START_IN_SLOT_SECONDS: Final = 5_400
MAX_SESSION_SECONDS: Final = 7_190
MAX_SESSION_EVENTS: Final = 7_000
EVENTS_PER_SESSION: Final = 5.5
STRAY_SESSION_RATIO: Final = 0.03
WEEKEND_FACTOR: Final = 1.3
HOUR_WEIGHTS: Final = (3, 2, 1.5, 1.5, 2, 3, 5, 7, 8, 9, 9, 9, 9, 9, 9.5, 10, 11, 12, 12.5, 13, 12, 10, 7, 5)


@dataclass(frozen=True)
class Sessions:
    """One entry per session of a month, ordered by start. `number` is unique over the whole simulation."""

    user: Array
    start_second: Array
    event_count: Array
    number: Array


def plan_months(
    rng: Rng, population: Population, months: list[Month], event_count: int
) -> Iterator[tuple[Month, Sessions]]:
    """Share the events out to months and sessions; every user has a session in one month at least."""
    home_day = population.first_day + rng.random(population.size) * population.active_days
    month_ends = np.array([month.first_day_index + month.day_count for month in months])
    home_month = np.minimum(np.searchsorted(month_ends, home_day, side="right"), len(months) - 1)
    weights = np.array([month.weight for month in months])
    free_event_counts = _shared_out(weights, event_count - population.size)
    next_number = 0
    for index, month in enumerate(months):
        home_users = np.flatnonzero(home_month == index)
        month_event_count = int(free_event_counts[index]) + len(home_users)
        sessions = _draw_sessions(rng, population, month, month_ends[-1], home_users, month_event_count, next_number)
        next_number += len(sessions.user)
        yield month, sessions


def _shared_out(weights: Array, total: int) -> Array:
    """Whole numbers in proportion to the weights that add up to `total` exactly."""
    shares = np.cumsum(weights)
    edges = np.rint(shares / shares[-1] * total).astype(np.int64) if len(weights) else shares.astype(np.int64)
    return np.diff(edges, prepend=0)


def _draw_sessions(
    rng: Rng,
    population: Population,
    month: Month,
    horizon_days: int,
    home_users: Array,
    event_count: int,
    first_number: int,
) -> Sessions:
    more_visitors = _draw_visitors(rng, population, month, horizon_days, home_users, event_count)
    visitors = np.concatenate([home_users, more_visitors])
    slot = _draw_slots(rng, population, month, visitors)
    # Two visits of a user in one slot are one session.
    slot_count = month.day_count * SLOT_COUNT_PER_DAY
    user, slot = np.divmod(np.unique(visitors * slot_count + slot), slot_count)
    start = month.start_second + slot * SLOT_SECONDS + population.phase_seconds[user]
    start += rng.integers(0, LATEST_START_IN_SLOT_SECONDS, len(user))
    order = np.argsort(start, kind="stable")
    user, start = user[order], start[order]
    weights = lognormal(rng, population.session_length[user], 0.7)
    lengths = 1 + _shared_out(weights, event_count - len(user))
    if len(lengths) and lengths.max() > MAX_SESSION_EVENTS:
        raise ValueError("There are too many events for so few users: their sessions would run into one another.")
    return Sessions(user, start, lengths, first_number + np.arange(len(user)))


def _draw_visitors(
    rng: Rng, population: Population, month: Month, horizon_days: int, home_users: Array, event_count: int
) -> Array:
    """Users who come this month, once per visit, beside the home users' sure visit; at most one visit per event."""
    room = event_count - len(home_users)
    if room == 0:
        return np.empty(0, dtype=np.int64)
    first, last = _active_part(population, month)
    expected = population.session_rate * (
        (last - first) / population.active_days + STRAY_SESSION_RATIO * month.day_count / horizon_days
    )
    wanted = max(event_count / EVENTS_PER_SESSION - len(home_users), 0.0)
    visitors = np.repeat(np.arange(population.size), rng.poisson(expected * (wanted / expected.sum())))
    if len(visitors) > room:
        return rng.choice(visitors, room, replace=False)
    if len(visitors) + len(home_users) == 0:
        return rng.integers(0, population.size, 1)
    return visitors


def _active_part(population: Population, month: Month, user: Array | slice = slice(None)) -> tuple[Array, Array]:
    """The part of the month in which the users come, in days from its start; empty if last equals first."""
    begin = population.first_day[user] - month.first_day_index
    first = np.clip(begin, 0, month.day_count)
    return first, np.clip(begin + population.active_days[user], first, month.day_count)


def _draw_slots(rng: Rng, population: Population, month: Month, visitors: Array) -> Array:
    """A slot of the month for each visit: within the user's active part but for strays, by weekday and hour."""
    first, last = _active_part(population, month, visitors)
    is_stray = (last <= first) | (rng.random(len(visitors)) < STRAY_SESSION_RATIO)
    first[is_stray], last[is_stray] = 0, month.day_count
    weights = _cumulated_day_weights(month)
    days = np.arange(month.day_count + 1)
    low, high = np.interp(first, days, weights), np.interp(last, days, weights)
    day = np.interp(low + rng.random(len(visitors)) * (high - low), weights, days).astype(np.int64)
    day = np.minimum(day, month.day_count - 1)
    slot_shares = _cumulated_slot_shares()[population.phase_seconds[visitors] // 3_600]
    slot = (rng.random(len(visitors))[:, None] >= slot_shares).sum(axis=1)
    slot = day * SLOT_COUNT_PER_DAY + np.minimum(slot, SLOT_COUNT_PER_DAY - 1)
    # In the last month the last slot could run past the end.
    last_slot = month.day_count * SLOT_COUNT_PER_DAY - (2 if month.is_last else 1)
    return np.asarray(np.minimum(slot, last_slot))


def _cumulated_day_weights(month: Month) -> Array:
    weekdays = (month.first_day.weekday() + np.arange(month.day_count)) % 7
    return np.concatenate([[0.0], np.cumsum(np.where(weekdays >= 5, WEEKEND_FACTOR, 1.0))])


def _cumulated_slot_shares() -> Array:
    """(hour in which the slots begin, slot) -> cumulated share of sessions."""
    slot_hours = SLOT_SECONDS // 3_600
    weights = np.array(HOUR_WEIGHTS).reshape(SLOT_COUNT_PER_DAY, slot_hours).T
    return np.asarray(np.cumsum(weights, axis=1) / weights.sum(axis=1, keepdims=True))
