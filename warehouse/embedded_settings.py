"""The embedded server's configuration files, scaled to the machine. A server from outside keeps its own."""

import os
import shutil
from pathlib import Path

MEGABYTE = 1024 * 1024
GIGABYTE = 1024 * MEGABYTE

# the owner is a superuser, who may run programs: never over a network
HOST_BASED_AUTHENTICATION = """\
local all all scram-sha-256
host all agora 127.0.0.1/32 scram-sha-256
host all agora ::1/128 scram-sha-256
host all agora all reject
host all all all scram-sha-256
"""


def memory_bytes() -> int:
    """Return the memory this process may use: the machine's, or less where a container sets a limit."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limit = Path(path).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if limit.isdigit():
            return min(machine, int(limit))
    return machine


def configuration(base: Path, socket_directory: Path, port: int, listen_host: str) -> str:
    """Return the text of postgresql.conf. An empty `listen_host` keeps TCP off."""
    memory = memory_bytes()
    cpu_count = os.cpu_count() or 1
    settings: dict[str, str | int] = {
        "listen_addresses": _quoted(listen_host),
        "port": port,
        "unix_socket_directories": _quoted(str(socket_directory)),
        "hba_file": _quoted(str(base / "pg_hba.conf")),
        "password_encryption": "scram-sha-256",
        "timezone": "'UTC'",
        "datestyle": "'ISO, YMD'",
        "jit": "off",
        "shared_buffers": _megabytes(memory // 8, at_least=64, at_most=4096),
        "effective_cache_size": _megabytes(memory // 2, at_least=128, at_most=65536),
        "work_mem": _megabytes(memory // 96, at_least=16, at_most=256),
        "maintenance_work_mem": _megabytes(memory // 24, at_least=64, at_most=1024),
        # no replica follows: a table filled in the transaction that makes it is synced to disk instead of logged twice
        "wal_level": "minimal",
        "max_wal_senders": 0,
        "max_wal_size": _megabytes(shutil.disk_usage(base).free // 10, at_least=256, at_most=8192),
        "checkpoint_timeout": "'15min'",
        "max_parallel_workers": cpu_count,
        "max_parallel_workers_per_gather": min(cpu_count, 4),
        "random_page_cost": 1,
        "dynamic_shared_memory_type": _dynamic_shared_memory(),
        # delivered values must not reach the log: neither statements and parameters, nor messages such as
        # `invalid input syntax for type bigint: "…"`, which are of level error. The client still gets them.
        "log_min_messages": "log",
        "log_min_error_statement": "panic",
        "log_error_verbosity": "terse",
        "log_parameter_max_length": 0,
        "log_parameter_max_length_on_error": 0,
        "log_statement": "none",
        "log_timezone": "'UTC'",
        # of "authorization" the message holds the application's name, which is the client's own text
        "log_connections": "'authentication'",
        # time, process, session, host, command, for governance.access_log: nothing that a client writes, so no user's
        # name, which before the login is anything at all, with line breaks
        "log_line_prefix": r"'%m\t%p\t%c\t%h\t%i\t'",
        "lc_messages": "'C'",
    }
    return "".join(f"{name} = {value}\n" for name, value in settings.items())


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _megabytes(wanted_bytes: int, at_least: int, at_most: int) -> str:
    return f"'{min(max(wanted_bytes // MEGABYTE, at_least), at_most)}MB'"


def _dynamic_shared_memory() -> str:
    # containers give it 64 MB, too little for one parallel hash join
    shared_memory = "/dev/shm"  # noqa: S108 (Postgres' choice, not ours)
    try:
        return "posix" if shutil.disk_usage(shared_memory).total >= GIGABYTE else "sysv"
    except OSError:
        return "posix"
