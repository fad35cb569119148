"""A private copy of a delivered file: copied once, hashed on the way, decompressed in blocks, gone when closed.

The copy has no name: it is an open file that the system itself removes when the process ends, however it ends, so a
killed load leaves nothing behind. Copies of files on a server are made in `download`. What the bytes mean is not known
here; `door` knows.
"""

import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from isal import igzip_lib

from warehouse.errors import UserError

BLOCK_BYTES = 2**20
LARGEST_FILE_BYTES = 64 * 2**30
SPARE_DISK_BYTES = 64 * 2**20
# REES46's logs shrink to a third, simulated ones to a sixth; deflate gets to a thousandth at most
USUAL_INFLATION = 3
LARGEST_INFLATION = 200
HARMLESS_BYTES = 10 * 2**20

GZIP_MAGIC = b"\x1f\x8b"
FOREIGN_MAGICS = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"PAR1", "a Parquet file"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\x00", "an xz file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"%PDF", "a PDF"),
    (b"SQLite format 3", "an SQLite database"),
    (b"ORC", "an ORC file"),
    (b"Obj\x01", "an Avro file"),
    (GZIP_MAGIC, "a gzip file within a gzip file"),
)
WIDE_ENCODINGS = {
    "utf-16": "UTF-16",
    "utf-16-be": "UTF-16 (big-endian)",
    "utf-16-le": "UTF-16 (little-endian)",
    "utf-32": "UTF-32",
}


@dataclass(frozen=True)
class Spooled:
    """The private copy of one delivered file."""

    file_name: str
    sha256: str
    size_bytes: int
    stream: IO[bytes]
    # of a file on a server: by what it is known again, unread
    version_id: str | None = None

    @property
    def text_bytes(self) -> int:
        """How much text comes out of the copy: exactly, or for gzip about, at the rate of a click log."""
        return self.size_bytes * (USUAL_INFLATION if self._is_gzip() else 1)

    def blocks(self, *, may_be_wide: bool = False) -> Iterator[tuple[bytes, int]]:
        """Yield blocks of about 1 MB of text with the delivered bytes they took so far.

        Args:
            may_be_wide: pass text in UTF-16 or UTF-32 on, rather than refuse it.

        Raises:
            UserError: the gzip stream is cut, damaged, followed by something else or a bomb; or what comes out is no
                text: another kind of file, another encoding.
        """
        first = True
        is_gzip = self._is_gzip()
        self.stream.seek(0)
        for block, done in self._inflated() if is_gzip else self._plain():
            if first:
                refuse_foreign_bytes(self.file_name, block, may_be_wide=may_be_wide)
            first = False
            yield block, done

    def _is_gzip(self) -> bool:
        # the stream stays where it is: it may be half read
        return os.pread(self.stream.fileno(), len(GZIP_MAGIC), 0) == GZIP_MAGIC

    def _plain(self) -> Iterator[tuple[bytes, int]]:
        while block := self.stream.read(BLOCK_BYTES):
            yield block, self.stream.tell()

    def _inflated(self) -> Iterator[tuple[bytes, int]]:
        inflated = 0
        gzip = _gzip_member()
        waiting = b""
        while waiting := waiting or self.stream.read(BLOCK_BYTES // 4):
            if gzip.eof:
                # gzip files may be joined; some tools fill the last disk block with zeros
                waiting = waiting.lstrip(b"\0")
                if not waiting:
                    continue
                if GZIP_MAGIC[: len(waiting)] != waiting[:2]:
                    raise UserError(f"{self.file_name}: something follows the gzip stream: deliver the file again.")
                gzip = _gzip_member()
            while (waiting or not gzip.needs_input) and not gzip.eof:
                try:
                    block = gzip.decompress(waiting, BLOCK_BYTES)
                except igzip_lib.IsalError:  # type: ignore[misc]  # its stub calls the class an instance
                    raise UserError(f"{self.file_name}: the gzip stream is damaged: deliver the file again.") from None
                waiting = b""
                inflated += len(block)
                if inflated > max(HARMLESS_BYTES, LARGEST_INFLATION * self.stream.tell()):
                    raise UserError(
                        f"{self.file_name}: the gzip stream grows more than {LARGEST_INFLATION} times as it is opened, "
                        "which no event log does: deliver the file again, not compressed."
                    )
                if block:
                    yield block, self.stream.tell()
            waiting = gzip.unused_data if gzip.eof else b""
        if not gzip.eof:
            raise UserError(f"{self.file_name}: the gzip stream ends too early (cut off?): deliver the file again.")


@contextmanager
def spooled(path: Path, directory: Path, on_bytes: Callable[[int, int], None]) -> Iterator[Spooled]:
    """Copy a delivered file to a nameless one in `directory`, telling `on_bytes` the bytes done and in all.

    Raises:
        UserError: the file is missing, unreadable, empty, too large for the disk, or changes while it is copied.
    """
    make_spool(directory)
    with open_delivered(path) as delivered:
        before = os.fstat(delivered.fileno())
        refuse_size(path.name, before.st_size, directory)
        with tempfile.TemporaryFile(dir=directory) as copy:
            sha256 = hashlib.sha256()
            done = 0
            for block in _blocks(delivered, path):
                sha256.update(block)
                write_block(copy, block, path.name, directory)
                done += len(block)
                if done > before.st_size:
                    break
                on_bytes(done, before.st_size)
            if done != before.st_size or _identity(path) != _identity_of(before):
                raise UserError(f"{path.name} is still growing or changing: load it once its delivery is complete.")
            yield Spooled(path.name, sha256.hexdigest(), done, copy)


def open_delivered(path: Path) -> IO[bytes]:
    """Open a delivered file for reading; UserError if there is none, it cannot be read or is no ordinary file."""
    try:
        # a pipe would block for ever
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path} is not an ordinary file.")
        return path.open("rb")
    except FileNotFoundError:
        raise UserError(f"There is no file {path}.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check its permissions.") from None


def _blocks(delivered: IO[bytes], path: Path) -> Iterator[bytes]:
    try:
        while block := delivered.read(BLOCK_BYTES):
            yield block
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check its disk.") from None


def make_spool(directory: Path) -> None:
    """Make the directory of private copies, which nobody else on this machine may look into."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def write_block(copy: IO[bytes], block: bytes, file_name: str, directory: Path) -> None:
    """Write a block to the copy of a file; UserError if the disk is full."""
    try:
        copy.write(block)
        copy.flush()
    except OSError as error:
        # a quota is a full disk to its user
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(f"{file_name}: the disk of {directory} is full: make room.") from None


def refuse_size(file_name: str, size_bytes: int, directory: Path, *, have_bytes: int = 0) -> None:
    """Raise UserError for a file that is empty, larger than any delivery, or too large for the disk of `directory`.

    `have_bytes` of it are on that disk already.
    """
    if size_bytes == 0:
        raise UserError(f"{file_name} is empty (0 bytes): deliver it again.")
    if size_bytes > LARGEST_FILE_BYTES:
        raise UserError(f"{file_name} has more than {LARGEST_FILE_BYTES // 2**30} GB: deliver it in parts.")
    free_bytes = shutil.disk_usage(directory).free
    if size_bytes - have_bytes + SPARE_DISK_BYTES > free_bytes:
        raise UserError(
            f"{file_name} needs {(size_bytes - have_bytes) // 2**20} MB of room in {directory}, where "
            f"{free_bytes // 2**20} MB are free: make room or choose another AGORA_HOME."
        )


def refuse_foreign_bytes(file_name: str, head: bytes, *, may_be_wide: bool = False) -> None:
    """Raise UserError, naming what it is, if the first bytes of a text are those of something else."""
    for magic, kind in FOREIGN_MAGICS:
        if head.startswith(magic):
            raise UserError(f"{file_name} is {kind}, not CSV text: export it as CSV.")
    if re.match(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html)", head[:1024], re.IGNORECASE):
        raise UserError(
            f"{file_name} is a web page, not CSV text: the link may ask for a login first, or lead to a page about it."
        )
    codec = wide_codec(head)
    if codec and not may_be_wide:
        name, option = WIDE_ENCODINGS[codec], codec[:6]
        raise UserError(f"{file_name} is encoded in {name}: export it in UTF-8 or pass --encoding {option}.")
    if not head.strip(b"\0"):
        raise UserError(f"{file_name} is filled with NUL bytes (a copy that failed?): deliver it again.")


def wide_codec(head: bytes) -> str | None:
    """The codec of a text of two or four bytes a character, one of `WIDE_ENCODINGS`, by its first bytes; or None."""
    head = head[:1024]
    if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "utf-32"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    # Latin text in UTF-16 without a mark: every other byte is NUL
    for first, codec in ((0, "utf-16-be"), (1, "utf-16-le")):
        half, other = head[first::2], head[1 - first :: 2]
        if half and half.count(0) > 0.9 * len(half) and other.count(0) < 0.1 * len(other):
            return codec
    return None


def _gzip_member() -> igzip_lib.IgzipDecompressor:
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


def _identity(path: Path) -> tuple[int, int, int, int] | None:
    try:
        return _identity_of(path.stat())
    except OSError:
        return None


def _identity_of(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
