"""The kinds of dirt, how often each is planted, and which rows it hits.

Not here: what a kind looks like on paper (`rendering`) and its counts (`manifest`).
"""

import dataclasses
from dataclasses import dataclass
from typing import Final

import numpy as np

from ingestion.ecommerce.simulation.draws import Array, Rng
from ingestion.ecommerce.simulation.events import PURCHASE, REMOVE, REMOVE_FROM_CART, VIEW, Events


@dataclass(frozen=True)
class Dirt:
    """Planted dirt: the share of rows of each kind, in the order in which the kinds are numbered.

    Shares are of all rows, but for the three price kinds, which are shares of the event type they name. All together
    the defaults make about 1.3 % of rows wrong, beside the kept oddities.
    """

    # Extra rows, which deduplication drops.
    exact_duplicate: float = 0.0030
    repriced_duplicate: float = 0.0015
    # Broken lines, which the door quarantines.
    cut_short: float = 0.0005
    extra_field: float = 0.0003
    text_for_number: float = 0.0007
    invalid_uuid: float = 0.0005
    invalid_utf8: float = 0.0003
    impossible_date: float = 0.0003
    # Well-formed rows that break a rule.
    null_user: float = 0.0010
    null_product: float = 0.0005
    null_session: float = 0.0010
    foreign_date: float = 0.0010
    negative_price: float = 0.0010
    missing_category: float = 0.0010
    zero_price_purchase: float = 0.0100
    # Oddities that are repaired or kept.
    null_price_removal: float = 0.0200
    zero_price_view: float = 0.0010
    untidy_text: float = 0.0100


DEFAULT_DIRT: Final = Dirt()
NO_DIRT: Final = Dirt(**dict.fromkeys((field.name for field in dataclasses.fields(Dirt)), 0.0))
KINDS: Final = ("clean", *(field.name for field in dataclasses.fields(Dirt)))
KIND: Final = {name: code for code, name in enumerate(KINDS)}
DUPLICATE_KINDS: Final = ("exact_duplicate", "repriced_duplicate")
BROKEN_LINE_KINDS: Final = (
    "cut_short",
    "extra_field",
    "text_for_number",
    "invalid_uuid",
    "invalid_utf8",
    "impossible_date",
)
BROKEN_RULE_KINDS: Final = (
    "null_user",
    "null_product",
    "null_session",
    "foreign_date",
    "negative_price",
    "missing_category",
    "zero_price_purchase",
)
KEPT_KINDS: Final = ("null_price_removal", "zero_price_view", "untidy_text")
# Kinds that only make sense for some event types; the others may hit any row.
KIND_EVENT_TYPES: Final = {
    "zero_price_purchase": (PURCHASE,),
    "null_price_removal": (REMOVE_FROM_CART, REMOVE),
    "zero_price_view": (VIEW,),
}
ANY_ROW_KINDS: Final = tuple(name for name in KINDS[1:] if name not in (*DUPLICATE_KINDS, *KIND_EVENT_TYPES))
IS_VALID_KIND: Final = np.array([name == "clean" or name in KEPT_KINDS for name in KINDS])


def duplicate_ratio(dirt: Dirt) -> float:
    """The share of all rows that repeat another."""
    return dirt.exact_duplicate + dirt.repriced_duplicate


class DirtPlanter:
    """Marks rows with a kind of dirt and adds the duplicates; what a kind looks like on paper is the renderer's."""

    def __init__(self, rng: Rng, dirt: Dirt, *, clean_count: int, duplicate_count: int) -> None:
        self._rng = rng
        self._rates = dataclasses.asdict(dirt)
        self._clean_count = clean_count
        self._duplicate_count = duplicate_count
        self._clean_done = 0
        self._duplicates_done = 0

    def plant(self, events: Events) -> Events:
        """The events, some marked, followed by repeats of some that stay clean."""
        repeated = self._draw_repeated(len(events))
        is_free = np.ones(len(events), dtype=bool)
        is_free[repeated] = False
        kind = self._draw_any_row_kinds(is_free)
        for name, event_types in KIND_EVENT_TYPES.items():
            eligible = np.flatnonzero(np.isin(events.event_type, event_types) & is_free & (kind == 0))
            kind[eligible[self._rng.random(len(eligible)) < self._rates[name]]] = KIND[name]
        marked = dataclasses.replace(events, kind=kind)
        return marked.followed_by(self._repeats(marked.take(repeated)))

    def _draw_repeated(self, event_count: int) -> Array:
        """Rows to repeat: as many as bring the duplicates to their exact total at the last block."""
        self._clean_done += event_count
        due = self._duplicate_count * self._clean_done // self._clean_count
        repeated = self._rng.choice(event_count, due - self._duplicates_done, replace=False)
        self._duplicates_done = due
        return repeated

    def _draw_any_row_kinds(self, is_free: Array) -> Array:
        edges = np.cumsum([self._rates[name] for name in ANY_ROW_KINDS])
        codes = np.array([KIND[name] for name in ANY_ROW_KINDS], dtype=np.uint8)
        draw = self._rng.random(len(is_free), dtype=np.float32)
        hit = np.flatnonzero((draw < edges[-1]) & is_free)
        kind = np.zeros(len(is_free), dtype=np.uint8)
        kind[hit] = codes[np.minimum(np.searchsorted(edges, draw[hit], side="right"), len(codes) - 1)]
        return kind

    def _repeats(self, originals: Events) -> Events:
        exact_ratio = self._rates["exact_duplicate"]
        total_ratio = exact_ratio + self._rates["repriced_duplicate"]
        is_exact = self._rng.random(len(originals)) * total_ratio < exact_ratio
        rise_cents = self._rng.integers(1, 500, len(originals))
        return dataclasses.replace(
            originals,
            price_cents=originals.price_cents + np.where(is_exact, 0, rise_cents),
            kind=np.where(is_exact, KIND["exact_duplicate"], KIND["repriced_duplicate"]).astype(np.uint8),
        )
