"""Months in every order, with a run in between and one delivered twice: the same checksums."""

from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest
from evidence import books_are_right
from shop import MONTHS, Shop
from support import agora, rows_of

pytestmark = pytest.mark.slow

# the undisturbed warehouse has taken them in the order of time
OTHER_ORDERS = [order for order in permutations(range(3)) if order != (0, 1, 2)]


@pytest.mark.parametrize("order", OTHER_ORDERS, ids=lambda order: "-".join(MONTHS[month][-3:] for month in order))
def test_months_in_another_order_and_one_of_them_twice(
    order: tuple[int, ...], shop: Shop, undisturbed: str, make_warehouse: Callable[[], Path]
) -> None:
    home = make_warehouse()
    first, *others = [shop.months[month] for month in order]
    agora("load", "ecommerce.events", first)
    agora("run", "ecommerce")
    # one file a command: a command lands its files in the order of time
    for path in others:
        agora("load", "ecommerce.events", path)
    # dropped again: once as it was, once forced into its own place
    drop = home / "drop" / "ecommerce"
    (drop / first.name).write_bytes(first.read_bytes())
    agora("load", "ecommerce.events", others[0], "--force")
    agora("run", "ecommerce")
    assert sorted(rows_of("select status, count(*)::int from audit.loads group by 1")) == [
        ("loaded", 3),
        ("skipped", 1),
        ("superseded", 1),
    ]
    books_are_right()
    assert agora("checksum", "ecommerce") == undisturbed
