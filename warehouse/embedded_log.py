"""The embedded server's log as files: set aside when it grows, shortened when its time is over.

The server holds `<home>/postgres.log` open from start to end, so the file is copied to `<home>/postgres.log.<time>` and
emptied, never moved. What the lines mean is known to `governance.access_log`.
"""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from warehouse import files
from warehouse.embedded_settings import MEGABYTE

NAME = "postgres.log"
LOG_BYTES = 16 * MEGABYTE
BLOCK_BYTES = MEGABYTE
# as in a line's first field, without the time zone, which is UTC
TIME_LENGTH = len("2026-01-01 00:00:00.000")


def log_files(home: Path) -> list[Path]:
    """Return the files of the log, oldest first; the one that is written to is the last."""
    aside = sorted(home.glob(f"{NAME}.[0-9]*"))
    current = home / NAME
    return [*aside, current] if current.exists() else aside


def bound(home: Path) -> None:
    """Set the log aside if it has grown large; else a look at its size is all."""
    if _size(home) > LOG_BYTES:
        with files.lock(home / ".lock"):
            if _size(home) > LOG_BYTES:
                _set_aside(home)


def forget_before(home: Path, moment: datetime) -> int:
    """Delete all lines older than `moment`; return how many.

    A line without a time belongs to the one above it.
    """
    limit = f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d}".encode()
    if not log_files(home):
        return 0
    with files.lock(home / ".lock"):
        if _begins_before(home / NAME, limit):
            _set_aside(home)
        return sum(_shorten(path, limit) for path in log_files(home) if path.name != NAME)


def _size(home: Path) -> int:
    try:
        return (home / NAME).stat().st_size
    except FileNotFoundError:
        return 0


def _begins_before(path: Path, limit: bytes) -> bool:
    try:
        with path.open("rb") as stream:
            return next((time for line in stream if (time := _time(line))), limit) < limit
    except FileNotFoundError:
        return False


def _time(line: bytes) -> bytes:
    """Return the time a line begins with, in a form that sorts; empty if it begins with none."""
    time, zone = line[:TIME_LENGTH], line[TIME_LENGTH : TIME_LENGTH + 4]
    is_time = zone == b" UTC" and time[4:5] == b"-" and time[:4].isdigit()
    return time if is_time else b""


def _set_aside(home: Path) -> None:
    with (home / NAME).open("r+b") as log:
        temporary = home / f".{NAME}.aside"
        temporary.unlink(missing_ok=True)
        with _create(temporary) as copy:
            _copy(log, copy)
            os.fsync(copy.fileno())
            # a kill from here on leaves lines twice, never none
            temporary.replace(home / f"{NAME}.{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
            # what the server has written meanwhile; between the last look and the cut lie microseconds
            while os.fstat(log.fileno()).st_size > log.tell():
                _copy(log, copy)
            log.truncate(0)


def _copy(log: BinaryIO, copy: BinaryIO) -> None:
    while block := log.read(BLOCK_BYTES):
        copy.write(block)
    copy.flush()


def _shorten(path: Path, limit: bytes) -> int:
    if not _begins_before(path, limit):
        return 0
    temporary = path.with_name(f".{path.name}")
    temporary.unlink(missing_ok=True)
    removed = kept = 0
    is_old = True
    with path.open("rb") as log, _create(temporary) as copy:
        for line in log:
            is_old = _time(line) < limit if _time(line) else is_old
            if is_old:
                removed += 1
            else:
                kept += 1
                copy.write(line)
    if kept:
        temporary.replace(path)
    else:
        path.unlink()
        temporary.unlink()
    return removed


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
