"""Which files are meant: paths and folders in, files with their periods out, in the order they are to land."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ingestion.source import Period, Source
from ingestion.spool import open_delivered
from warehouse.errors import UserError


@dataclass(frozen=True)
class Delivery:
    """A file to land and the period it is about."""

    path: Path
    period: Period


def deliveries(
    source: Source,
    paths: Sequence[Path],
    *,
    since: Period | None,
    period: Period | None,
    notice: Callable[[str], None],
) -> list[Delivery]:
    """Return the files that `paths` mean in the order of period and name.

    Args:
        source: says which names state which period.
        paths: files, or directories, which mean every file in them whose name states a period.
        since: leaves out files whose period ends before this one begins.
        period: what the files are about, whatever their names say.
        notice: told of CSV files that a directory holds but that are not meant.

    Raises:
        UserError: a path without file, a directory without matching file, a file without period, two of one name.
    """
    by_path: dict[Path, Delivery] = {}
    for path in paths:
        for file in _files_meant(source, path.expanduser(), notice):
            # told before any other file is landed
            open_delivered(file).close()
            if not file.name.isprintable():
                raise UserError(f"The name of {file.name!a} holds characters that cannot be printed: rename it.")
            about = period or source.period_of_file(file.name)
            if about is None:
                raise UserError(
                    f"The name of {file.name} states no period: name it like {source.file_names} or pass --period."
                )
            if since is None or about.end > since.start:
                by_path[file.resolve()] = Delivery(file, about)
    found = sorted(by_path.values(), key=lambda delivery: (delivery.period.text, delivery.path.name))
    for one, other in pairwise(found):
        if (one.period, one.path.name) == (other.period, other.path.name):
            raise UserError(
                f"{one.path} and {other.path} have the same name, so one would replace the other: load one."
            )
    return found


def _files_meant(source: Source, path: Path, notice: Callable[[str], None]) -> list[Path]:
    try:
        if not path.is_dir():
            return [path]
        files = sorted(file for file in path.iterdir() if file.is_file())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check its permissions.") from None
    matching = [file for file in files if source.period_of_file(file.name)]
    if not matching:
        raise UserError(f"{path} holds no file named like {source.file_names}.")
    others = [file.name for file in files if file not in matching and ".csv" in file.suffixes]
    if others:
        notice(f"{path}: left out, as their names are not like {source.file_names}: {', '.join(others)}")
    return matching
