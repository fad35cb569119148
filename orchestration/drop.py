"""The drop folder: files laid there are landed by the next run of their domain. It is only read, never changed.

It is a directory under AGORA_HOME, or what the domain's variable names: another directory, a bucket, a file by URL.
Which files wait is asked of the audit, not of a clock: a tick that was missed is made up by the next.
"""

import hashlib
import os
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ingestion.delivery import File, files_at
from ingestion.download import TransferError, patiently
from ingestion.loader import FilesRefused, LoadResult, Progress, load
from ingestion.source import source_named
from warehouse.errors import UserError
from warehouse.settings import home


def drop_folder(source_name: str) -> str:
    """``AGORA_DROP_ECOMMERCE`` for the source ``ecommerce.events``, else ``AGORA_HOME/drop/ecommerce``, made here."""
    domain = source_name.split(".")[0]
    chosen = os.environ.get(f"AGORA_DROP_{domain.upper()}")
    if chosen:
        return chosen
    folder = home() / "drop" / domain
    # what lies here is as delivered: nobody else on this machine may read it
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    return str(folder)


def files_in_drop_folder(source_name: str, *, on_notice: Callable[[str], None]) -> list[File]:
    """The files of the drop folder whose names the source knows, in order of name.

    Raises:
        UserError: the variable names nothing that can be read.
        LoadError: a server failed, and three times again.
    """
    look = partial(look_into_drop_folder, source_name)
    return patiently(look, "the drop folder", on_notice)


def look_into_drop_folder(source_name: str) -> list[File]:
    """As `files_in_drop_folder`, but a server is asked only once: TransferError if it fails."""
    return files_at(source_named(source_name), drop_folder(source_name), notice=lambda _: None)


def state_of(file: File) -> tuple[str, ...]:
    """What changes when a file of the drop folder does; of a file by URL only the name, as nothing lists it."""
    if isinstance(file, Path):
        status = file.stat()
        return file.name, str(status.st_size), str(status.st_mtime_ns)
    return file.name, file.listed_as


def fingerprint_of(files: Sequence[File]) -> str:
    """A hash of the names and states of files of the drop folder; empty without any."""
    states = [state_of(file) for file in files]
    return hashlib.sha256(repr(states).encode()).hexdigest() if states else ""


def drop_fingerprint(source_name: str) -> str:
    """What lies in the drop folder; where that cannot be looked into, nothing that was ever seen before."""
    try:
        return fingerprint_of(look_into_drop_folder(source_name))
    except (TransferError, UserError):
        return secrets.token_hex()


def land_drop_folder(source_name: str, *, on_notice: Callable[[str], None]) -> list[LoadResult]:
    """Land the files of the drop folder; bytes that are landed already are skipped.

    A file that is refused does not keep the others from landing: its result has the status ``failed`` and says why.
    """

    def tell(progress: Progress) -> None:
        if progress.notice:
            on_notice(progress.notice)

    files = files_in_drop_folder(source_name, on_notice=on_notice)
    if not files:
        return []
    try:
        return load(source_named(source_name), files, on_progress=tell)
    except FilesRefused as refusal:
        return refusal.results
