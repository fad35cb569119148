"""Runs that are killed, or whose dbt or Postgres is, at random moments: readers keep whole generations, the next run
goes on, and what it publishes is what an undisturbed warehouse publishes.

One warehouse lives through all of it. Keep the order of tests.
"""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from evidence import books_are_right, go_on, postmaster, stop, until
from shop import Shop
from support import agora, one, rows_of, start

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warehouse")]

RUN_KILL_COUNT, MOST_TRIES = 3, 8
PUBLICATIONS = "select count(*) from audit.publications where domain = 'ecommerce'"


@pytest.fixture(scope="module")
def of_october(warehouse: Path, shop: Shop, undisturbed: str) -> str:
    """The checksum of the generation of October, published; November and December have landed and are not built."""
    agora("load", "ecommerce.events", shop.october)
    agora("run", "ecommerce")
    checksum = agora("checksum", "ecommerce")
    assert checksum != undisturbed
    agora("load", "ecommerce.events", shop.november, shop.december)
    return checksum


def children(process_id: int) -> list[int]:
    """The living children of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == process_id:
                found.append(int(entry.name))
    return found


def dbt_of(run: subprocess.Popen[str]) -> int | None:
    """The process id of the dbt that builds for a run, once it is at work in the database."""
    for child in children(run.pid):
        try:
            command = (Path("/proc") / str(child) / "cmdline").read_bytes()
        except OSError:
            continue
        if b"build" in command and one("select count(*) from pg_stat_activity where usename = 'transformer'") > 1:
            return child
    return None


def noting_models_built() -> int:
    """How many of the three models that note what they have taken in have taken in November; others follow them."""
    return int(
        one(
            "select count(*) from audit.built_loads inner join audit.loads using (load_id)"
            " where file_name = '2019-Nov.csv.gz'"
        )
    )


def ended(run: subprocess.Popen[str]) -> str:
    """What a run said whose dbt or Postgres was killed: it failed, without a traceback."""
    out, err = run.communicate()
    assert run.returncode in (1, 2), out + err
    assert "Traceback" not in out + err
    return out + err


def let_what_survived_finish() -> None:
    """A dbt outlives the run that was killed; it holds the lock on builds."""
    build_lock = "locktype = 'advisory' and objid::bigint = (hashtext('build ecommerce')::bigint & 4294967295)"
    until(lambda: one(f"select count(*) from pg_locks where {build_lock}") == 0)


def test_dbt_killed_between_models_fails_the_run_and_leaves_readers_their_generation(
    of_october: str, chance: random.Random
) -> None:
    publications = one(PUBLICATIONS)
    run = start("run", "ecommerce")
    dbt = until(lambda: dbt_of(run), process=run)
    assert dbt
    model_count = chance.randint(1, 3)
    assert until(lambda: noting_models_built() >= model_count, process=run, poll_seconds=0.02)
    os.kill(dbt, signal.SIGSTOP)
    assert dbt_of(run) == dbt, "killed at work"
    os.kill(dbt, signal.SIGKILL)
    said = ended(run)
    assert one(PUBLICATIONS) == publications
    assert "Readers keep the last good generation." in said
    assert agora("checksum", "ecommerce") == of_october
    books_are_right()


def test_postgres_killed_under_a_run_fails_it_and_leaves_readers_their_generation(
    of_october: str, chance: random.Random
) -> None:
    publications = one(PUBLICATIONS)
    run = start("run", "ecommerce")
    assert until(lambda: dbt_of(run), process=run)
    time.sleep(chance.uniform(0, 2))
    stop(run)
    assert one(PUBLICATIONS) == publications, "killed at work"
    os.kill(postmaster(), signal.SIGKILL)
    go_on(run)
    ended(run)
    assert agora("checksum", "ecommerce") == of_october
    assert one(PUBLICATIONS) == publications
    books_are_right()


def test_runs_killed_at_random_moments_leave_whole_generations(
    of_october: str, undisturbed: str, chance: random.Random
) -> None:
    kills = 0
    for _ in range(MOST_TRIES):
        publications = one(PUBLICATIONS)
        run = start("run", "ecommerce")
        until(lambda run=run: dbt_of(run), process=run)
        time.sleep(chance.uniform(0, 10))
        stop(run)
        is_at_work = run.poll() is None and one(PUBLICATIONS) == publications
        run.kill()
        run.communicate()
        kills += is_at_work
        # what the kill left may go on to build and publish, a whole generation
        assert agora("checksum", "ecommerce") in (of_october, undisturbed)
        let_what_survived_finish()
        assert agora("checksum", "ecommerce") in (of_october, undisturbed)
        books_are_right()
        if kills == RUN_KILL_COUNT:
            return
    raise AssertionError(f"{kills} of {MOST_TRIES} kills met a run at work")


def test_after_all_that_the_next_run_publishes_what_an_undisturbed_one_does(undisturbed: str) -> None:
    agora("run", "ecommerce")
    assert agora("checksum", "ecommerce") == undisturbed
    assert rows_of("select nspname from pg_namespace where nspname ~ '_next_'") == []
