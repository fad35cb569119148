"""The shop's simulator: monthly event logs in the REES46 shape, of any size, with planted truth.

Here live the planted customers, catalogue, sessions and dirt, their rendering to `YYYY-Mon.csv.gz`, and the manifest
that says exactly what was planted. Not here: reading, checking or loading such files, and the command line. Nothing is
copied from the real log: names are invented, only its shape (columns, id lengths, spellings) is followed.

How it works: a month's sessions are planned first (who, when, how many events), then played in blocks ordered by time.
Events of a block that happen after the next block's first session wait for that block, so a file comes out sorted while
memory holds one month of sessions and one block of events. A block is rendered as a matrix of NUL-padded fields whose
NULs are then squeezed out; a second thread compresses.

Why the manifest is exact: a user's sessions lie more than 30 minutes apart and the events of a session at least one
second apart, so no two clean rows share (event_time, user_id, product_id, event_type); and every row carries at most
one kind of dirt, counted where it is written.
"""

import calendar
import dataclasses
import datetime
import hashlib
import itertools
import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

Array: TypeAlias = npt.NDArray[Any]
Rng: TypeAlias = np.random.Generator

HEADER: Final = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"

# What a user can ask for. Above this many events, a user's sessions would no longer fit apart from one another.
MAX_EVENTS_PER_USER_MONTH: Final = 20_000
MAX_USER_COUNT: Final = 100_000_000
MAX_MONTH_COUNT: Final = 120

# Time. A user opens at most one session per slot, in its first part, so that sessions never touch:
# latest start + longest session + 30 minutes < one slot.
DAY_SECONDS: Final = 86_400
SLOT_SECONDS: Final = 14_400
SLOT_COUNT_PER_DAY: Final = DAY_SECONDS // SLOT_SECONDS
LATEST_START_IN_SLOT_SECONDS: Final = 5_400
MAX_SESSION_SECONDS: Final = 7_190
MAX_SESSION_EVENTS: Final = 7_000
MAX_GAP_SECONDS: Final = 1_799
NEAR_TIMEOUT_GAP_SECONDS: Final = 1_740
NEAR_TIMEOUT_RATIO: Final = 0.001
EVENTS_PER_SESSION: Final = 5.5
STRAY_SESSION_RATIO: Final = 0.03
WEEKEND_FACTOR: Final = 1.3
HOUR_WEIGHTS: Final = (3, 2, 1.5, 1.5, 2, 3, 5, 7, 8, 9, 9, 9, 9, 9, 9.5, 10, 11, 12, 12.5, 13, 12, 10, 7, 5)
MONTH_WEIGHTS: Final = (0.9, 0.85, 0.95, 0.95, 0.9, 0.85, 0.85, 0.9, 0.95, 1.0, 1.3, 1.2)
BLOCK_EVENT_COUNT: Final = 1 << 16

# Products. A "look" is a run of consecutive events on one product.
NEW_LOOK_RATIO: Final = 0.38
DIRECT_PURCHASE_RATIO: Final = 0.03
REMOVE_SPELLING_RATIO: Final = 0.3
QUANTILE_COUNT: Final = 4_096
FAVOURITE_COUNT: Final = 16
CHANGING_PRODUCT_RATIO: Final = 0.005
PRICE_COURSE_COUNT: Final = 251
PRICE_COURSE_WEEKS: Final = 53
WEEK_SECONDS: Final = 7 * DAY_SECONDS

EVENT_TYPES: Final = ("view", "cart", "remove_from_cart", "remove", "purchase")
VIEW, CART, REMOVE_FROM_CART, REMOVE, PURCHASE = range(len(EVENT_TYPES))
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
    months = _months(start_month, month_count)
    duplicate_count = min(round(event_count * _duplicate_ratio(dirt)), event_count - user_count)
    population = _draw_population(rng, user_count, months)
    catalogue = _draw_catalogue(rng, _product_count(event_count), months)
    planter = _DirtPlanter(rng, dirt, clean_count=event_count - duplicate_count, duplicate_count=duplicate_count)
    player = _Player(rng, population, catalogue, planter)
    tally = _Tally(user_count, catalogue)
    renderer = _Renderer(rng, seed, population, catalogue)
    plans = _plan_months(rng, population, months, event_count - duplicate_count)

    files: list[_WrittenFile] = []
    with ThreadPoolExecutor(max_workers=1) as thread:
        for month, sessions in plans:
            tally.open_file(len(sessions.user))
            with _MonthFile(out / month.file_name, thread) as file:
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
    _write_manifest(manifest_path, seed, parameters, months, files, population, catalogue, tally)
    return Simulation(
        files=tuple(file.path for file in files),
        row_counts=tuple(int(counts.sum()) for counts in tally.kind_counts),
        seconds=time.perf_counter() - started_at,
        manifest_path=manifest_path,
    )


# ---------------------------------------------------------------------------------------------------- arguments


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
    if sum(rates[kind] for kind in ANY_ROW_KINDS) + _duplicate_ratio(dirt) > 0.5:
        raise ValueError("The shares of dirt must not exceed 0.5 together, or too few clean rows are left.")


def _duplicate_ratio(dirt: Dirt) -> float:
    return dirt.exact_duplicate + dirt.repriced_duplicate


def _product_count(event_count: int) -> int:
    return min(max(event_count // 40, 600), 40_000)


# ------------------------------------------------------------------------------------------------------- months


@dataclass(frozen=True)
class _Month:
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


# Not from `calendar`, whose names follow the locale.
_MONTH_NAMES: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _months(start_month: datetime.date, month_count: int) -> list[_Month]:
    months = []
    day_index = 0
    for offset in range(month_count):
        year, month = _shifted(start_month.year, start_month.month, offset)
        day_count = calendar.monthrange(year, month)[1]
        months.append(_Month(datetime.date(year, month, 1), day_count, day_index, offset == month_count - 1))
        day_index += day_count
    return months


def _shifted(year: int, month: int, offset: int) -> tuple[int, int]:
    years, month_index = divmod(year * 12 + month - 1 + offset, 12)
    return years, month_index + 1


# ---------------------------------------------------------------------------------------------------- customers


@dataclass(frozen=True)
class _Population:
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


def _draw_population(rng: Rng, user_count: int, months: list[_Month]) -> _Population:
    type_index = _draw_type_indexes(rng, user_count)
    day_count = months[-1].first_day_index + months[-1].day_count

    def centre(field: str) -> Array:
        return np.array([getattr(kind, field) for kind in CUSTOMER_TYPES])[type_index]

    category_count = np.rint(_lognormal(rng, centre("category_count"), 0.35))
    active_days = np.maximum(_beta(rng, centre("active_ratio"), 6.0) * day_count, min(3, day_count))
    return _Population(
        raw_id=_draw_raw_ids(rng, user_count),
        type_index=type_index,
        session_rate=_lognormal(rng, centre("session_rate"), 0.55),
        session_length=_lognormal(rng, centre("session_length"), 0.25),
        cart_ratio=_beta(rng, centre("cart_ratio"), 14.0).astype(np.float32),
        purchase_ratio=_beta(rng, centre("purchase_ratio"), 9.0).astype(np.float32),
        removal_ratio=_beta(rng, centre("removal_ratio"), 9.0).astype(np.float32),
        price_tilt=_lognormal(rng, centre("price_tilt"), 0.35).astype(np.float32),
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


def _lognormal(rng: Rng, median: Array, sigma: float) -> Array:
    return np.asarray(median * np.exp(sigma * rng.standard_normal(len(median))))


def _beta(rng: Rng, mean: Array, concentration: float) -> Array:
    return rng.beta(mean * concentration, (1 - mean) * concentration)


# ---------------------------------------------------------------------------------------------------- catalogue

_DEPARTMENTS: Final = {
    "electronics": ("phone", "headset", "watch", "camera", "reader", "speaker", "projector", "charger"),
    "electronics.screen": ("television", "monitor", "frame"),
    "computing": ("laptop", "desktop", "server", "tablet", "printer", "keyboard", "mouse", "router"),
    "computing.parts": ("memory", "disk", "graphics", "mainboard", "cooler", "case"),
    "kitchen": ("kettle", "toaster", "oven", "hob", "fridge", "freezer", "blender", "grinder", "scale"),
    "household": ("vacuum", "washer", "dryer", "iron", "heater", "fan", "purifier"),
    "furniture.living": ("sofa", "armchair", "shelf", "lamp", "rug"),
    "furniture.sleeping": ("bed", "mattress", "wardrobe", "pillow"),
    "furniture.working": ("desk", "chair", "cabinet"),
    "garden": ("mower", "hose", "grill", "parasol", "bench"),
    "workshop.tools": ("drill", "saw", "sander", "welder", "ladder", "compressor"),
    "wheels": ("tyre", "battery", "dashcam", "radio", "bicycle", "scooter"),
    "clothing": ("coat", "shirt", "trousers", "dress", "underwear"),
    "clothing.shoes": ("boots", "sandals", "trainers", "slippers"),
    "children": ("pram", "toy", "doll", "swing", "puzzle"),
    "outdoors": ("tent", "backpack", "skis", "kayak", "trainer"),
    "bags": ("wallet", "suitcase", "handbag"),
    "pharmacy": ("thermometer", "scales", "massager"),
    "stationery": ("notebook", "pen", "paper"),
}
_UNCODED_CATEGORY_COUNT: Final = 60
_BRAND_COUNT: Final = 300
_BRANDLESS_RATIO: Final = 0.14
_SYLLABLES: Final = ("ba", "dor", "el", "fi", "gan", "ho", "ka", "lun", "mir", "no", "pel", "ra", "sto", "ti", "vex")


@dataclass(frozen=True)
class _Catalogue:
    """Products sorted by category and price, then one further row for each product that changes category.

    `texts` holds, per variant (clean, untidy, invalid UTF-8, without category) and row, the bytes
    `product_id,category_id,category_code,brand,`, the product id padded to PRODUCT_ID_WIDTH.
    """

    product_count: int
    base_price_cents: Array  # per row
    price_courses: Array  # (PRICE_COURSE_COUNT, PRICE_COURSE_WEEKS) factors
    category_popularity: Array  # cumulated, ends at 1
    product_by_quantile: Array  # (categories * QUANTILE_COUNT): popularity quantile, cheap to dear -> row
    changing_products: Array  # rows of the products that change category
    change_seconds: Array  # when they do
    changed_row: Array  # per product: its row after the change, or 0
    product_ids: Array
    texts: dict[str, Array]


PRODUCT_ID_WIDTH: Final = 8


def _draw_catalogue(rng: Rng, product_count: int, months: list[_Month]) -> _Catalogue:
    codes = _category_codes()
    category_ids = 2_050_000_000_000_000_000 + rng.choice(10**12, len(codes), replace=False) * 130_001
    category_weights = rng.permutation(1 / np.arange(1, len(codes) + 1) ** 0.8)
    category = _draw_product_categories(rng, category_weights, product_count)
    centre_cents = np.clip(_lognormal(rng, np.full(len(codes), 9_000.0), 1.0), 600, 120_000)
    price_cents = np.clip(np.rint(_lognormal(rng, centre_cents[category], 0.6)), 100, 500_000).astype(np.int64)
    order = np.lexsort((price_cents, category))
    category, price_cents = category[order], price_cents[order]
    product_ids = rng.permutation(1_000_000 + np.cumsum(rng.integers(1, 1_400, product_count)))
    brands = _draw_product_brands(rng, product_count)

    changing, new_category = _draw_category_changes(rng, category, coded_count=codes.index(""))
    changed_row = np.zeros(product_count, dtype=np.int64)
    changed_row[changing] = product_count + np.arange(len(changing))
    rows = np.concatenate([np.arange(product_count), changing])
    row_category = np.concatenate([category, new_category])
    horizon_seconds = months[-1].end_second
    return _Catalogue(
        product_count=product_count,
        base_price_cents=price_cents[rows],
        price_courses=np.clip(1 + 0.05 * rng.standard_normal((PRICE_COURSE_COUNT, PRICE_COURSE_WEEKS)), 0.8, 1.2),
        category_popularity=_cumulated_shares(category_weights),
        product_by_quantile=_products_by_quantile(rng, category, len(codes)),
        changing_products=changing,
        change_seconds=rng.integers(horizon_seconds // 4, 3 * horizon_seconds // 4, len(changing)),
        changed_row=changed_row,
        product_ids=product_ids,
        texts=_product_texts(
            [str(number) for number in product_ids[rows].tolist()],
            [str(number) for number in category_ids[row_category].tolist()],
            [codes[index] for index in row_category.tolist()],
            [brands[row] for row in rows.tolist()],
        ),
    )


def _draw_category_changes(rng: Rng, category: Array, *, coded_count: int) -> tuple[Array, Array]:
    """Products that change category and their new one: from code to other code, so that code and id both tell."""
    coded = np.flatnonzero(category < coded_count)
    changing_count = max(1, round(len(category) * CHANGING_PRODUCT_RATIO))
    changing = np.sort(rng.choice(coded, changing_count, replace=False))
    return changing, (category[changing] + rng.integers(1, coded_count, changing_count)) % coded_count


def _category_codes() -> list[str]:
    """Dotted codes, then empty ones: as in the real log, many categories have an id and no code."""
    coded = [f"{department}.{item}" for department, items in _DEPARTMENTS.items() for item in items]
    return coded + [""] * _UNCODED_CATEGORY_COUNT


def _cumulated_shares(weights: Array) -> Array:
    """Shares of the total, cumulated; the last is 1 exactly."""
    cumulated = np.cumsum(weights)
    return np.asarray(cumulated / cumulated[-1])


def _draw_product_categories(rng: Rng, category_weights: Array, product_count: int) -> Array:
    """A category per product, each category with at least two products."""
    sure = np.repeat(np.arange(len(category_weights)), 2)
    weights = np.sqrt(category_weights)
    return np.concatenate([sure, rng.choice(len(weights), product_count - len(sure), p=weights / weights.sum())])


def _draw_product_brands(rng: Rng, product_count: int) -> list[str]:
    names = ["".join(_SYLLABLES[part] for part in _digits(number)) for number in range(_BRAND_COUNT)]
    weights = 1 / np.arange(1, _BRAND_COUNT + 1) ** 0.9
    chosen = rng.choice(_BRAND_COUNT, product_count, p=weights / weights.sum())
    chosen[rng.random(product_count) < _BRANDLESS_RATIO] = -1
    return [names[index] if index >= 0 else "" for index in chosen.tolist()]


def _digits(number: int) -> tuple[int, ...]:
    base = len(_SYLLABLES)
    scrambled = number * 1_237 % base**3
    return scrambled // base**2, scrambled // base % base, scrambled % base


def _products_by_quantile(rng: Rng, category: Array, category_count: int) -> Array:
    """Per category, the product at each quantile of popularity, products taken from cheap to dear (Zipf weights)."""
    quantiles = (np.arange(QUANTILE_COUNT) + 0.5) / QUANTILE_COUNT
    starts = np.searchsorted(category, np.arange(category_count + 1))
    table = np.empty((category_count, QUANTILE_COUNT), dtype=np.int32)
    for index in range(category_count):
        first, size = starts[index], starts[index + 1] - starts[index]
        weights = rng.permutation(1 / np.arange(1, size + 1) ** 0.9)
        table[index] = first + np.searchsorted(_cumulated_shares(weights), quantiles)
    return table.reshape(-1)


def _product_texts(
    product_ids: list[str], category_ids: list[str], codes: list[str], brands: list[str]
) -> dict[str, Array]:
    padded_ids = [number.ljust(PRODUCT_ID_WIDTH, "\0") for number in product_ids]
    rows = list(zip(padded_ids, category_ids, codes, brands, strict=True))
    # Each text ends with its comma; the last letters of the invalid one are Latin-1, which no UTF-8 text can hold.
    variants = {
        "clean": [f"{product},{category},{code},{brand},".encode() for product, category, code, brand in rows],
        "untidy_text": [
            f"{product},{category},{_untidy(code)},{brand.upper()} ,".encode()
            for product, category, code, brand in rows
        ],
        "invalid_utf8": [
            f"{product},{category},{code},{brand}".encode() + b"\xe9\xff," for product, category, code, brand in rows
        ],
        "missing_category": [f"{product},,,{brand},".encode() for product, _, _, brand in rows],
    }
    width = max(len(text) for texts in variants.values() for text in texts)
    return {name: np.array(texts, dtype=f"S{width}") for name, texts in variants.items()}


def _untidy(code: str) -> str:
    return f" {code.title()}" if code else ""


# ----------------------------------------------------------------------------------------------------- sessions


@dataclass(frozen=True)
class _Sessions:
    """One entry per session of a month, ordered by start. `number` is unique over the whole simulation."""

    user: Array
    start_second: Array
    event_count: Array
    number: Array


def _plan_months(
    rng: Rng, population: _Population, months: list[_Month], event_count: int
) -> Iterator[tuple[_Month, _Sessions]]:
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
    population: _Population,
    month: _Month,
    horizon_days: int,
    home_users: Array,
    event_count: int,
    first_number: int,
) -> _Sessions:
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
    weights = _lognormal(rng, population.session_length[user], 0.7)
    lengths = 1 + _shared_out(weights, event_count - len(user))
    if len(lengths) and lengths.max() > MAX_SESSION_EVENTS:
        raise ValueError("There are too many events for so few users: their sessions would run into one another.")
    return _Sessions(user, start, lengths, first_number + np.arange(len(user)))


def _draw_visitors(
    rng: Rng, population: _Population, month: _Month, horizon_days: int, home_users: Array, event_count: int
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


def _active_part(population: _Population, month: _Month, user: Array | slice = slice(None)) -> tuple[Array, Array]:
    """The part of the month in which the users come, in days from its start; empty if last equals first."""
    begin = population.first_day[user] - month.first_day_index
    first = np.clip(begin, 0, month.day_count)
    return first, np.clip(begin + population.active_days[user], first, month.day_count)


def _draw_slots(rng: Rng, population: _Population, month: _Month, visitors: Array) -> Array:
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


def _cumulated_day_weights(month: _Month) -> Array:
    weekdays = (month.first_day.weekday() + np.arange(month.day_count)) % 7
    return np.concatenate([[0.0], np.cumsum(np.where(weekdays >= 5, WEEKEND_FACTOR, 1.0))])


def _cumulated_slot_shares() -> Array:
    """(hour in which the slots begin, slot) -> cumulated share of sessions."""
    slot_hours = SLOT_SECONDS // 3_600
    weights = np.array(HOUR_WEIGHTS).reshape(SLOT_COUNT_PER_DAY, slot_hours).T
    return np.asarray(np.cumsum(weights, axis=1) / weights.sum(axis=1, keepdims=True))


# ------------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True)
class _Events:
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

    def take(self, rows: Array) -> "_Events":
        return _Events(**{name: column[rows] for name, column in vars(self).items()})

    def followed_by(self, other: "_Events") -> "_Events":
        mine, others = vars(self), vars(other)
        return _Events(**{name: np.concatenate([mine[name], others[name]]) for name in mine})


def _no_events() -> _Events:
    whole = np.empty(0, dtype=np.int64)
    small = np.empty(0, dtype=np.uint8)
    return _Events(whole, whole, whole, small, whole, whole, small)


class _Player:
    """Plays sessions as events in order of time, across the borders of blocks and months."""

    def __init__(self, rng: Rng, population: _Population, catalogue: _Catalogue, planter: "_DirtPlanter") -> None:
        self._rng = rng
        self._population = population
        self._catalogue = catalogue
        self._planter = planter
        self._waiting = _no_events()

    def play(self, month: _Month, sessions: _Sessions) -> Iterator[_Events]:
        """Blocks of the month's events; those of its sessions that fall after its end come with the next month."""
        ends = np.cumsum(sessions.event_count)
        block_starts = np.arange(0, ends[-1] if len(ends) else 0, BLOCK_EVENT_COUNT)
        borders = [*np.unique(np.searchsorted(ends, block_starts)).tolist(), len(ends)]
        for first, last in itertools.pairwise(borders):
            block = _Sessions(**{name: column[first:last] for name, column in vars(sessions).items()})
            events = self._planter.plant(_play_sessions(self._rng, self._population, self._catalogue, block))
            next_start_second = int(sessions.start_second[last]) if last < len(ends) else month.end_second
            yield self._release(events, min(next_start_second, month.end_second))
        yield self._release(_no_events(), month.end_second)

    def _release(self, new_events: _Events, before_second: int) -> _Events:
        """What happens before the given second, in order of time (ties as they came); the rest waits."""
        events = self._waiting.followed_by(new_events)
        # Sorting distinct whole numbers is many times faster than a stable argsort, and gives the same.
        index_bits = 32
        ranked = np.sort((events.second << index_bits) | np.arange(len(events)))
        ready_count = int(np.searchsorted(ranked, before_second << index_bits))
        order = ranked & ((1 << index_bits) - 1)
        self._waiting = events.take(order[ready_count:])
        return events.take(order[:ready_count])


def _play_sessions(rng: Rng, population: _Population, catalogue: _Catalogue, sessions: _Sessions) -> _Events:
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
    return _Events(
        second=second,
        user=sessions.user[session_index],
        product=_after_category_changes(catalogue, product, second),
        event_type=LOOK_OUTCOMES[np.repeat(look_outcome, look_length), position],
        price_cents=_prices_cents(catalogue, product, second),
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


def _draw_outcomes(rng: Rng, population: _Population, look_user: Array) -> Array:
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


def _draw_products(rng: Rng, population: _Population, catalogue: _Catalogue, look_user: Array) -> Array:
    """Mostly the user's first favourite categories; within one, dearer products the higher the user's tilt."""
    draw = rng.random(len(look_user), dtype=np.float32)
    choice = (draw * np.sqrt(draw) * population.category_count[look_user]).astype(np.int64)
    category = np.searchsorted(catalogue.category_popularity, population.favourites[look_user, choice])
    quantile = rng.random(len(look_user), dtype=np.float32) ** (1 / population.price_tilt[look_user])
    bucket = np.minimum((quantile * QUANTILE_COUNT).astype(np.int64), QUANTILE_COUNT - 1)
    return catalogue.product_by_quantile[category * QUANTILE_COUNT + bucket].astype(np.int64)


def _after_category_changes(catalogue: _Catalogue, product: Array, second: Array) -> Array:
    changing = np.flatnonzero(catalogue.changed_row[product])
    changed_row = catalogue.changed_row[product[changing]]
    has_changed = second[changing] >= catalogue.change_seconds[changed_row - catalogue.product_count]
    product = product.copy()
    product[changing[has_changed]] = changed_row[has_changed]
    return product


def _prices_cents(catalogue: _Catalogue, product: Array, second: Array) -> Array:
    """Every product keeps its price for a week."""
    factor = catalogue.price_courses[product % PRICE_COURSE_COUNT, second // WEEK_SECONDS % PRICE_COURSE_WEEKS]
    return np.asarray(np.rint(catalogue.base_price_cents[product] * factor), dtype=np.int64)


# --------------------------------------------------------------------------------------------------------- dirt


class _DirtPlanter:
    """Marks rows with a kind of dirt and adds the duplicates; what a kind looks like on paper is the renderer's."""

    def __init__(self, rng: Rng, dirt: Dirt, *, clean_count: int, duplicate_count: int) -> None:
        self._rng = rng
        self._rates = dataclasses.asdict(dirt)
        self._clean_count = clean_count
        self._duplicate_count = duplicate_count
        self._clean_done = 0
        self._duplicates_done = 0

    def plant(self, events: _Events) -> _Events:
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

    def _repeats(self, originals: _Events) -> _Events:
        exact_ratio = self._rates["exact_duplicate"]
        total_ratio = exact_ratio + self._rates["repriced_duplicate"]
        is_exact = self._rng.random(len(originals)) * total_ratio < exact_ratio
        rise_cents = self._rng.integers(1, 500, len(originals))
        return dataclasses.replace(
            originals,
            price_cents=originals.price_cents + np.where(is_exact, 0, rise_cents),
            kind=np.where(is_exact, KIND["exact_duplicate"], KIND["repriced_duplicate"]).astype(np.uint8),
        )


# ---------------------------------------------------------------------------------------------------- rendering


class _Renderer:
    """Turns events into the bytes of CSV lines, dirt included."""

    def __init__(self, rng: Rng, seed: int, population: _Population, catalogue: _Catalogue) -> None:
        self._rng = rng
        self._session_salt = np.random.default_rng([seed, 1]).integers(0, 2**63, 2, dtype=np.uint64)
        self._texts = catalogue.texts
        self._clock = np.array([_clock_text(second) for second in range(DAY_SECONDS)], dtype="S13")
        self._event_type = np.array([f"{name}," for name in EVENT_TYPES], dtype="S17")
        # A price is written in two parts: whole tens, of which 0 is not written, and the rest.
        tens = [b"", *(str(number).encode() for number in range(1, 10_000))]
        self._tens = np.array(tens + [b"-" + text for text in tens], dtype="S5")
        self._below_ten = np.array([f"{cents // 100}.{cents % 100:02d}," for cents in range(1_000)], dtype="S5")
        self._user = (np.char.mod("%d,", population.raw_id)).astype("S10")
        self._row = np.dtype(
            [
                ("date", "S11"),
                ("clock", "S13"),
                ("event_type", "S17"),
                ("product", self._texts["clean"].dtype),
                ("tens", "S5"),
                ("below_ten", "S5"),
                ("user", "S10"),
                ("session", "S37"),
            ]
        )

    def render(self, events: _Events, month: _Month) -> bytes:
        """CSV lines of events that all lie in the month."""
        if len(events) == 0:
            return b""
        rows = np.empty(len(events), dtype=self._row)
        day, second_of_day = np.divmod(events.second - month.start_second, DAY_SECONDS)
        rows["date"] = _date_texts(month.first_day.year, month.first_day.month, month.day_count)[day]
        rows["clock"] = self._clock[second_of_day]
        rows["event_type"] = self._event_type[events.event_type]
        rows["product"] = self._texts["clean"][events.product]
        is_free_of_charge = (events.kind == KIND["zero_price_purchase"]) | (events.kind == KIND["zero_price_view"])
        tens, below_ten = np.divmod(np.where(is_free_of_charge, 0, events.price_cents), 1_000)
        rows["tens"] = self._tens[tens + len(self._tens) // 2 * (events.kind == KIND["negative_price"])]
        rows["below_ten"] = self._below_ten[below_ten]
        rows["user"] = self._user[events.user]
        rows["session"] = self._session_texts(events.session)
        self._soil(rows, events, month, day)
        letters = rows.view(np.uint8)
        return bytes(letters[letters != 0])

    def _session_texts(self, session: Array) -> Array:
        """The uuid of each event's session: it follows from the session's number, so that waiting events need not."""
        first, last = int(session.min()), int(session.max())
        if last - first >= len(session):
            return _uuid_lines(session, self._session_salt)
        # Sessions in a block have neighbouring numbers: write each uuid once.
        return np.take(_uuid_lines(np.arange(first, last + 1), self._session_salt), session - first)

    def _soil(self, rows: Array, events: _Events, month: _Month, day: Array) -> None:
        """Write the dirt over clean rows."""
        hits = np.flatnonzero(events.kind)
        found = {name: hits[events.kind[hits] == code] for name, code in KIND.items()}
        letters = rows.view(np.uint8).reshape(len(rows), self._row.itemsize)
        for variant in ("untidy_text", "invalid_utf8", "missing_category"):
            rows["product"][found[variant]] = self._texts[variant][events.product[found[variant]]]
        rows["user"][found["null_user"]] = b","
        rows["session"][found["null_session"]] = b"\n"
        self._overwrite_product_id(letters, found["null_product"], b"")
        rows["tens"][found["null_price_removal"]] = b""
        rows["below_ten"][found["null_price_removal"]] = b","
        rows["date"][found["foreign_date"]] = self._foreign_dates(month, day[found["foreign_date"]])
        rows["date"][found["impossible_date"]] = f"{month.first_day.year:04d}-02-30 ".encode()
        # A comma in the uuid makes ten fields.
        letters[found["extra_field"], self._offset("session") + 8] = ord(",")
        self._spoil_numbers(rows, letters, found["text_for_number"])
        self._spoil_uuids(rows, letters, found["invalid_uuid"])
        self._cut_short(letters, found["cut_short"])

    def _offset(self, field: str) -> int:
        assert self._row.fields is not None
        return self._row.fields[field][1]

    def _overwrite_product_id(self, letters: Array, rows: Array, text: bytes) -> None:
        start = self._offset("product")
        padded = np.frombuffer(text.ljust(PRODUCT_ID_WIDTH, b"\0"), dtype=np.uint8)
        letters[rows, start : start + PRODUCT_ID_WIDTH] = padded

    def _foreign_dates(self, month: _Month, day: Array) -> Array:
        """The same day, at most the 28th, of the month before or after."""
        texts = [_date_texts(*_shifted(month.first_day.year, month.first_day.month, offset), 28) for offset in (-1, 1)]
        return np.concatenate(texts)[np.minimum(day, 27) + 28 * self._rng.integers(0, 2, len(day))]

    def _spoil_numbers(self, rows: Array, letters: Array, found: Array) -> None:
        variant = self._rng.integers(0, 3, len(found))
        rows["tens"][found[variant == 0]] = b""
        rows["below_ten"][found[variant == 0]] = b"free,"
        rows["user"][found[variant == 1]] = b"unknown,"
        self._overwrite_product_id(letters, found[variant == 2], b"n/a")

    def _spoil_uuids(self, rows: Array, letters: Array, found: Array) -> None:
        variant = self._rng.integers(0, 3, len(found))
        start = self._offset("session")
        letters[found[variant == 0], start + 2] = ord("z")
        letters[found[variant == 1], start + 32 : start + 36] = 0
        rows["session"][found[variant == 2]] = b"-" * 36 + b"\n"

    def _cut_short(self, letters: Array, found: Array) -> None:
        """Break the line off before the comma in front of the session, so that fields are missing for sure."""
        last_comma = self._offset("session") - 1
        for row, cut in zip(found.tolist(), self._rng.integers(5, last_comma, len(found)).tolist(), strict=True):
            letters[row, cut:-1] = 0
            letters[row, -1] = ord("\n")


def _clock_text(second: int) -> str:
    return f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d} UTC,"


def _date_texts(year: int, month: int, day_count: int) -> Array:
    return np.array([f"{year:04d}-{month:02d}-{day:02d} " for day in range(1, day_count + 1)], dtype="S11")


_HEX_PAIRS: Final = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), dtype=np.uint16)


def _uuid_lines(numbers: Array, salt: Array) -> Array:
    """uuid4-shaped text and a newline for each number; distinct numbers give distinct uuids."""
    numbers = numbers.astype(np.uint64)
    words = np.empty((len(numbers), 2), dtype=">u8")
    words[:, 0] = (_scrambled(numbers + salt[0]) & np.uint64(0xFFFFFFFFFFFF0FFF)) | np.uint64(0x4000)
    words[:, 1] = (_scrambled(numbers ^ salt[1]) & np.uint64(0x3FFFFFFFFFFFFFFF)) | np.uint64(0x8000000000000000)
    digits = _HEX_PAIRS[words.view(np.uint8)].view(np.uint8)
    lines = np.full((len(numbers), 37), ord("-"), dtype=np.uint8)
    for start, end, dashes in ((0, 8, 0), (8, 12, 1), (12, 16, 2), (16, 20, 3), (20, 32, 4)):
        lines[:, start + dashes : end + dashes] = digits[:, start:end]
    lines[:, 36] = ord("\n")
    return lines.view("S37").reshape(-1)


def _scrambled(numbers: Array) -> Array:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): a bijection on 64 bits."""
    numbers = numbers * np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(numbers ^ (numbers >> np.uint64(31)))


# -------------------------------------------------------------------------------------------------------- files


@dataclass(frozen=True)
class _WrittenFile:
    path: Path
    sha256: str
    byte_count: int


class _MonthFile:
    """A gzip file compressed on another thread, which appears under its name when the `with` block ends well."""

    _GZIP_LEVEL: Final = 1
    _GZIP_WINDOW_BITS: Final = 31  # gzip with an empty header: no name, no time
    _BLOCKS_AHEAD: Final = 2

    def __init__(self, path: Path, thread: ThreadPoolExecutor) -> None:
        self._path = path
        self._thread = thread
        self._partial_path = path.with_name(f".{path.name}.partial")
        self._compressor = isal_zlib.compressobj(self._GZIP_LEVEL, isal_zlib.DEFLATED, self._GZIP_WINDOW_BITS)
        self._sha256 = hashlib.sha256()
        self._byte_count = 0
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> "_MonthFile":
        self._stream = self._partial_path.open("wb")
        self.write(HEADER.encode() + b"\n")
        return self

    def __exit__(self, exception_type: type[BaseException] | None, *_: object) -> None:
        is_complete = False
        try:
            self._wait(0)
            self._append(self._compressor.flush())
            is_complete = exception_type is None
        finally:
            self._stream.close()
            if is_complete:
                self._partial_path.replace(self._path)
            else:
                self._partial_path.unlink()

    def write(self, lines: bytes) -> None:
        self._pending.append(self._thread.submit(self._compress, lines))
        self._wait(self._BLOCKS_AHEAD)

    def written(self) -> _WrittenFile:
        """Name, hash and size of the finished file."""
        return _WrittenFile(self._path, self._sha256.hexdigest(), self._byte_count)

    def _wait(self, pending_count: int) -> None:
        while len(self._pending) > pending_count:
            self._pending.popleft().result()

    def _compress(self, lines: bytes) -> None:
        self._append(self._compressor.compress(lines))

    def _append(self, compressed: bytes) -> None:
        self._stream.write(compressed)
        self._sha256.update(compressed)
        self._byte_count += len(compressed)


# ----------------------------------------------------------------------------------------------------- manifest


class _Tally:
    """Counts what is planted as it is written."""

    def __init__(self, user_count: int, catalogue: _Catalogue) -> None:
        self._catalogue = catalogue
        self.kind_counts: list[Array] = []
        self.session_count = 0
        self.short_remove_count = 0
        self.user_events = np.zeros(user_count, dtype=np.int64)
        self.user_purchases = np.zeros(user_count, dtype=np.int64)
        self.user_spent_cents = np.zeros(user_count, dtype=np.int64)
        self.row_seen = np.zeros(len(catalogue.base_price_cents), dtype=bool)
        self.row_count = 0

    def open_file(self, session_count: int) -> None:
        """Start the counts of the next file."""
        self.kind_counts.append(np.zeros(len(KINDS), dtype=np.int64))
        self.session_count += session_count

    def count(self, events: _Events) -> None:
        """Add rows of the file opened last."""
        self.row_count += len(events)
        self.kind_counts[-1] += np.bincount(events.kind, minlength=len(KINDS))
        is_valid = IS_VALID_KIND[events.kind]
        self.user_events += np.bincount(events.user[is_valid], minlength=len(self.user_events))
        self.row_seen[events.product[is_valid]] = True
        bought = np.flatnonzero(is_valid & (events.event_type == PURCHASE))
        np.add.at(self.user_purchases, events.user[bought], 1)
        np.add.at(self.user_spent_cents, events.user[bought], events.price_cents[bought])
        self.short_remove_count += int(np.count_nonzero(is_valid & (events.event_type == REMOVE)))

    def category_changes_seen(self) -> list[int]:
        """Ids of products whose valid rows show both categories."""
        changing = self._catalogue.changing_products
        both = self.row_seen[changing] & self.row_seen[self._catalogue.product_count :]
        return sorted(self._catalogue.product_ids[changing[both]].tolist())


def _write_manifest(
    path: Path,
    seed: int,
    parameters: dict[str, Any],
    months: list[_Month],
    files: list[_WrittenFile],
    population: _Population,
    catalogue: _Catalogue,
    tally: _Tally,
) -> None:
    head = {
        "generator": "agora simulate ecommerce",
        "seed": seed,
        "parameters": parameters,
        "files": [
            {
                "name": file.path.name,
                "period": month.period,
                "sha256": file.sha256,
                "byte_count": file.byte_count,
                **_row_truth(counts),
            }
            for month, file, counts in zip(months, files, tally.kind_counts, strict=True)
        ],
        "expected": _expected(population, catalogue, tally),
        "customer_types": _customer_type_truth(population, tally),
    }
    partial_path = path.with_name(f".{path.name}.partial")
    with partial_path.open("w", encoding="utf-8", newline="\n") as stream:
        # Users are many: they are written one a line, not held as one object.
        stream.write(json.dumps(head, indent=2).removesuffix("\n}") + ',\n  "users": {\n')
        separator = ""
        for line in _user_lines(population, tally):
            stream.write(separator + line)
            separator = ",\n"
        stream.write("\n  }\n}\n")
    partial_path.replace(path)


def _row_truth(counts: Array) -> dict[str, Any]:
    by_kind = dict(zip(KINDS, counts.tolist(), strict=True))
    planted = {name: count for name, count in by_kind.items() if name != "clean"}
    return {
        "rows_written": sum(by_kind.values()),
        "rows_valid": by_kind["clean"] + sum(planted[name] for name in KEPT_KINDS),
        "rows_duplicate": sum(planted[name] for name in DUPLICATE_KINDS),
        "rows_broken_line": sum(planted[name] for name in BROKEN_LINE_KINDS),
        "rows_broken_rule": sum(planted[name] for name in BROKEN_RULE_KINDS),
        "planted": planted,
    }


def _expected(population: _Population, catalogue: _Catalogue, tally: _Tally) -> dict[str, Any]:
    return {
        **_row_truth(np.sum(tally.kind_counts, axis=0)),
        "users_valid": int(np.count_nonzero(tally.user_events)),
        "sessions_planted": tally.session_count,
        "purchases_valid": int(tally.user_purchases.sum()),
        "revenue_eur": _eur(int(tally.user_spent_cents.sum())),
        "removes_spelt_short": tally.short_remove_count,
        "products_changing_category": {
            "planted_count": len(catalogue.changing_products),
            "seen_ids": tally.category_changes_seen(),
        },
    }


def _customer_type_truth(population: _Population, tally: _Tally) -> dict[str, dict[str, Any]]:
    truth = {}
    for index, kind in enumerate(CUSTOMER_TYPES):
        members = population.type_index == index
        truth[kind.name] = {
            "user_count": int(np.count_nonzero(members)),
            "events_valid": int(tally.user_events[members].sum()),
            "purchases_valid": int(tally.user_purchases[members].sum()),
            "spent_eur": _eur(int(tally.user_spent_cents[members].sum())),
        }
    return truth


def _user_lines(population: _Population, tally: _Tally) -> Iterator[str]:
    names = [json.dumps(kind.name) for kind in CUSTOMER_TYPES]
    counts = (tally.user_events, tally.user_purchases, tally.user_spent_cents)
    columns = (population.raw_id, population.type_index, *counts)
    for first in range(0, population.size, BLOCK_EVENT_COUNT):
        block = (column[first : first + BLOCK_EVENT_COUNT].tolist() for column in columns)
        for raw_id, type_index, events, purchases, spent in zip(*block, strict=True):
            yield (
                f'    "{raw_id}": {{"type": {names[type_index]}, "events_valid": {events}, '
                f'"purchases_valid": {purchases}, "spent_eur": {_eur(spent)}}}'
            )


def _eur(cents: int) -> float:
    return cents / 100
