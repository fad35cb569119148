"""Drives Agora as a user does: the command line, each command in a process of its own; and asks the warehouse directly.

Not here: fixtures (`tests/conftest.py`), what is right (the tests).
"""

import csv
import gzip
import importlib.util
import io
import os
import re
import shutil
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from warehouse import embedded, embedded_processes, files
from warehouse.connections import connect

CHECKOUT = Path(__file__).parents[1]
AGORA = Path(sys.executable).parent / "agora"
# any 32 bytes: two warehouses with one key give one person one pseudonym
KEY = bytes(range(100, 132)).hex()
HEADER = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"
COMMAND_SECONDS = 900
# chooses the random moments of tests/faults
FAULT_SEED = "AGORA_FAULT_SEED"


def short_directory() -> Path:
    """Make a directory with a path short enough for a socket, which the server's account may pass through."""
    directory = Path(tempfile.mkdtemp(prefix="agora-test-", dir="/tmp"))
    directory.chmod(0o711)
    return directory


def remove_home(home: Path) -> None:
    """Stop the home's server, see that no process is left, and delete everything."""
    state = files.read_json(home / "server.json")
    embedded.destroy(home)
    shutil.rmtree(home, ignore_errors=True)
    if state:
        assert embedded_processes.server_processes(state["name"]) == []


def start(*arguments: object, home: Path | None = None, **variables: object) -> subprocess.Popen[str]:
    """Start an agora command in a process group of its own, on the fixture's warehouse or an embedded one in `home`."""
    environment = os.environ | {name: str(value) for name, value in variables.items()}
    if home:
        environment = {name: value for name, value in environment.items() if not name.startswith("PG")}
        environment["AGORA_HOME"] = str(home)
    return subprocess.Popen(
        [str(AGORA), *map(str, arguments)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], *, expect: int = 0, stdin: str = "") -> str:
    """Wait for a command and return what it wrote to stdout and stderr, without colours; fail on another exit code."""
    out, err = process.communicate(stdin, timeout=COMMAND_SECONDS)
    text = re.sub(r"\x1b\[[0-9;]*m", "", out + err)
    assert process.returncode == expect, f"exit code {process.returncode} of {process.args}:\n{text}"
    return text


def agora(*arguments: object, home: Path | None = None, expect: int = 0, stdin: str = "", **variables: object) -> str:
    """Run an agora command to its end; see `start` and `finish`."""
    return finish(start(*arguments, home=home, **variables), expect=expect, stdin=stdin)


def agora_sql(statement: str, *, role: str = "owner", home: Path | None = None) -> list[dict[str, str]]:
    """What `agora sql` prints, row by row."""
    return list(csv.DictReader(io.StringIO(agora("sql", "--role", role, statement, home=home))))


def rows_of(statement: str, *values: Any, role: str = "owner") -> list[tuple[Any, ...]]:
    """Rows of a query on the fixture's warehouse."""
    with connect(role) as connection:
        return connection.execute(statement, values or None).fetchall()


def one(statement: str, *values: Any) -> Any:
    """The only value of a query on the fixture's warehouse."""
    ((value,),) = rows_of(statement, *values)
    return value


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    """Answer requests in the block, in a thread."""
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def wait_until(statement: str, *values: Any, seconds: float = 60) -> None:
    """Wait for a query on the fixture's warehouse to have a true only value; fail after so many seconds."""
    until = time.monotonic() + seconds
    while not one(statement, *values):
        assert time.monotonic() < until, f"never true in {seconds} s: {statement}"
        time.sleep(0.05)


def wait_for_a_waiter() -> None:
    """Wait until a process has given up trying for a lock of Agora's, said what it waits for, and waits."""
    wait_until("select count(*) > 0 from pg_locks where locktype = 'advisory' and not granted")


def execute(statement: str, *values: Any) -> None:
    """Run a statement on the fixture's warehouse, as its owner."""
    with connect() as connection:
        connection.execute(statement, values or None)


def write_events(path: Path, lines: Iterable[Sequence[object] | str]) -> Path:
    """Write a file of the shop's event log; a line is its fields or, broken on purpose, its text."""
    text = io.StringIO()
    text.write(HEADER + "\n")
    for line in lines:
        text.write((line if isinstance(line, str) else ",".join(map(str, line))) + "\n")
    content = text.getvalue().encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    # no time in the gzip header: the same lines are the same bytes
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def independent_features() -> ModuleType:
    """benchmarks/segmentation_agreement.py, which computes the features in pandas, written independently of dbt."""
    name = "segmentation_agreement"
    specification = importlib.util.spec_from_file_location(name, CHECKOUT / "benchmarks" / f"{name}.py")
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    # its dataclasses look themselves up there
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module
