"""Events as the bytes of CSV lines, dirt included: how times, prices, ids and session uuids are spelt.

A block is rendered as a matrix of NUL-padded fields whose NULs are then squeezed out. Not here: which rows are dirty
(`dirt`), the texts of products (`catalogue`) and compression (`files`).
"""

from typing import Final

import numpy as np

from ingestion.ecommerce.simulation.catalogue import PRODUCT_ID_WIDTH, Catalogue
from ingestion.ecommerce.simulation.customers import Population
from ingestion.ecommerce.simulation.dirt import KIND
from ingestion.ecommerce.simulation.draws import Array, Rng
from ingestion.ecommerce.simulation.events import EVENT_TYPES, Events
from ingestion.ecommerce.simulation.months import DAY_SECONDS, Month, shifted_month

HEADER: Final = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"


class Renderer:
    """Turns events into the bytes of CSV lines, dirt included."""

    def __init__(self, rng: Rng, seed: int, population: Population, catalogue: Catalogue) -> None:
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

    def render(self, events: Events, month: Month) -> bytes:
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

    def _soil(self, rows: Array, events: Events, month: Month, day: Array) -> None:
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

    def _foreign_dates(self, month: Month, day: Array) -> Array:
        """The same day, at most the 28th, of the month before or after."""
        texts = [
            _date_texts(*shifted_month(month.first_day.year, month.first_day.month, offset), 28) for offset in (-1, 1)
        ]
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
