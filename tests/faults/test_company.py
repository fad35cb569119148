"""Several loaders at once, each a process of its own."""

import random
import time

import pytest
from evidence import books_are_right
from shop import Shop
from support import agora, finish, one, rows_of, start

pytestmark = pytest.mark.usefixtures("empty_warehouse")

MEETING_COUNT = 3


def met(one_attempt: int, other: int) -> bool:
    """Whether two attempts overlapped."""
    return bool(
        one("select max(started_at) < min(finished_at) from audit.loads where load_id = any(%s)", [one_attempt, other])
    )


def test_two_loaders_on_one_file_land_it_once(shop: Shop, chance: random.Random) -> None:
    meetings = 0
    while meetings < MEETING_COUNT:
        loaders = [start("load", "ecommerce.events", shop.october)]
        time.sleep(chance.uniform(0, 0.1))
        loaders.append(start("load", "ecommerce.events", shop.october))
        for loader in loaders:
            finish(loader)
        attempts = rows_of("select load_id, status from audit.loads order by load_id desc limit 2")
        assert sorted(status for _, status in attempts) == ["loaded", "skipped"]
        meetings += met(attempts[0][0], attempts[1][0])
        books_are_right()
        assert one("select count(distinct _load_id) from raw_ecommerce.events") == 1
        agora("undo", next(load_id for load_id, status in attempts if status == "loaded"))


def test_two_loaders_on_two_files_land_both(shop: Shop, chance: random.Random) -> None:
    meetings = 0
    while meetings < MEETING_COUNT:
        loaders = [start("load", "ecommerce.events", shop.october)]
        time.sleep(chance.uniform(0, 0.1))
        loaders.append(start("load", "ecommerce.events", shop.november))
        for loader in loaders:
            finish(loader)
        attempts = rows_of("select load_id, status, file_name from audit.loads order by load_id desc limit 2")
        assert sorted(name for _, _, name in attempts) == sorted([shop.october.name, shop.november.name])
        assert [status for _, status, _ in attempts] == ["loaded", "loaded"]
        meetings += met(attempts[0][0], attempts[1][0])
        books_are_right()
        assert rows_of("select count(distinct _load_id)::int, count(distinct _source_file)::int"
                       " from raw_ecommerce.events") == [(2, 2)]  # fmt: skip
        for load_id, _, _ in attempts:
            agora("undo", load_id)
