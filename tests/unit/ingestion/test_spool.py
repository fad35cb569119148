"""The private copy: guards against what is no complete text file."""

import errno
import gzip
import hashlib
import io
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from ingestion import spool
from ingestion.spool import Spooled, open_delivered, spooled, write_block
from warehouse.errors import UserError

TEXT = b"event_time,event_type\n" + b"2019-10-01 00:00:00 UTC,view\n" * 1000


def nobody(done: int, total: int) -> None:
    pass


def content_of(path: Path) -> bytes:
    with spooled(path, path.parent / "spool", nobody) as copy:
        return b"".join(block for block, _ in copy.blocks())


@pytest.fixture
def delivered(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "2019-Oct.csv"
        path.write_bytes(content)
        return path

    return write


def test_a_copy_is_hashed_and_nameless(delivered: Callable[[bytes], Path]) -> None:
    path = delivered(TEXT)
    told: list[tuple[int, int]] = []
    with spooled(path, path.parent / "spool", lambda done, total: told.append((done, total))) as copy:
        assert copy.sha256 == hashlib.sha256(TEXT).hexdigest()
        assert (copy.file_name, copy.size_bytes) == ("2019-Oct.csv", len(TEXT))
        assert list((path.parent / "spool").iterdir()) == []
        # what was delivered may go meanwhile
        path.unlink()
        assert b"".join(block for block, _ in copy.blocks()) == TEXT
        assert [done for _, done in copy.blocks()][-1] == len(TEXT)
    assert told == [(len(TEXT), len(TEXT))]
    assert (path.parent / "spool").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "packed",
    [
        TEXT,
        gzip.compress(TEXT),
        gzip.compress(TEXT[:100]) + gzip.compress(b"") + gzip.compress(TEXT[100:]),
        gzip.compress(TEXT) + b"\0" * 5000,
        gzip.compress(TEXT[:100]) + b"\0" * 7 + gzip.compress(TEXT[100:]),
    ],
    ids=["plain", "gzip", "joined", "zero-padded", "joined and padded"],
)
def test_gzip_is_known_by_its_content(delivered: Callable[[bytes], Path], packed: bytes) -> None:
    assert content_of(delivered(packed)) == TEXT


def test_blocks_are_small_and_bytes_done_are_delivered_ones(delivered: Callable[[bytes], Path]) -> None:
    text = TEXT + os.urandom(3_000_000).hex().encode()
    path = delivered(gzip.compress(text, 1))
    with spooled(path, path.parent / "spool", nobody) as copy:
        blocks = list(copy.blocks())
    assert b"".join(block for block, _ in blocks) == text
    assert max(len(block) for block, _ in blocks) <= spool.BLOCK_BYTES
    done = [done for _, done in blocks]
    assert done == sorted(done)
    assert done[-1] == path.stat().st_size


PACKED = gzip.compress(TEXT)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty (0 bytes)"),
        (PACKED[:2], "ends too early"),
        (PACKED[:12], "ends too early"),
        (PACKED[:-1], "ends too early"),
        (PACKED[:-8], "ends too early"),
        (PACKED[: len(PACKED) // 2], "ends too early"),
        (PACKED[:-6] + b"\1\2" + PACKED[-4:], "is damaged"),
        (PACKED[:-2] + b"\1\2", "is damaged"),
        (PACKED[:20] + b"\xff" * 40 + PACKED[60:], "is damaged"),
        (PACKED + b"trailing", "something follows"),
        (PACKED + b"\0\0x", "something follows"),
        (gzip.compress(PACKED), "a gzip file within a gzip file"),
        (gzip.compress(b"\0" * 30_000_000), "filled with NUL bytes"),
        (gzip.compress(b"a,b\n" * 10_000_000), "grows more than 200 times"),
        (b"PK\x03\x04" + b"x" * 100, "a zip archive or an Excel workbook"),
        (gzip.compress(b"PAR1" + b"x" * 100), "a Parquet file"),
        (b"\xd0\xcf\x11\xe0" + b"x" * 100, "an old Excel workbook"),
        (b"%PDF-1.7", "a PDF"),
        (TEXT.decode().encode("utf-16"), "encoded in UTF-16"),
        (TEXT.decode().encode("utf-16-le"), "encoded in UTF-16 (little-endian)"),
        (gzip.compress(TEXT.decode().encode("utf-16-be")), "encoded in UTF-16 (big-endian)"),
        (TEXT.decode().encode("utf-32"), "encoded in UTF-32"),
        (b"\0" * 4096, "filled with NUL bytes"),
    ],
)
def test_what_is_no_complete_text_is_refused(delivered: Callable[[bytes], Path], content: bytes, told: str) -> None:
    with pytest.raises(UserError) as refusal:
        content_of(delivered(content))
    assert told in str(refusal.value)
    assert str(refusal.value).startswith("2019-Oct.csv")


def test_a_bomb_is_noticed_before_it_has_unfolded(delivered: Callable[[bytes], Path]) -> None:
    path = delivered(gzip.compress(b"a,b\n" * 100_000_000, 1))
    inflated = 0
    with spooled(path, path.parent / "spool", nobody) as copy, pytest.raises(UserError, match="grows"):
        for block, _ in copy.blocks():
            inflated += len(block)
    assert inflated <= 200 * path.stat().st_size


def grow(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more\n")


def touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def replace(path: Path) -> None:
    path.rename(path.with_suffix(".old"))
    path.write_bytes(TEXT)


def shorten(path: Path) -> None:
    os.truncate(path, len(TEXT) - 10)


@pytest.mark.parametrize("change", [grow, touch, replace, shorten, Path.unlink])
def test_a_file_that_changes_while_copied_is_refused(
    delivered: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(spool, "BLOCK_BYTES", 1000)
    path = delivered(TEXT)
    calls = iter([change])

    def disturb(done: int, total: int) -> None:
        for apply in calls:
            apply(path)

    with pytest.raises(UserError, match="still growing or changing"), spooled(path, path.parent / "spool", disturb):
        pytest.fail("the file changed")


def test_files_that_cannot_be_read_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="There is no file"):
        open_delivered(tmp_path / "nowhere.csv")
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="not an ordinary file"):
        open_delivered(pipe)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    locked = tmp_path / "locked.csv"
    locked.write_bytes(TEXT)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\)"):
        open_delivered(locked)


def test_a_full_disk_is_told(delivered: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20))
    with pytest.raises(UserError, match="make room"):
        content_of(delivered(TEXT))


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_is_told(delivered: Callable[[bytes], Path], fault: int) -> None:
    full = io.BytesIO()
    full.write = Mock(side_effect=OSError(fault, os.strerror(fault)))  # type: ignore[method-assign]
    with pytest.raises(UserError, match="is full: make room"):
        write_block(full, TEXT, "2019-Oct.csv", delivered(TEXT).parent)


def test_a_disk_that_fails_is_told(delivered: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = delivered(TEXT)
    with path.open("rb") as file:
        broken = Mock(fileno=file.fileno, read=Mock(side_effect=OSError(errno.EIO, "Input/output error")))
        monkeypatch.setattr(spool, "open_delivered", lambda _: nullcontext(broken))
        with pytest.raises(UserError, match=r"cannot be read \(Input/output error\): check its disk"):
            content_of(path)


def test_a_file_beyond_all_measure_is_refused(
    delivered: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "LARGEST_FILE_BYTES", 100)
    with pytest.raises(UserError, match="deliver it in parts"):
        content_of(delivered(TEXT))


def test_a_copy_is_readable_twice(delivered: Callable[[bytes], Path]) -> None:
    path = delivered(PACKED)
    with spooled(path, path.parent / "spool", nobody) as copy:
        assert isinstance(copy, Spooled)
        assert list(copy.blocks()) == list(copy.blocks())
