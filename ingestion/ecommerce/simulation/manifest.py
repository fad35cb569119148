"""The truth about what was planted: counted as it is written, then told in `manifest.json`.

Not here: what is planted (`customers`, `catalogue`, `dirt`).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from ingestion.ecommerce.simulation.catalogue import Catalogue
from ingestion.ecommerce.simulation.customers import CUSTOMER_TYPES, Population
from ingestion.ecommerce.simulation.dirt import (
    BROKEN_LINE_KINDS,
    BROKEN_RULE_KINDS,
    DUPLICATE_KINDS,
    IS_VALID_KIND,
    KEPT_KINDS,
    KINDS,
)
from ingestion.ecommerce.simulation.draws import Array
from ingestion.ecommerce.simulation.events import PURCHASE, REMOVE, Events
from ingestion.ecommerce.simulation.files import WrittenFile
from ingestion.ecommerce.simulation.months import Month

USER_BLOCK_SIZE: Final = 1 << 16


class Tally:
    """Counts what is planted as it is written."""

    def __init__(self, user_count: int, catalogue: Catalogue) -> None:
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

    def count(self, events: Events) -> None:
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


def write_manifest(
    path: Path,
    seed: int,
    parameters: dict[str, Any],
    months: list[Month],
    files: list[WrittenFile],
    population: Population,
    catalogue: Catalogue,
    tally: Tally,
) -> None:
    """Write the truth as JSON: per file, expected overall, per customer type and per user. Money is in euros."""
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


def _expected(population: Population, catalogue: Catalogue, tally: Tally) -> dict[str, Any]:
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


def _customer_type_truth(population: Population, tally: Tally) -> dict[str, dict[str, Any]]:
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


def _user_lines(population: Population, tally: Tally) -> Iterator[str]:
    names = [json.dumps(kind.name) for kind in CUSTOMER_TYPES]
    counts = (tally.user_events, tally.user_purchases, tally.user_spent_cents)
    columns = (population.raw_id, population.type_index, *counts)
    for first in range(0, population.size, USER_BLOCK_SIZE):
        block = (column[first : first + USER_BLOCK_SIZE].tolist() for column in columns)
        for raw_id, type_index, events, purchases, spent in zip(*block, strict=True):
            yield (
                f'    "{raw_id}": {{"type": {names[type_index]}, "events_valid": {events}, '
                f'"purchases_valid": {purchases}, "spent_eur": {_eur(spent)}}}'
            )


def _eur(cents: int) -> float:
    return cents / 100
