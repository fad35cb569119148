"""What a fault must not change: the books of every load, the rows in raw, and no traceback before a user's eyes.

Asks the fixture's warehouse as its owner. How faults are made is told in the tests.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

from support import one, rows_of

from warehouse import embedded, embedded_processes, files
from warehouse.settings import home

PATIENCE_SECONDS = 900


def books_are_right() -> None:
    """Per load, read = landed + quarantined + suppressed; and raw and quarantine hold what the books say, no more."""
    wrong = (
        "select load_id from audit.loads where status = 'loaded'"
        " and rows_read is distinct from rows_landed + rows_quarantined + rows_suppressed"
    )
    assert rows_of(wrong) == []
    for column, table, load_id in (
        ("rows_landed", "raw_ecommerce.events", "_load_id"),
        ("rows_quarantined", "quarantine.rows", "load_id"),
    ):
        in_books = dict(rows_of(f"select load_id, {column} from audit.loads where status = 'loaded' and {column} > 0"))
        in_table = dict(rows_of(f"select {load_id}, count(*)::int from {table} group by 1"))
        assert in_table == in_books, table
    assert list((home() / "spool").glob("*")) == []


def landed() -> str:
    """A hash of all rows in raw, whatever the numbers of their loads and when they landed."""
    business = "to_jsonb(events) - '_load_id' - '_loaded_at'"
    return str(one(f"select md5(coalesce(string_agg(md5(({business})::text), '' order by md5(({business})::text)), ''))"
                   " from raw_ecommerce.events"))  # fmt: skip


def last_attempt() -> tuple[int, str]:
    """Number and status of the latest attempt to load, (0, 'none') before the first."""
    rows: list[tuple[int, str]] = rows_of("select load_id, status from audit.loads order by load_id desc limit 1")
    return rows[0] if rows else (0, "none")


def is_one_sentence(said: str) -> bool:
    """Whether a command that failed told it in one line, without a traceback."""
    (line,) = [line for line in said.splitlines() if line.startswith("agora: ")] or [""]
    return bool(line) and "Traceback" not in said


def until(ready: Callable[[], Any], *, process: subprocess.Popen[str] | None = None, poll_seconds: float = 0.1) -> Any:
    """Wait for something to be true and return it; None if the process ended before."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (value := ready()):
        if process is not None and process.poll() is not None:
            return None
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(poll_seconds)
    return value


def stop(process: subprocess.Popen[str]) -> None:
    """Hold a process where it is, to look at what it has done so far."""
    os.kill(process.pid, signal.SIGSTOP)


def go_on(process: subprocess.Popen[str]) -> None:
    """Let a held process go on."""
    os.kill(process.pid, signal.SIGCONT)


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL, and wait for the end."""
    process.kill()
    process.communicate()


def postmaster() -> int:
    """The process id of the fixture's Postgres."""
    server = embedded.running(home())
    state = files.read_json(home() / "server.json")
    assert server
    assert state
    process_id = embedded_processes.postmaster(server.data_directory, state["name"])
    assert process_id
    return process_id
