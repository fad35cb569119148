"""Which processes belong to an embedded server, and whether it answers.

Judged by the server's name in the process titles, which everybody may read: a container's root may not look at
another account's working directory, and a pid file may name a process that is a zombie or somebody else's.
"""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from psycopg import pq

PROCESSES = Path("/proc")


def ping(socket_directory: Path, port: int) -> pq.Ping:
    """Ask the server whether it accepts connections, as pg_isready does."""
    question = f"host={_quoted(socket_directory)} port={port} dbname=agora user=agora connect_timeout=5"
    return pq.Ping(pq.PGconn.ping(question.encode()))


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("\\", "\\\\").replace("'", "\\'") + "'"


def server_processes(cluster_name: str) -> list[int]:
    """Return the ids of a server's living processes; always empty where there is no /proc."""
    if not PROCESSES.is_dir():
        return []
    numbers = (int(entry.name) for entry in PROCESSES.iterdir() if entry.name.isdigit())
    return [number for number in numbers if _belongs(number, cluster_name)]


def _belongs(process_id: int, cluster_name: str) -> bool:
    arguments = _arguments(process_id)
    is_postmaster = arguments[0].endswith("/postgres") and f"cluster_name={cluster_name}" in arguments
    return is_postmaster or arguments[0].startswith(f"postgres: {cluster_name}: ")


def _arguments(process_id: int) -> list[str]:
    try:
        # empty for a zombie
        command = (PROCESSES / str(process_id) / "cmdline").read_bytes()
    except OSError:
        return [""]
    return [argument.decode(errors="replace").strip() for argument in command.split(b"\0")]


def postmaster(data_directory: Path, cluster_name: str) -> int | None:
    """Return the postmaster's id, or None if it is dead."""
    recorded = recorded_postmaster(data_directory)
    if recorded is None or not is_alive(recorded):
        return None
    if not (PROCESSES / str(recorded)).exists():
        # no /proc, or one that hides it: believe the file
        return recorded
    is_ours = _belongs(recorded, cluster_name) or str(data_directory) in _arguments(recorded)
    return recorded if is_ours else None


def recorded_postmaster(data_directory: Path) -> int | None:
    """Return the process id in postmaster.pid, or None if there is no such file."""
    try:
        return int((data_directory / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def is_alive(process_id: int) -> bool:
    """Return whether a process exists, whoever it belongs to."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def end_orphans(cluster_name: str, patience_seconds: float = 5.0) -> None:
    """End what a killed postmaster left: it holds on to shared memory, and a new server would refuse to start."""
    for signal_number in (signal.SIGQUIT, signal.SIGKILL):
        orphans = server_processes(cluster_name)
        if not orphans:
            return
        _send(orphans, signal_number)
        wait_for_end(cluster_name, patience_seconds)


def wait_for_end(cluster_name: str, patience_seconds: float) -> bool:
    """Wait until a server has no process left; return whether that came about."""
    deadline = time.monotonic() + patience_seconds
    while server_processes(cluster_name):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _send(process_ids: Sequence[int], signal_number: int) -> None:
    for process_id in process_ids:
        try:
            os.kill(process_id, signal_number)
        except ProcessLookupError:
            continue
