"""The monthly files on disk: compressed, hashed and complete, or not there.

Not here: what is in them (`rendering`) and the manifest beside them (`manifest`).
"""

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from isal import isal_zlib

from ingestion.ecommerce.simulation.rendering import HEADER


@dataclass(frozen=True)
class WrittenFile:
    """A finished file: `sha256` and `byte_count` are of the compressed bytes."""

    path: Path
    sha256: str
    byte_count: int


class MonthFile:
    """A gzip file compressed on another thread, which appears under its name when the `with` block ends well."""

    _GZIP_LEVEL: Final = 1
    _GZIP_WINDOW_BITS: Final = 31  # gzip with an empty header: no name, no time
    _BLOCKS_AHEAD: Final = 2

    def __init__(self, path: Path, thread: ThreadPoolExecutor) -> None:
        self._path = path
        self._thread = thread
        self._partial_path = path.with_name(f".{path.name}.partial")
        self._compressor = isal_zlib.compressobj(self._GZIP_LEVEL, isal_zlib.DEFLATED, self._GZIP_WINDOW_BITS)
        self._sha256 = hashlib.sha256()
        self._byte_count = 0
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> "MonthFile":
        self._stream = self._partial_path.open("wb")
        self.write(HEADER.encode() + b"\n")
        return self

    def __exit__(self, exception_type: type[BaseException] | None, *_: object) -> None:
        is_complete = False
        try:
            self._wait(0)
            self._append(self._compressor.flush())
            is_complete = exception_type is None
        finally:
            self._stream.close()
            if is_complete:
                self._partial_path.replace(self._path)
            else:
                self._partial_path.unlink()

    def write(self, lines: bytes) -> None:
        """Hand lines to the other thread; waits when it falls behind."""
        self._pending.append(self._thread.submit(self._compress, lines))
        self._wait(self._BLOCKS_AHEAD)

    def written(self) -> WrittenFile:
        """Name, hash and size of the finished file."""
        return WrittenFile(self._path, self._sha256.hexdigest(), self._byte_count)

    def _wait(self, pending_count: int) -> None:
        while len(self._pending) > pending_count:
            self._pending.popleft().result()

    def _compress(self, lines: bytes) -> None:
        self._append(self._compressor.compress(lines))

    def _append(self, compressed: bytes) -> None:
        self._stream.write(compressed)
        self._sha256.update(compressed)
        self._byte_count += len(compressed)
