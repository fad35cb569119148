"""Loads that are killed, or whose Postgres is, at random moments: all of a file lands or nothing of it.

One warehouse lives through all of it; at the end it must say what an undisturbed one says. Keep the order of tests.
"""

import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from evidence import books_are_right, go_on, is_one_sentence, kill, landed, last_attempt, postmaster, stop, until
from shop import Shop
from support import agora, finish, one, rows_of, start

from warehouse.connections import connect

pytestmark = pytest.mark.usefixtures("warehouse")

KILL_COUNT, COPYING_AT_LEAST, FORCED_KILL_COUNT, MOST_TRIES = 20, 5, 4, 100


@dataclass(frozen=True)
class Moment:
    """What a load had done when it was held: its attempt's status, and the rows it had sent by the COPY under way."""

    load_id: int
    status: str
    rows_copied: int


def hold_load(path: Path, seconds: float, *options: str) -> tuple[subprocess.Popen[str], Moment]:
    """Start `agora load` and hold it so many seconds after its attempt has begun."""
    before, _ = last_attempt()
    process = start("load", "ecommerce.events", path, *options)
    with connect(autocommit=True) as connection:

        def begun() -> bool:
            newest = connection.execute("select coalesce(max(load_id), 0) from audit.loads").fetchone()
            return newest is not None and newest[0] > before

        until(begun, process=process, poll_seconds=0.002)
        time.sleep(seconds)
        stop(process)
        (rows_copied,) = connection.execute(
            "select coalesce(max(tuples_processed), 0) from pg_stat_progress_copy"
            " where relid = 'raw_ecommerce.events'::regclass"
        ).fetchone() or (0,)
    return process, Moment(*last_attempt(), rows_copied)


def kill_at_work(path: Path, seconds: float, *options: str) -> Moment | None:
    """Kill a load; None if it had ended before, which is no kill at work."""
    process, moment = hold_load(path, seconds, *options)
    kill(process)
    # a commit may have been on its way
    return moment if moment.status == "started" and last_attempt() == (moment.load_id, "started") else None


def kills_at_work(count: int, copying: int, chance: random.Random, path: Path, *options: str) -> list[Moment]:
    """Kill so many loads of a file at random moments, so many of them within the COPY into raw; see what is left."""
    rows, longest_seconds = landed(), 0.5
    moments: list[Moment] = []
    for _ in range(MOST_TRIES):
        seconds = chance.uniform(0, longest_seconds)
        moment = kill_at_work(path, seconds, *options)
        if moment is None:
            # it was faster: look for moments before that
            assert landed() == rows or not options, "who lands again changes nothing"
            longest_seconds = max(seconds, 0.05)
            undo_what_landed(rows)
            continue
        moments.append(moment)
        books_are_right()
        assert landed() == rows
        if len(moments) >= count and sum(moment.rows_copied > 0 for moment in moments) >= copying:
            return moments
    raise AssertionError(f"{MOST_TRIES} tries gave {len(moments)} kills at work")


def undo_what_landed(rows: str) -> None:
    if landed() != rows:
        load_id, status = last_attempt()
        assert status == "loaded"
        agora("undo", load_id)


def test_twenty_killed_loads_leave_nothing_and_the_next_lands_all(shop: Shop, chance: random.Random) -> None:
    moments = kills_at_work(KILL_COUNT, COPYING_AT_LEAST, chance, shop.october)
    agora("load", "ecommerce.events", shop.october)
    books_are_right()
    killed = [moment.load_id for moment in moments]
    assert rows_of("select distinct status from audit.loads where load_id = any(%s)", killed) == [("abandoned",)]
    assert one("select count(*) from audit.loads where status = 'loaded'") == 1
    assert one("select count(*) from raw_ecommerce.events") == one(
        "select rows_landed from audit.loads where status = 'loaded'"
    )


def test_a_forced_load_killed_midway_leaves_its_predecessor(shop: Shop, chance: random.Random) -> None:
    standing = "select load_id from audit.loads where status = 'loaded'"
    before = rows_of(standing)
    kills_at_work(FORCED_KILL_COUNT, 1, chance, shop.october, "--force")
    assert len(rows_of(standing)) == len(before)
    said = agora("load", "ecommerce.events", shop.october, "--force")
    assert "replaces load" in said
    books_are_right()


def hold_load_in_copy(path: Path, chance: random.Random) -> tuple[subprocess.Popen[str], int]:
    """Hold a load whose COPY into raw has sent rows but not all; returns it and the process id of its backend."""
    for _ in range(MOST_TRIES):
        rows = landed()
        process, moment = hold_load(path, chance.uniform(0, 0.3))
        backends = rows_of("select pid from pg_stat_progress_copy where relid = 'raw_ecommerce.events'::regclass")
        if moment.rows_copied and backends:
            return process, backends[0][0]
        kill(process)
        undo_what_landed(rows)
    raise AssertionError("no load was met within its COPY")


@pytest.mark.parametrize("victim", ["backend", "postmaster"])
def test_postgres_killed_mid_copy_is_told_in_a_sentence_and_lands_nothing(
    shop: Shop, chance: random.Random, victim: str
) -> None:
    path = shop.november if victim == "backend" else shop.december
    rows = landed()
    process, backend = hold_load_in_copy(path, chance)
    server = postmaster()
    os.kill(backend if victim == "backend" else server, signal.SIGKILL)
    go_on(process)
    said = finish(process, expect=1)
    assert is_one_sentence(said), said
    assert f"agora: {path.name}: the database broke the connection off: try again, nothing is done twice\n" in said
    # the next command finds a server, the old one recovered or a new one
    agora("loads")
    assert (postmaster() == server) == (victim == "backend")
    books_are_right()
    assert landed() == rows
    assert last_attempt()[1] == "abandoned"
    assert "loaded as load" in agora("load", "ecommerce.events", path)
    books_are_right()


@pytest.mark.slow
def test_after_all_that_the_warehouse_says_what_an_undisturbed_one_says(undisturbed: str) -> None:
    agora("run", "ecommerce")
    assert agora("checksum", "ecommerce") == undisturbed
