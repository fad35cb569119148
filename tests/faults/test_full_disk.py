"""Full disks: that of the spool, and that of the server's data. Each is a small tmpfs, which only root can mount.

One warehouse lives through all of it; at the end it must say what an undisturbed one says. Keep the order of tests.
"""

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from evidence import books_are_right, go_on, is_one_sentence, landed, last_attempt, postmaster, stop, until
from shop import Shop
from support import agora, finish, one, remove_home, rows_of, short_directory, start

MEGABYTE = 2**20
SERVER_MEGABYTES, SPOOL_MEGABYTES, DELIVERY_MEGABYTES = 900, 700, 500


def mount(directory: Path, megabytes: int) -> bool:
    directory.mkdir(parents=True)
    if os.geteuid() != 0:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(directory)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def small_warehouse() -> Iterator[Path]:
    """A warehouse on two small disks; the value is AGORA_HOME."""
    home = short_directory()
    disks = (home / "postgres", home / "spool")
    try:
        for disk, megabytes in zip(disks, (SERVER_MEGABYTES, SPOOL_MEGABYTES), strict=True):
            if not mount(disk, megabytes):
                pytest.skip("only root can mount a small disk")
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setenv("AGORA_HOME", str(home))
            agora("up")
            yield home
    finally:
        for disk in disks:
            if disk.is_mount():
                agora("down", home=home)
                subprocess.run(["umount", "--lazy", disk], check=True)
        remove_home(home)


@contextmanager
def filled(disk: Path, free_bytes: int = 0) -> Iterator[None]:
    """Leave so much room on a disk."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as stream:
        zeros = bytes(MEGABYTE)
        size = shutil.disk_usage(disk).free - free_bytes
        for _ in range(size // MEGABYTE):
            stream.write(zeros)
        try:
            stream.write(zeros[: size % MEGABYTE])
        except OSError:
            assert free_bytes == 0
    try:
        yield
    finally:
        ballast.unlink()


def test_a_spool_that_fills_up_while_a_file_is_copied(small_warehouse: Path, tmp_path: Path, shop: Shop) -> None:
    disk = small_warehouse / "spool"
    path = tmp_path / "2019-Oct.csv"
    with path.open("wb") as stream:
        stream.truncate(DELIVERY_MEGABYTES * MEGABYTE)
    empty = shutil.disk_usage(disk).used

    def copied() -> bool:
        return shutil.disk_usage(disk).used > empty + MEGABYTE

    load = start("load", "ecommerce.events", path)
    assert until(copied, process=load, poll_seconds=0.002)
    stop(load)
    assert shutil.disk_usage(disk).used < empty + (DELIVERY_MEGABYTES - 1) * MEGABYTE, "held while it was copied"
    with filled(disk):
        go_on(load)
        said = finish(load, expect=2)
        assert said == f"agora: 2019-Oct.csv: the disk of {disk} is full: make room.\n"
        said = agora("load", "ecommerce.events", shop.october, expect=2)
        assert f"MB of room in {disk}, where" in said
    assert rows_of("select distinct status from audit.loads") == [("failed",)]
    assert shutil.disk_usage(disk).used == empty
    books_are_right()


def test_loads_on_a_full_disk_land_nothing_and_work_again_once_there_is_room(
    small_warehouse: Path, shop: Shop, chance: random.Random
) -> None:
    for path in shop.months:
        rows = landed()
        said = fail_for_want_of_room(small_warehouse / "postgres", path, chance.uniform(0, 6))
        assert is_one_sentence(said), said
        assert "the disk of " in said
        assert " is full" in said
        assert "make room and try again" in said
        books_are_right()
        assert landed() == rows
        agora("load", "ecommerce.events", path)
        books_are_right()
    assert one("select count(*) from audit.loads where status = 'loaded'") == len(shop.months)


def fail_for_want_of_room(disk: Path, path: Path, free_megabytes: float) -> str:
    """Load a file on a disk with so little room, or less, that it fails; return what was said."""
    while True:
        with filled(disk, int(free_megabytes * MEGABYTE)):
            load = start("load", "ecommerce.events", path)
            said = "".join(load.communicate())
        if load.returncode != 0:
            assert load.returncode in (1, 2)
            return said
        agora("undo", last_attempt()[0])
        free_megabytes /= 2


@pytest.mark.slow
def test_a_run_on_a_full_disk_fails_and_the_next_builds_what_an_undisturbed_one_builds(
    small_warehouse: Path, undisturbed: str, chance: random.Random
) -> None:
    disk = small_warehouse / "postgres"
    with filled(disk, int(chance.uniform(10, 30) * MEGABYTE)):
        run = start("run", "ecommerce")
        out, err = run.communicate()
        assert run.returncode in (1, 2), out + err
        assert "Traceback" not in out + err
        assert is_one_sentence(err), err
        # where Postgres could not write its log but found room to recover, dbt knows only that it lost it
        lost = "server closed the connection unexpectedly"
        told = ("agora: the disk of the database is full", f"the disk of {disk} is full", lost)
        assert any(sentence in err for sentence in told), err
    assert rows_of("select tablename from pg_tables where schemaname = 'ecommerce'") == []
    agora("run", "ecommerce")
    assert agora("checksum", "ecommerce") == undisturbed


def test_a_server_without_room_to_start_says_so_and_starts_once_there_is(small_warehouse: Path) -> None:
    rows = landed()
    with filled(small_warehouse / "postgres"):
        os.kill(postmaster(), signal.SIGKILL)
        listing = start("loads")
        said = "".join(listing.communicate())
        assert listing.returncode == 0 or is_one_sentence(said), said
    agora("loads")
    books_are_right()
    assert landed() == rows
