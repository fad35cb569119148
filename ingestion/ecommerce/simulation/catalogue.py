"""The shop's products: ids, categories, brands and names, how popular they are, and how price and category change.

Not here: who looks at which product (`events`) and prices as text (`rendering`).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from ingestion.ecommerce.simulation.draws import Array, Rng, lognormal
from ingestion.ecommerce.simulation.months import DAY_SECONDS, Month

PRODUCT_ID_WIDTH: Final = 8
QUANTILE_COUNT: Final = 4_096
CHANGING_PRODUCT_RATIO: Final = 0.005
PRICE_COURSE_COUNT: Final = 251
PRICE_COURSE_WEEKS: Final = 53
WEEK_SECONDS: Final = 7 * DAY_SECONDS
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
class Catalogue:
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


def product_count_for(event_count: int) -> int:
    """How many products a log of this size shows: 600 to 40,000."""
    return min(max(event_count // 40, 600), 40_000)


def draw_catalogue(rng: Rng, product_count: int, months: list[Month]) -> Catalogue:
    """A shop of `product_count` products, of which a few change category once within the months."""
    codes = _category_codes()
    category_ids = 2_050_000_000_000_000_000 + rng.choice(10**12, len(codes), replace=False) * 130_001
    category_weights = rng.permutation(1 / np.arange(1, len(codes) + 1) ** 0.8)
    category = _draw_product_categories(rng, category_weights, product_count)
    centre_cents = np.clip(lognormal(rng, np.full(len(codes), 9_000.0), 1.0), 600, 120_000)
    price_cents = np.clip(np.rint(lognormal(rng, centre_cents[category], 0.6)), 100, 500_000).astype(np.int64)
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
    return Catalogue(
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


def after_category_changes(catalogue: Catalogue, product: Array, second: Array) -> Array:
    """The catalogue row that shows each product at that second."""
    changing = np.flatnonzero(catalogue.changed_row[product])
    changed_row = catalogue.changed_row[product[changing]]
    has_changed = second[changing] >= catalogue.change_seconds[changed_row - catalogue.product_count]
    product = product.copy()
    product[changing[has_changed]] = changed_row[has_changed]
    return product


def prices_cents(catalogue: Catalogue, product: Array, second: Array) -> Array:
    """The price of each product at that second; every product keeps its price for a week."""
    factor = catalogue.price_courses[product % PRICE_COURSE_COUNT, second // WEEK_SECONDS % PRICE_COURSE_WEEKS]
    return np.asarray(np.rint(catalogue.base_price_cents[product] * factor), dtype=np.int64)


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
