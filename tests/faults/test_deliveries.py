"""Deliveries as they should not be: copied, still being written, or made to burst; landed by real commands."""

import gzip
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from evidence import books_are_right, is_one_sentence, landed
from support import HEADER, agora, one, rows_of

pytestmark = pytest.mark.usefixtures("empty_warehouse")

LINE = "2019-10-05 00:00:00 UTC,view,44600062,2103807459595387724,,b,1.50,{},72d76fde-8bb3-4e00-8c23-a032dfed738c\n"
MEGABYTE = 2**20
# the most memory that the command itself has held; what the system counts begins with that of whoever started it
MEASURED = """
from pathlib import Path
from orchestration.cli import main
try:
    main()
finally:
    print(*[line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")])
"""


def lines(first: int, count: int) -> str:
    return "".join(LINE.format(number) for number in range(first, first + count))


def test_the_same_bytes_under_another_name_or_time_land_once(tmp_path: Path) -> None:
    path = tmp_path / "2019-Oct.csv"
    path.write_text(HEADER + "\n" + lines(1, 500))
    agora("load", "ecommerce.events", path)
    rows = landed()
    os.utime(path, (1, 1))
    renamed = shutil.copyfile(path, tmp_path / "2019-Oct.again.csv")
    told = "the same bytes have landed as load 1 (2019-Oct.csv, 2019-10)"
    for again in (path, renamed):
        assert told in agora("load", "ecommerce.events", again)
    assert rows_of("select status from audit.loads order by load_id") == [("loaded",), ("skipped",), ("skipped",)]
    assert landed() == rows
    books_are_right()


@contextmanager
def growing(path: Path) -> Iterator[None]:
    """Another program appends to the file all the while."""
    done = threading.Event()

    def write() -> None:
        with path.open("a", buffering=1) as stream:
            while not done.wait(0.001):
                stream.write(lines(1, 1))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        done.set()
        writer.join()


def test_a_growing_file_is_refused_until_it_stands_still(tmp_path: Path) -> None:
    path = tmp_path / "2019-Oct.csv"
    # large enough to grow while it is copied
    path.write_text(HEADER + "\n" + lines(1, 500) * 1000)
    with growing(path):
        said = agora("load", "ecommerce.events", path, expect=2)
    assert said == "agora: 2019-Oct.csv is still growing or changing: load it once its delivery is complete.\n"
    assert one("select count(*) from raw_ecommerce.events") == 0
    books_are_right()
    row_count = len(path.read_text().splitlines()) - 1
    assert f"{row_count:,} rows read, {row_count:,} landed" in agora("load", "ecommerce.events", path)
    books_are_right()


def test_300_megabytes_in_300_kilobytes_are_refused_without_taking_memory_or_disk(
    tmp_path: Path, warehouse: Path
) -> None:
    path = tmp_path / "2019-Oct.csv.gz"
    with gzip.open(path, "wb", compresslevel=9) as stream:
        stream.write(HEADER.encode() + b"\n")
        for _ in range(300):
            stream.write(b"\n" * MEGABYTE)
    assert path.stat().st_size < 320_000
    command = [sys.executable, "-c", MEASURED, "load", "ecommerce.events", path]
    load = subprocess.run(command, capture_output=True, text=True, check=False)
    assert load.returncode == 2, load.stderr
    assert is_one_sentence(load.stderr)
    assert "the gzip stream grows more than 200 times as it is opened" in load.stderr
    kilobytes = int(load.stdout.split()[1])
    assert kilobytes / 1024 < 290
    assert rows_of("select status from audit.loads") == [("failed",)]
    assert one("select count(*) from raw_ecommerce.events") == 0
    books_are_right()


def test_a_cut_gzip_is_refused_and_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "2019-Oct.csv.gz"
    whole = gzip.compress((HEADER + "\n" + lines(1, 5000)).encode())
    path.write_bytes(whole)
    agora("load", "ecommerce.events", path)
    rows = landed()
    for length in (len(whole) // 2, len(whole) - 8, len(whole) - 1):
        path.write_bytes(whole[:length])
        said = agora("load", "ecommerce.events", path, expect=2)
        assert said == ("agora: 2019-Oct.csv.gz: the gzip stream ends too early (cut off?): deliver the file again.\n")
    assert landed() == rows
    books_are_right()
