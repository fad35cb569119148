"""The planted customers: the types, and each user's propensities drawn around the centre of a type.

Not here: when they come (`sessions`) and what they do then (`events`).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from ingestion.ecommerce.simulation.draws import Array, Rng, beta, lognormal
from ingestion.ecommerce.simulation.months import SLOT_SECONDS, Month


@dataclass(frozen=True)
class CustomerType:
    """The centre that users of a planted type are drawn around; each user deviates from it, so that types overlap."""

    name: str
    share: float
    session_rate: float  # sessions, relative to the other types
    session_length: float  # events per session, relative to the other types
    cart_ratio: float  # looks that end in the cart
    purchase_ratio: float  # carts that are bought
    removal_ratio: float  # carts not bought that are emptied
    price_tilt: float  # 1 takes products as popular as they are, above 1 dearer ones, below 1 cheaper ones
    category_count: float  # categories the user cares for
    active_ratio: float  # part of the simulated period in which the user comes


CUSTOMER_TYPES: Final = (
    CustomerType("Occasional Spender", 0.38, 0.6, 0.8, 0.22, 0.60, 0.12, 0.70, 2.0, 0.45),
    CustomerType("Window Shopper", 0.30, 1.2, 1.4, 0.03, 0.12, 0.30, 1.00, 6.0, 0.55),
    CustomerType("Loyal Customer", 0.15, 2.8, 0.8, 0.32, 0.75, 0.08, 0.85, 4.0, 0.93),
    CustomerType("Heavy Cart User", 0.10, 1.5, 1.3, 0.65, 0.12, 0.70, 0.95, 5.0, 0.65),
    CustomerType("Top Spender", 0.07, 2.3, 1.2, 0.50, 0.75, 0.08, 9.00, 5.5, 0.85),
)
FAVOURITE_COUNT: Final = 16


@dataclass(frozen=True)
class Population:
    """One entry per user: who they are, and the propensities drawn around the centre of their type."""

    raw_id: Array
    type_index: Array
    session_rate: Array
    session_length: Array
    cart_ratio: Array
    purchase_ratio: Array
    removal_ratio: Array
    price_tilt: Array
    category_count: Array
    favourites: Array  # (users, FAVOURITE_COUNT) draws in [0, 1) from the popularity of categories
    first_day: Array  # fractional days of the simulated period
    active_days: Array
    phase_seconds: Array  # where this user's slots begin

    @property
    def size(self) -> int:
        return len(self.raw_id)


def draw_population(rng: Rng, user_count: int, months: list[Month]) -> Population:
    """Users of all types, in the types' shares, active within the months."""
    type_index = _draw_type_indexes(rng, user_count)
    day_count = months[-1].first_day_index + months[-1].day_count

    def centre(field: str) -> Array:
        return np.array([getattr(kind, field) for kind in CUSTOMER_TYPES])[type_index]

    category_count = np.rint(lognormal(rng, centre("category_count"), 0.35))
    active_days = np.maximum(beta(rng, centre("active_ratio"), 6.0) * day_count, min(3, day_count))
    return Population(
        raw_id=_draw_raw_ids(rng, user_count),
        type_index=type_index,
        session_rate=lognormal(rng, centre("session_rate"), 0.55),
        session_length=lognormal(rng, centre("session_length"), 0.25),
        cart_ratio=beta(rng, centre("cart_ratio"), 14.0).astype(np.float32),
        purchase_ratio=beta(rng, centre("purchase_ratio"), 9.0).astype(np.float32),
        removal_ratio=beta(rng, centre("removal_ratio"), 9.0).astype(np.float32),
        price_tilt=lognormal(rng, centre("price_tilt"), 0.35).astype(np.float32),
        category_count=np.clip(category_count, 1, FAVOURITE_COUNT).astype(np.uint8),
        favourites=rng.random((user_count, FAVOURITE_COUNT), dtype=np.float32),
        first_day=rng.random(user_count) * (day_count - active_days),
        active_days=active_days,
        phase_seconds=rng.integers(0, SLOT_SECONDS, user_count),
    )


def _draw_type_indexes(rng: Rng, user_count: int) -> Array:
    """Types in their shares as exactly as whole users allow, shuffled."""
    borders = np.cumsum([kind.share for kind in CUSTOMER_TYPES])
    places = (np.arange(user_count) + 0.5) / user_count
    return rng.permutation(np.minimum(np.searchsorted(borders, places), len(CUSTOMER_TYPES) - 1).astype(np.uint8))


def _draw_raw_ids(rng: Rng, user_count: int) -> Array:
    """Distinct ids of 9 digits, shuffled so that their order tells nothing."""
    widest_gap = min(9, 499_999_999 // user_count)
    return rng.permutation(500_000_000 + np.cumsum(rng.integers(1, widest_gap + 1, user_count)))
