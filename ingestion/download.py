"""A private copy of a file on a server: downloaded once, resumed where it stopped, gone once it has landed.

What has come so far lies in a file of the spool that only its owner can read. Its name is a hash of the address and of
the version the server has, so that a part is never continued with the bytes of another version. How a server is asked
is known to `https` and `s3`; when to try again, what is complete and what may stay is decided here.
"""

import contextlib
import fcntl
import hashlib
import ipaddress
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import BufferedRandom
from pathlib import Path
from typing import Protocol, TypeVar

from ingestion.audit import LoadError
from ingestion.spool import BLOCK_BYTES, LARGEST_FILE_BYTES, Spooled, make_spool, refuse_size, write_block
from warehouse import settings
from warehouse.errors import UserError

BACK_OFF_SECONDS = (1.0, 4.0, 16.0)
CONNECT_SECONDS = 10
READ_SECONDS = 60
# a day may pass before somebody looks at a download that failed, and a weekend
KEPT_DAYS = 7
LARGEST_CHECKSUM_FILE_BYTES = 2**20

Result = TypeVar("Result")


class TransferError(Exception):
    """The network or the server failed; it may work the next time. The message continues "<file>: …"."""

    def __init__(self, message: str, *, gained_bytes: int = 0) -> None:
        super().__init__(message)
        self.gained_bytes = gained_bytes


@dataclass(frozen=True)
class Version:
    """What a server says of a file: None where it says nothing. An etag is a strong one: other bytes, other etag."""

    size_bytes: int | None
    etag: str | None
    modified: str | None = None
    sha256: str | None = None

    @property
    def validator(self) -> str | None:
        """What a server is to compare before it sends the rest of a file."""
        return self.etag or self.modified


@dataclass(frozen=True)
class Body:
    """The bytes of a file from `start` on; `start` is 0 where the server sends all of it again."""

    start: int
    blocks: Iterator[bytes]


class RemoteFile(Protocol):
    """A file on a server.

    `name` is the file's own, `where` names it to people (no query, no credentials), `address` is unique and only ever
    hashed. `listed_as` is what changes in a listing when the file does, or "" where nothing lists it. All methods raise
    TransferError for what may pass, and UserError for what will not.
    """

    @property
    def name(self) -> str: ...
    @property
    def where(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def listed_as(self) -> str: ...

    def version(self) -> Version:
        """What the server has now."""

    def read(self, version: Version, start: int) -> AbstractContextManager[Body]:
        """The bytes from `start` on, or all of them, of that version and no other."""

    def checksum_files(self) -> Iterator[tuple[str, str | None]]:
        """Where a checksum might be published beside the file, and what stands there: None if nothing does."""


@contextmanager
def downloaded(
    remote: RemoteFile,
    directory: Path,
    on_bytes: Callable[[int, int], None],
    notice: Callable[[str], None],
) -> Iterator[Spooled]:
    """Download a file into `directory`, telling `on_bytes` the bytes done and in all (0: not known).

    The copy is deleted when the block ends, unless it ends by a failure that is not the user's: then the next attempt
    goes on from it.

    Raises:
        UserError: the file is missing, refused, empty, too large for the disk, or not what its checksum says.
        LoadError: the network or the server failed, and three times again.
    """
    make_spool(directory)
    parts = _Parts(remote, directory, notice)
    is_kept = True
    try:
        version = patiently(lambda: _download(parts, on_bytes), remote.where, notice)
        copy = parts.stream
        copy.seek(0)
        sha256 = hashlib.file_digest(copy, "sha256").hexdigest()
        published = patiently(lambda: _published_sha256(remote, version), remote.where, notice)
        if published and published[0] != sha256:
            raise UserError(
                f"{remote.where} is not what {published[1]} says: its SHA-256 is {sha256} and should be "
                f"{published[0]}: load it again, and if that does not help, tell those who publish it."
            )
        yield Spooled(remote.name, sha256, os.fstat(copy.fileno()).st_size, copy, version_id(remote, version))
        is_kept = False
    except UserError:
        is_kept = False
        raise
    finally:
        parts.close(is_kept=is_kept)


def patiently(ask: Callable[[], Result], where: str, notice: Callable[[str], None]) -> Result:
    """Return what `ask` returns, asking again after a TransferError: three times without a gain, with growing pauses.

    Raises:
        LoadError: the last try failed as well.
    """
    tries = 0
    while True:
        try:
            return ask()
        except TransferError as fault:
            tries = 0 if fault.gained_bytes >= BLOCK_BYTES else tries
            if tries == len(BACK_OFF_SECONDS):
                failure = LoadError(f"{where}: {fault}, and {tries} times again: load it again later.")
                break
            pause = BACK_OFF_SECONDS[tries]
            notice(f"{where}: {fault}; trying again in {pause:g} s")
        time.sleep(pause)
        tries += 1
    # raised here and not above: what a library says of an address must not travel along as its context
    raise failure


def version_id(remote: RemoteFile, version: Version) -> str | None:
    """A hash of a file's address and version, by which it is known again; None where the server gives no etag."""
    return _hash(remote.address, version.etag, version.size_bytes) if version.etag else None


def sweep_spool(directory: Path, as_of: datetime) -> None:
    """Delete the parts of downloads that nobody has gone on with for a week before `as_of`."""
    for path in directory.glob("*.part"):
        with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open("rb") as part:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(part.fileno()).st_mtime < (as_of - timedelta(days=KEPT_DAYS)).timestamp():
                path.unlink()


def refuse_readable_line(where: str, scheme: str, host: str | None) -> None:
    """Raise UserError for http:// to another machine, unless AGORA_ALLOW_HTTP=1: logs of people would be readable."""
    if scheme == "https" or settings.allows_http() or host == "localhost":
        return
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host or "").is_loopback:
            return
    raise UserError(
        f"{where} is http://, which anybody on the way can read and change: use https://, or set AGORA_ALLOW_HTTP=1 "
        "for a network that is yours."
    )


def sha256_in(text: str, file_name: str) -> str | None:
    """The SHA-256 that a checksum file gives for a file, in lower case: GNU or BSD lines, or a bare one."""
    for line in text.splitlines():
        parts = re.fullmatch(r"\\?([0-9a-fA-F]{64})(?:[ \t]+\*?(.+))?", line.strip())
        if parts and (parts[2] is None or Path(parts[2]).name == file_name):
            return parts[1].lower()
        parts = re.fullmatch(r"SHA2?-?256 ?\((.+)\) ?= ?([0-9a-fA-F]{64})", line.strip())
        if parts and Path(parts[1]).name == file_name:
            return parts[2].lower()
    return None


class _Parts:
    """The part of the version being downloaded, open and locked; a part of an earlier version goes."""

    def __init__(self, remote: RemoteFile, directory: Path, notice: Callable[[str], None]) -> None:
        self.remote = remote
        self.directory = directory
        self.notice = notice
        self.path: Path | None = None
        self._stream: BufferedRandom | None = None

    @property
    def stream(self) -> BufferedRandom:
        assert self._stream is not None
        return self._stream

    def open(self, version: Version) -> BufferedRandom:
        path = None
        # what cannot be resumed gets no name
        if version.validator and version.size_bytes:
            name = _hash(self.remote.address, version.validator, version.size_bytes)
            path = self.directory / f"{name[:32]}.part"
        if self._stream is None or path is None or path != self.path:
            self.close(is_kept=False)
            self._stream = self._open_locked(path) if path else tempfile.TemporaryFile(dir=self.directory)  # noqa: SIM115 outlives this
            self.path = path
        return self.stream

    def _open_locked(self, path: Path) -> BufferedRandom:
        while True:
            stream = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "r+b")
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.notice(f"{self.remote.where}: waiting for another process that downloads it")
                fcntl.flock(stream, fcntl.LOCK_EX)
            # who held the lock may have deleted the file
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(stream.fileno()).st_ino:
                    return stream
            stream.close()

    def close(self, *, is_kept: bool) -> None:
        if self._stream is None:
            return
        if self.path and not is_kept:
            self.path.unlink(missing_ok=True)
        self._stream.close()
        self._stream = None


def _download(parts: _Parts, on_bytes: Callable[[int, int], None]) -> Version:
    remote = parts.remote
    version = remote.version()
    part = parts.open(version)
    done = part.seek(0, os.SEEK_END)
    if version.size_bytes is not None:
        refuse_size(remote.name, version.size_bytes, parts.directory, have_bytes=done)
        if done == version.size_bytes:
            return version
    before = done
    try:
        with remote.read(version, done) as body:
            if body.start != done:
                done = before = 0
            # what is there of an earlier try may be longer than what comes
            part.seek(done)
            part.truncate()
            for block in body.blocks:
                done += len(block)
                if done > (version.size_bytes or LARGEST_FILE_BYTES):
                    part.truncate(0)
                    raise TransferError("the server sends more bytes than it announced")
                write_block(part, block, remote.name, parts.directory)
                on_bytes(done, version.size_bytes or 0)
    except TransferError as fault:
        raise TransferError(str(fault), gained_bytes=done - before) from None
    if version.size_bytes is not None and done != version.size_bytes:
        raise TransferError(f"the server ended after {done} of {version.size_bytes} bytes", gained_bytes=done - before)
    refuse_size(remote.name, done, parts.directory, have_bytes=done)
    return version


def _published_sha256(remote: RemoteFile, version: Version) -> tuple[str, str] | None:
    """The SHA-256 somebody published for the file and where, or None."""
    if version.sha256:
        return version.sha256, "its bucket"
    for where, text in remote.checksum_files():
        sha256 = sha256_in(text, remote.name) if text else None
        if sha256:
            return sha256, where
    return None


def _hash(*parts: object) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()
