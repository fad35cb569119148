"""What happens in a session: how its seconds pass, which products are looked at, and what becomes of each look.

Not here: the order of events across sessions (`blocks`), dirt (`dirt`) and the course of prices (`catalogue`).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from ingestion.ecommerce.simulation.catalogue import QUANTILE_COUNT, Catalogue, after_category_changes, prices_cents
from ingestion.ecommerce.simulation.customers import Population
from ingestion.ecommerce.simulation.draws import Array, Rng
from ingestion.ecommerce.simulation.sessions import MAX_SESSION_SECONDS, Sessions

EVENT_TYPES: Final = ("view", "cart", "remove_from_cart", "remove", "purchase")
VIEW, CART, REMOVE_FROM_CART, REMOVE, PURCHASE = range(len(EVENT_TYPES))
MAX_GAP_SECONDS: Final = 1_799
NEAR_TIMEOUT_GAP_SECONDS: Final = 1_740
NEAR_TIMEOUT_RATIO: Final = 0.001
# A "look" is a run of consecutive events on one product.
NEW_LOOK_RATIO: Final = 0.38
DIRECT_PURCHASE_RATIO: Final = 0.03
REMOVE_SPELLING_RATIO: Final = 0.3
# What a look becomes: the event type by position in the look (the last one holds for all later positions).
LOOK_OUTCOMES: Final = np.array(
    [
        (VIEW, VIEW, VIEW, VIEW),
        (VIEW, CART, VIEW, VIEW),
        (VIEW, CART, PURCHASE, VIEW),
        (VIEW, CART, REMOVE_FROM_CART, VIEW),
        (VIEW, CART, REMOVE, VIEW),
        (VIEW, PURCHASE, VIEW, VIEW),
    ],
    dtype=np.uint8,
)
BROWSED, ABANDONED, BOUGHT, REMOVED, REMOVED_SHORT, BOUGHT_DIRECTLY = range(len(LOOK_OUTCOMES))


@dataclass(frozen=True)
class Events:
    """One entry per row to be written."""

    second: Array
    user: Array
    product: Array  # row of the catalogue
    event_type: Array
    price_cents: Array
    session: Array
    kind: Array

    def __len__(self) -> int:
        return len(self.second)

    def take(self, rows: Array) -> "Events":
        """These rows, in this order."""
        return Events(**{name: column[rows] for name, column in vars(self).items()})

    def followed_by(self, other: "Events") -> "Events":
        """Both, one after the other."""
        mine, others = vars(self), vars(other)
        return Events(**{name: np.concatenate([mine[name], others[name]]) for name in mine})


def no_events() -> Events:
    """No rows, columns typed as those of other events."""
    whole = np.empty(0, dtype=np.int64)
    small = np.empty(0, dtype=np.uint8)
    return Events(whole, whole, whole, small, whole, whole, small)


def play_sessions(rng: Rng, population: Population, catalogue: Catalogue, sessions: Sessions) -> Events:
    """All events of the sessions, session by session, clean, priced in cents."""
    lengths = sessions.event_count
    event_count = int(lengths.sum())
    session_index = np.repeat(np.arange(len(lengths)), lengths)
    first_event = np.cumsum(lengths) - lengths
    second = sessions.start_second[session_index] + _draw_elapsed_seconds(rng, lengths, session_index, first_event)

    is_new_look = rng.random(event_count, dtype=np.float32) < NEW_LOOK_RATIO
    is_new_look[first_event] = True
    look_start = np.flatnonzero(is_new_look)
    look_length = np.diff(look_start, append=event_count)
    look_user = sessions.user[session_index[look_start]]
    look_outcome = _draw_outcomes(rng, population, look_user)
    look_product = _draw_products(rng, population, catalogue, look_user)

    position = np.minimum(np.arange(event_count) - np.repeat(look_start, look_length), LOOK_OUTCOMES.shape[1] - 1)
    product = np.repeat(look_product, look_length)
    return Events(
        second=second,
        user=sessions.user[session_index],
        product=after_category_changes(catalogue, product, second),
        event_type=LOOK_OUTCOMES[np.repeat(look_outcome, look_length), position],
        price_cents=prices_cents(catalogue, product, second),
        session=sessions.number[session_index],
        kind=np.zeros(event_count, dtype=np.uint8),
    )


def _draw_elapsed_seconds(rng: Rng, lengths: Array, session_index: Array, first_event: Array) -> Array:
    """Seconds since the start of the session for each event: gaps of a second to just under 30 minutes."""
    gaps = np.exp(rng.standard_normal(len(session_index), dtype=np.float32) + np.float32(3.5))
    near_timeout = np.flatnonzero(rng.random(len(gaps), dtype=np.float32) < NEAR_TIMEOUT_RATIO)
    gaps[near_timeout] = rng.integers(NEAR_TIMEOUT_GAP_SECONDS, MAX_GAP_SECONDS, len(near_timeout))
    gaps = np.minimum(gaps, MAX_GAP_SECONDS - 1)
    gaps[first_event] = 0
    session_seconds = np.add.reduceat(gaps, first_event, dtype=np.float64)
    room_seconds = MAX_SESSION_SECONDS - lengths
    too_long = session_seconds > room_seconds
    if too_long.any():
        # Squeezed, not cut: a session keeps its number of events.
        factor = np.where(too_long, room_seconds / np.maximum(session_seconds, 1), 1.0)
        gaps = gaps * factor[session_index]
    whole_gaps = gaps.astype(np.int64) + 1
    elapsed = np.cumsum(whole_gaps)
    return np.asarray(elapsed - np.repeat(elapsed[first_event], lengths))


def _draw_outcomes(rng: Rng, population: Population, look_user: Array) -> Array:
    is_carted = rng.random(len(look_user), dtype=np.float32) < population.cart_ratio[look_user]
    fate = rng.random(len(look_user), dtype=np.float32)
    outcome = np.zeros(len(look_user), dtype=np.uint8)
    browsed = np.flatnonzero(~is_carted)
    bought_directly = fate[browsed] < DIRECT_PURCHASE_RATIO * population.purchase_ratio[look_user[browsed]]
    outcome[browsed[bought_directly]] = BOUGHT_DIRECTLY
    carted = np.flatnonzero(is_carted)
    user, fate = look_user[carted], fate[carted]
    purchase_ratio = population.purchase_ratio[user]
    removal_end = purchase_ratio + (1 - purchase_ratio) * population.removal_ratio[user]
    removal = np.where(rng.random(len(carted)) < REMOVE_SPELLING_RATIO, REMOVED_SHORT, REMOVED)
    outcome[carted] = np.where(fate < purchase_ratio, BOUGHT, np.where(fate < removal_end, removal, ABANDONED))
    return outcome


def _draw_products(rng: Rng, population: Population, catalogue: Catalogue, look_user: Array) -> Array:
    """Mostly the user's first favourite categories; within one, dearer products the higher the user's tilt."""
    draw = rng.random(len(look_user), dtype=np.float32)
    choice = (draw * np.sqrt(draw) * population.category_count[look_user]).astype(np.int64)
    category = np.searchsorted(catalogue.category_popularity, population.favourites[look_user, choice])
    quantile = rng.random(len(look_user), dtype=np.float32) ** (1 / population.price_tilt[look_user])
    bucket = np.minimum((quantile * QUANTILE_COUNT).astype(np.int64), QUANTILE_COUNT - 1)
    return catalogue.product_by_quantile[category * QUANTILE_COUNT + bucket].astype(np.int64)
