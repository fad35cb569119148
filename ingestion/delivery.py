"""Which files are meant: paths, URLs and buckets in, files with their periods out, in the order they are to land."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

from ingestion.download import RemoteFile, patiently
from ingestion.source import Period, Source
from ingestion.spool import USUAL_INFLATION, open_delivered
from warehouse.errors import UserError

File = Path | RemoteFile
Location = str | File


@dataclass(frozen=True)
class Delivery:
    """A file to land, the period it is about, and about how much text it holds (0 if its server does not say)."""

    file: File
    period: Period
    text_bytes: int = 0


def deliveries(
    source: Source,
    locations: Sequence[Location],
    *,
    since: Period | None,
    period: Period | None,
    notice: Callable[[str], None],
) -> list[Delivery]:
    """Return the files that `locations` mean in the order of period and name.

    Args:
        source: says which names state which period.
        locations: see `files_at`.
        since: leaves out files whose period ends before this one begins.
        period: what the files are about, whatever their names say.
        notice: told of CSV files that a folder holds but that are not meant, and of servers that fail.

    Raises:
        UserError: a location without file, a folder without matching file, a file without period, two of one name.
        LoadError: a server failed, and three times again.
    """
    by_place: dict[Path | str, Delivery] = {}
    for location in locations:
        files = patiently(partial(files_at, source, location, notice), str(location), notice)
        if not files:
            raise UserError(f"{location} holds no file named like {source.file_names}.")
        for file in files:
            if not file.name.isprintable():
                raise UserError(f"The name of {file.name!a} holds characters that cannot be printed: rename it.")
            about = period or source.period_of_file(file.name)
            if about is None:
                raise UserError(
                    f"The name of {file.name} states no period: name it like {source.file_names} or pass --period."
                )
            if since is None or about.end > since.start:
                by_place[file.resolve() if isinstance(file, Path) else file.address] = Delivery(file, about)
    found = sorted(by_place.values(), key=lambda delivery: (delivery.period.text, delivery.file.name))
    for one, other in pairwise(found):
        if (one.period, one.file.name) == (other.period, other.file.name):
            raise UserError(
                f"{_place(one.file)} and {_place(other.file)} have the same name, so one would replace the other: "
                "load one."
            )
    if since and not found:
        notice(f"nothing to load: all files are of periods before {since.text}")
    # what cannot be read is told before any other file is landed
    return [replace(delivery, text_bytes=_text_bytes(delivery.file, notice)) for delivery in found]


def files_at(source: Source, location: Location, notice: Callable[[str], None]) -> list[File]:
    """Return the files that a location means.

    Args:
        source: says which names are meant in a folder.
        location: a file; or the text of a path, of an ``https://`` URL of a file, or of ``s3://bucket/key``. A folder,
            there a key that is no object, means every file directly in it whose name states a period: maybe none.
        notice: told of CSV files that a folder holds but that are not meant.

    Raises:
        UserError: there is no such file or folder, or no such kind of location; an address is misspelt.
        TransferError: the server of a bucket failed.
    """
    if not isinstance(location, str | Path):
        return [location]
    scheme = re.match(r"([a-z][a-z0-9+.-]*)://", str(location), re.IGNORECASE)
    if not str(location).strip():
        raise UserError("One of the locations is empty: name a path, an https:// URL or s3://bucket/key.")
    if scheme is None and re.match(r"\s*(https?|s3):", str(location), re.IGNORECASE):
        # not repeated: it may hold a password
        raise UserError("One of the addresses is no URL: write it like https://host/file or s3://bucket/key.")
    if isinstance(location, Path) or scheme is None:
        path = Path(location).expanduser()
        try:
            if not path.is_dir():
                # a name that is wrong is told before one that states no period
                open_delivered(path).close()
                return [path]
            return _matching(source, path, [file for file in path.iterdir() if file.is_file()], notice)
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): check its permissions.") from None
    # heavy, and most files come from a folder
    match scheme[1].lower():
        case "https" | "http":
            from ingestion.https import web_file

            return [web_file(location)]
        case "s3":
            from ingestion.s3 import bucket_files

            files, is_folder = bucket_files(location)
            return _matching(source, location, files, notice) if is_folder else list(files)
        case other:
            raise UserError(f"Nothing can be loaded from {other}://: name a path, an https:// URL or s3://bucket/key.")


def _matching(source: Source, folder: object, files: Sequence[File], notice: Callable[[str], None]) -> list[File]:
    meant = sorted((file for file in files if source.period_of_file(file.name)), key=lambda file: file.name)
    others = sorted(file.name for file in files if file not in meant and ".csv" in Path(file.name).suffixes)
    if meant and others:
        notice(f"{folder}: left out, as their names are not like {source.file_names}: {', '.join(others)}")
    return meant


def _text_bytes(file: File, notice: Callable[[str], None]) -> int:
    if isinstance(file, Path):
        with open_delivered(file) as delivered:
            size_bytes = os.fstat(delivered.fileno()).st_size
    else:
        size_bytes = patiently(file.version, file.where, notice).size_bytes or 0
    return size_bytes * (USUAL_INFLATION if file.name.lower().endswith(".gz") else 1)


def _place(file: File) -> str:
    return str(file) if isinstance(file, Path) else file.where
