"""Which runs are alive: each holds a lock on a file of its own for as long as its process does.

A run that was killed (memory, power, kill -9) cannot say so, and Dagster would show it as going on for ever. A lock
ends with its process, however that ends. Not here: what is told about a dead run (`alerts`), and what the next one
makes of it (`resume`).
"""

import fcntl
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from warehouse.settings import home

# before it holds its lock, a run loads its definitions
START_UP = timedelta(minutes=10)
UNFINISHED = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
DIED = "agora/died"


def announce(run_id: str) -> None:
    """Count as alive until the end of this process: a run is over a moment later than its last step."""
    path = _file_of(run_id)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # under its name only once it is locked: an unlocked one is that of a dead run
    unlocked = path.with_name(f".{run_id}")
    descriptor = os.open(unlocked, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    unlocked.rename(path)


def is_alive(run_id: str, last_heard_of: datetime) -> bool:
    """Whether the run's process lives; one that has not said so yet gets some minutes to start."""
    try:
        descriptor = os.open(_file_of(run_id), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return datetime.now(UTC) - last_heard_of < START_UP
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def close_dead_runs(instance: dg.DagsterInstance) -> None:
    """Let Dagster know which runs have failed without a word: those that go on in its books and nowhere else."""
    announced = {path.name for path in _folder().glob("[!.]*")}
    records = instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED))
    for record in records:
        run = record.dagster_run
        # what somebody builds by hand in Dagster's page has a process per step, and somebody who watches
        if not run.job_name.startswith("__") and not is_alive(run.run_id, record.update_timestamp.replace(tzinfo=UTC)):
            instance.add_run_tags(run.run_id, {DIED: "true"})
            instance.report_run_failed(run, "The process of this run is gone: killed, or the machine went off.")
            _file_of(run.run_id).unlink(missing_ok=True)
    for run_id in announced - {record.dagster_run.run_id for record in records}:
        _file_of(run_id).unlink(missing_ok=True)


def _folder() -> Path:
    return home() / "dagster" / "alive"


def _file_of(run_id: str) -> Path:
    return _folder() / run_id
