"""The drop folder: files laid there are landed by the next run of their domain. It is only read, never changed.

Which files wait is asked of the audit, not of a clock: a tick that was missed is made up by the next.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

from ingestion.loader import FilesRefused, LoadResult, Progress, load
from ingestion.source import source_named
from warehouse.settings import home


def drop_folder(source_name: str) -> Path:
    """``AGORA_HOME/drop/ecommerce`` for the source ``ecommerce.events``; made if it is not there."""
    folder = home() / "drop" / source_name.split(".")[0]
    # what lies here is as delivered: nobody else on this machine may read it
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def files_in_drop_folder(source_name: str) -> list[Path]:
    """The files of the drop folder whose names the source knows, in order of name."""
    source = source_named(source_name)
    return sorted(
        file for file in drop_folder(source_name).iterdir() if file.is_file() and source.period_of_file(file.name)
    )


def drop_fingerprint(source_name: str) -> str:
    """What lies in the drop folder, by names, sizes and times; empty if nothing does."""
    states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files_in_drop_folder(source_name)]
    return hashlib.sha256(repr(states).encode()).hexdigest() if states else ""


def land_drop_folder(source_name: str, *, on_notice: Callable[[str], None]) -> list[LoadResult]:
    """Land the files of the drop folder; bytes that are landed already are skipped.

    A file that is refused does not keep the others from landing: its result has the status ``failed`` and says why.
    """

    def tell(progress: Progress) -> None:
        if progress.notice:
            on_notice(progress.notice)

    files = files_in_drop_folder(source_name)
    if not files:
        return []
    try:
        return load(source_named(source_name), files, on_progress=tell)
    except FilesRefused as refusal:
        return refusal.results
