"""Advisory locks that keep a domain's runs, and its readers and deleters of raw rows, from interleaving.

``run``: one Dagster run of a domain at a time, from its first step to its last, or a mart could join what two runs
built. ``build``: held by `agora dbt` while it builds, so that a dbt whose run was killed still keeps others out; the
door takes it too before it deletes rows (replace, force, undo).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from warehouse.connections import connect


@contextmanager
def domain_lock(kind: str, domain: str, *, on_wait: Callable[[str], None], poll_seconds: float = 0.5) -> Iterator[None]:
    """Hold the lock ``kind domain`` of the warehouse; waits for whoever holds it and says so once."""
    with connect("transformer", autocommit=True) as connection:
        is_told = False
        while not _try_lock(connection, f"{kind} {domain}"):
            if not is_told:
                on_wait(f"another {kind} of {domain} is going on; waiting for its end")
                is_told = True
            time.sleep(poll_seconds)
        # closing the connection gives the lock back, also when this process is killed
        yield


def _try_lock(connection, name: str) -> bool:  # type: ignore[no-untyped-def]
    row = connection.execute("select pg_try_advisory_lock(hashtext(%s))", (name,)).fetchone()
    return bool(row[0])
