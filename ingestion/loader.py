"""Landing, for every source: copy aside, hash, check at the door, land rows and quarantine and audit in one
transaction; and the two ways back, `undo` and `replay`.

Only what needs it is done as steward: removing rows, and opening quarantine. How lines are checked, keys are kept and
rows are written is known to `door`, `keys`, `quarantine` and `landing`.
"""

import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from ingestion import landing
from ingestion.audit import (
    Counts,
    LoadError,
    LoadRecord,
    close_attempt,
    load_record,
    loads_standing,
    note_bytes,
    open_attempt,
)
from ingestion.delivery import Delivery, Location, deliveries
from ingestion.dialect import Dialect
from ingestion.door import (
    Checked,
    Door,
    Header,
    RejectedLine,
    check_texts,
    take_first_line,
    understand_header,
    whole_lines,
)
from ingestion.download import downloaded, patiently, sweep_spool, version_id
from ingestion.foreign import ForeignFile
from ingestion.keys import QUARANTINE, Key, open_key
from ingestion.landing import Landing
from ingestion.quarantine import Seal, quarantine_lines, quarantined_lines
from ingestion.source import Source, source_named
from ingestion.spool import Spooled, spooled
from ingestion.suppression import suppressions
from warehouse.connections import connect
from warehouse.errors import UserError, outage
from warehouse.settings import home, now

# 190,000 lines of text: as much computing as the faster door takes to start (0.8 s) is then saved
BULK_BYTES = 24 * 2**20


if TYPE_CHECKING:
    from ingestion.block_door import BlockDoor


@dataclass(frozen=True)
class Progress:
    """How far a file has come, in delivered bytes; `stage` is "copying", "downloading" or "loading".

    `bytes_total` is 0 where a server does not say. A notice is for people.
    """

    file_name: str
    stage: str
    bytes_done: int
    bytes_total: int
    rows: int
    notice: str | None = None


@dataclass(frozen=True)
class LoadResult:
    """What became of one file."""

    load_id: int
    file_name: str
    period: str
    status: str
    rows_read: int
    rows_landed: int
    rows_quarantined: int
    rows_suppressed: int
    quarantined_by_reason: dict[str, int]
    seconds: float
    message: str


@dataclass(frozen=True)
class ReplayResult:
    """What became of one load's quarantined lines under today's rules."""

    load_id: int
    rows_landed: int
    rows_still_quarantined: int


class FilesRefused(UserError):  # noqa: N818 (a refusal, not a failure of ours)
    """Some files were refused, one sentence each; `results` tells what became of all, `failed` ones included."""

    def __init__(self, sentences: Sequence[str], results: Sequence[LoadResult]) -> None:
        super().__init__("\n".join(sentences))
        self.results = list(results)


@dataclass
class _Tally:
    """What has been counted of a file so far; lines turned away wait here until they are written to quarantine."""

    rows_good: int = 0
    rows_suppressed: int = 0
    by_reason: Counter[str] = field(default_factory=Counter)
    # of these, lines that may be about people who asked to be forgotten
    suppressed_by_reason: Counter[str] = field(default_factory=Counter)
    first_by_reason: dict[str, RejectedLine] = field(default_factory=dict)
    hints_by_reason: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    waiting: list[RejectedLine] = field(default_factory=list)

    def add(self, checked: Checked) -> None:
        self.rows_good += checked.rows_good
        self.rows_suppressed += len(checked.suppressed)
        self.waiting += [line for line in checked.rejected if not line.is_suppressed]
        for line in checked.rejected:
            code, hint = line.rejection.error_code, line.rejection.hint
            self.by_reason[code] += 1
            self.suppressed_by_reason[code] += line.is_suppressed
            self.first_by_reason.setdefault(code, line)
            if hint:
                self.hints_by_reason[code][hint] += 1

    @property
    def counts(self) -> Counts:
        quarantined = self.quarantined_by_reason.total()
        suppressed = self.rows_suppressed + self.suppressed_by_reason.total()
        return Counts(self.rows_good + quarantined + suppressed, self.rows_good, quarantined, suppressed)

    @property
    def quarantined_by_reason(self) -> Counter[str]:
        return self.by_reason - self.suppressed_by_reason


def load(
    source: Source,
    locations: Sequence[Location],
    *,
    since: str | None = None,
    force: bool = False,
    period: str | None = None,
    sha256: str | None = None,
    dialect: Dialect | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[LoadResult]:
    """Land files, each in a transaction of its own, in the order of period and name.

    Args:
        source: what the files are; see `source_named`.
        locations: paths, URLs and buckets; a folder means every file in it whose name states a period.
        since: leave out files whose period ends before this one begins.
        force: land again what has landed with the same bytes; the earlier rows are replaced.
        period: what the files are about, whatever their names say.
        sha256: what the file must be, in hexadecimal digits; for one file only.
        dialect: how the files are written, if not as UTF-8 with commas.
        on_progress: told about every block, and everything worth telling on the way.

    Raises:
        UserError: nothing was tried: a location without file, a file without period, a key that is not the database's.
        FilesRefused: all files were tried and these refused; of a refused file nothing is landed.
        LoadError: the load failed through no fault of the user, or a server did; later files were not tried.
    """
    tell = on_progress or _tell_nobody
    to_land = deliveries(
        source,
        locations,
        since=source.period_of_text(since) if since else None,
        period=source.period_of_text(period) if period else None,
        notice=lambda text: tell(Progress("", "copying", 0, 0, 0, text)),
    )
    if sha256 is not None:
        sha256 = _sha256_of_one(sha256, len(to_land))
    # by the clock that wrote the files
    sweep_spool(home() / "spool", datetime.now(UTC))
    with connect("loader", autocommit=True) as connection:
        key = open_key(connection, source.domain, may_generate=True)
        seal = Seal(open_key(connection, QUARANTINE, may_generate=True))
        # its key is asked for before anything is tried; each load reads the list anew
        suppressions(connection, source.domain)
    command = _Command(source, key, seal, force, sha256, dialect, tell)
    results = []
    text_bytes_behind = sum(delivery.text_bytes for delivery in to_land)
    for delivery in to_land:
        text_bytes_behind -= delivery.text_bytes
        results.append(_load_file(command, delivery, text_bytes_behind))
    refusals = [result.message for result in results if result.status == "failed"]
    if refusals:
        raise FilesRefused(refusals, results)
    return results


def undo(load_id: int, *, on_progress: Callable[[Progress], None] | None = None) -> LoadResult:
    """Take back all that a load put into raw and quarantine.

    Raises:
        UserError: there is no such load, or it is not `loaded`.
    """
    started = time.monotonic()
    with connect("steward") as connection:
        record, source = _lock_load(connection, load_id, on_progress or _tell_nobody)
        rows = landing.remove_rows(connection, source, [load_id], "undone")
    return LoadResult(
        load_id,
        record.file_name,
        record.period or "",
        "undone",
        record.rows_read or 0,
        record.rows_landed or 0,
        record.rows_quarantined or 0,
        record.rows_suppressed or 0,
        {},
        time.monotonic() - started,
        f"{rows} rows removed",
    )


def replay(load_id: int, *, on_progress: Callable[[Progress], None] | None = None) -> ReplayResult:
    """Send a load's quarantined lines through the door again; what passes today lands under its load and line.

    Raises:
        UserError: there is no such load, it is not `loaded`, or the key of its payloads is missing.
        LoadError: the database stopped it.
    """
    try:
        with connect("steward") as connection:
            return _replay(connection, load_id, on_progress or _tell_nobody)
    except psycopg.Error as error:
        failure = _without_values(f"replay of load {load_id}", error)
    raise failure


@dataclass(frozen=True)
class _Command:
    """What holds for all files of a command; see `load`."""

    source: Source
    key: Key
    seal: Seal
    force: bool
    sha256: str | None
    dialect: Dialect | None
    tell: Callable[[Progress], None]


@dataclass(frozen=True)
class _Attempt:
    """One file on its way, with about how much text the files behind it hold."""

    command: _Command
    delivery: Delivery
    text_bytes_behind: int
    load_id: int
    started: float

    def notice(self, text: str) -> None:
        self.command.tell(Progress(self.delivery.file.name, "loading", 0, 0, 0, text))

    def result(self, status: str, tally: _Tally, messages: Sequence[str]) -> LoadResult:
        return LoadResult(
            self.load_id,
            self.delivery.file.name,
            self.delivery.period.text,
            status,
            **asdict(tally.counts),
            quarantined_by_reason=dict(tally.quarantined_by_reason),
            seconds=time.monotonic() - self.started,
            message="; ".join(messages),
        )


def _load_file(command: _Command, delivery: Delivery, text_bytes_behind: int) -> LoadResult:
    try:
        return _attempt_to_load(command, delivery, text_bytes_behind)
    except psycopg.Error as error:
        failure = _without_values(delivery.file.name, error)
    raise failure


def _attempt_to_load(command: _Command, delivery: Delivery, text_bytes_behind: int) -> LoadResult:
    started = time.monotonic()
    name, sha256 = delivery.file.name, command.sha256
    with open_attempt(command.source.name, name, delivery.period.text, command.key.key_id) as (audit, load_id):
        attempt = _Attempt(command, delivery, text_bytes_behind, load_id, started)
        try:
            unchanged = None if command.force else _landed_unchanged(audit, attempt)
            if unchanged and sha256 in (None, unchanged.sha256):
                note_bytes(audit, load_id, unchanged.sha256, unchanged.version_id)
                return _skip(audit, attempt, f"unchanged on its server since load {unchanged.load_id}")
            with _private_copy(attempt) as spool:
                note_bytes(audit, load_id, spool.sha256, spool.version_id)
                if sha256 not in (None, spool.sha256):
                    raise UserError(f"{name} is not the file that --sha256 names: its SHA-256 is {spool.sha256}.")
                # only what replaces rows needs the right to remove them
                for role in ("steward",) if command.force else ("loader", "steward"):
                    result = _land_as(role, attempt, spool)
                    if result is not None:
                        return result
                raise AssertionError("a steward may do everything")
        except UserError as error:
            result = attempt.result("failed", _Tally(), [str(error)])
            # a broken connection leaves the attempt to be found abandoned
            with suppress(psycopg.Error):
                close_attempt(audit, load_id, "failed", seconds=result.seconds, error=str(error))
            return result


def _landed_unchanged(connection: psycopg.Connection, attempt: _Attempt) -> LoadRecord | None:
    """The load whose rows stand in raw and whose file the server has still got; None if it must be read to be known."""
    file = attempt.delivery.file
    if isinstance(file, Path):
        return None
    version = version_id(file, patiently(file.version, file.where, attempt.notice))
    standing = loads_standing(connection, attempt.command.source.name) if version else []
    return next((earlier for earlier in standing if earlier.version_id == version), None)


def _private_copy(attempt: _Attempt) -> AbstractContextManager[Spooled]:
    file, directory = attempt.delivery.file, home() / "spool"

    def on_bytes(stage: str, done: int, total: int) -> None:
        attempt.command.tell(Progress(file.name, stage, done, total, 0))

    if isinstance(file, Path):
        return spooled(file, directory, partial(on_bytes, "copying"))
    return downloaded(file, directory, partial(on_bytes, "downloading"), attempt.notice)


def _skip(connection: psycopg.Connection, attempt: _Attempt, *messages: str) -> LoadResult:
    result = attempt.result("skipped", _Tally(), messages)
    close_attempt(connection, attempt.load_id, "skipped", counts=Counts(), seconds=result.seconds)
    return result


def _land_as(role: str, attempt: _Attempt, spool: Spooled) -> LoadResult | None:
    try:
        with connect(role) as connection:
            return _land(connection, attempt, spool, may_remove=role == "steward")
    except psycopg.Error as error:
        failure = _without_values(spool.file_name, error)
    # raised here and not above: what the database said of a value must not travel along as its context
    raise failure


def _land(connection: psycopg.Connection, attempt: _Attempt, spool: Spooled, *, may_remove: bool) -> LoadResult | None:
    """Land a file in the connection's transaction; None if rows would have to be removed first but may not."""
    source, load_id = attempt.command.source, attempt.load_id
    if may_remove:
        landing.lock_build(connection, source, attempt.notice)
    landing.lock_source(connection, source, attempt.notice)

    same_bytes, same_name = _earlier_loads(connection, attempt, spool)
    replaced = same_name + same_bytes if attempt.command.force else same_name
    if replaced and not may_remove:
        return None
    messages = [f"replaces load {earlier.load_id}" for earlier in replaced]
    if replaced:
        landing.remove_rows(connection, source, [earlier.load_id for earlier in replaced], "superseded")
    if same_bytes and not attempt.command.force:
        earlier = same_bytes[0]
        what = f"the same bytes have landed as load {earlier.load_id} ({earlier.file_name}, {earlier.period})"
        return _skip(connection, attempt, *messages, what)

    into = Landing(connection, source, load_id, spool.file_name, attempt.command.key)
    tally, header = _land_lines(into, connection, attempt, spool)
    _refuse_hopeless(attempt, tally)
    into.finish()
    landing.note_slices(connection, load_id, into.rows_by_day)
    if header.left_out:
        messages.append(f"columns left out: {', '.join(header.left_out)}")
    result = attempt.result("loaded", tally, messages)
    if not close_attempt(connection, load_id, "loaded", counts=tally.counts, seconds=result.seconds):
        raise LoadError(f"{spool.file_name}: another process took this attempt for dead")
    return result


def _earlier_loads(
    connection: psycopg.Connection, attempt: _Attempt, spool: Spooled
) -> tuple[list[LoadRecord], list[LoadRecord]]:
    """The loads whose rows stand in raw with the same bytes; and those of the same name and period with other bytes."""
    standing = loads_standing(connection, attempt.command.source.name)
    same_bytes = [earlier for earlier in standing if earlier.sha256 == spool.sha256]
    same_name = [
        earlier
        for earlier in standing
        if (earlier.file_name, earlier.period) == (spool.file_name, attempt.delivery.period.text)
        and earlier.sha256 != spool.sha256
    ]
    return same_bytes, same_name


def _land_lines(
    into: Landing, connection: psycopg.Connection, attempt: _Attempt, spool: Spooled
) -> tuple[_Tally, Header]:
    name = spool.file_name
    header, check = _opened(spool, attempt, into)
    tally = _Tally()

    def count(checked: Checked) -> None:
        tally.add(checked)
        attempt.command.tell(Progress(name, "loading", checked.bytes_done, spool.size_bytes, tally.counts.rows_read))

    def quarantine_waiting() -> None:
        quarantine_lines(connection, attempt.command.seal, header.layout, attempt.load_id, tally.waiting, now())
        tally.waiting.clear()

    into.land(*check(into.door(header.layout, attempt.delivery.period)), count, quarantine_waiting)
    if tally.counts.rows_read == 0:
        raise UserError(f"{name} holds no rows, only a header: deliver it again.")
    return tally, header


def _opened(
    spool: Spooled, attempt: _Attempt, into: Landing
) -> tuple[Header, Callable[[Door], tuple["Door | BlockDoor", Iterable[Checked]]]]:
    """The header of a file, and what gives the door to use for the lines below it and checks them there."""
    if attempt.command.dialect:
        foreign = ForeignFile(spool, attempt.command.dialect, attempt.command.source)
        return foreign.header, lambda door: (door, foreign.check(door))
    first_line, texts = take_first_line(whole_lines(spool.blocks()))
    if first_line is None:
        raise UserError(f"{spool.file_name} holds no rows: deliver it again.")

    def check(door: Door) -> tuple["Door | BlockDoor", Iterable[Checked]]:
        chosen = into.bulk_door(door) if _is_worth_compiling(spool.text_bytes + attempt.text_bytes_behind) else door
        return chosen, check_texts(chosen.check_text, texts, first_line_number=2)

    return understand_header(first_line, attempt.command.source, spool.file_name), check


def _is_worth_compiling(text_bytes: int) -> bool:
    """Whether the faster door has started in this process, or so much text, to land yet, will make up for its start."""
    return "ingestion.block_door" in sys.modules or text_bytes >= BULK_BYTES


def _refuse_hopeless(attempt: _Attempt, tally: _Tally) -> None:
    """Raise UserError if so many lines were turned away for one reason that it tells against the whole file."""
    name, source = attempt.delivery.file.name, attempt.command.source
    if not tally.rows_good and not tally.rows_suppressed:
        error_code, count = tally.by_reason.most_common(1)[0]
        first = tally.first_by_reason[error_code]
        # a limit of the source may know the remedy
        if error_code not in {limit.error_code for limit in source.limits}:
            raise UserError(
                f"{name}, line {first.line_number}: {first.rejection.detail}, and no row of the file is good "
                f"({count} of {tally.counts.rows_read} like this one): export the file again as "
                f"{','.join(column.name for column in source.columns)} with commas, or say with --delimiter, "
                "--quote, --encoding how it is written."
            )
    for limit in source.limits:
        count = tally.by_reason[limit.error_code]
        if not count or count < limit.share_ratio * tally.counts.rows_read:
            continue
        first = tally.first_by_reason[limit.error_code]
        hint = next((hint for hint, _ in tally.hints_by_reason[limit.error_code].most_common(1)), "")
        raise UserError(
            f"{name}, line {first.line_number}: {first.rejection.detail}, as in {count} of "
            f"{tally.counts.rows_read} rows; {limit.remedy.format(hint=hint)}."
        )


def _lock_load(
    connection: psycopg.Connection, load_id: int, tell: Callable[[Progress], None]
) -> tuple[LoadRecord, Source]:
    """Lock a load's source and its domain's builds; UserError unless its rows stand in raw."""
    before = load_record(connection, load_id)
    source = source_named(before.source)

    def notice(text: str) -> None:
        tell(Progress(before.file_name, "loading", 0, 0, 0, text))

    landing.lock_build(connection, source, notice)
    landing.lock_source(connection, source, notice)
    record = load_record(connection, load_id)
    if record.status != "loaded":
        raise UserError(f"Load {load_id} ({record.file_name}) is {record.status}: only a load that is loaded will do.")
    return record, source


def _replay(connection: psycopg.Connection, load_id: int, tell: Callable[[Progress], None]) -> ReplayResult:
    record, source = _lock_load(connection, load_id, tell)
    key = open_key(connection, source.domain, may_generate=False)
    seal = Seal(open_key(connection, QUARANTINE, may_generate=False))
    period = source.period_of_text(record.period or "")
    into = Landing(connection, source, load_id, record.file_name, key)
    landed: list[int] = []
    suppressed: list[int] = []
    still_quarantined = 0
    for layout, lines in quarantined_lines(connection, seal, source, load_id):
        if not any(layout):
            # a foreign file's lines that never became records: no rule of the door is about them
            still_quarantined += len(lines)
            continue
        door = into.door(layout, period)
        checked = door.check(lines)
        into.land(door, [checked])
        rejected = {line.line_number for line in checked.rejected}
        landed += [number for number, _ in lines if number not in rejected.union(checked.suppressed)]
        suppressed += checked.suppressed
        suppressed += [line.line_number for line in checked.rejected if line.is_suppressed]
        still_quarantined += sum(not line.is_suppressed for line in checked.rejected)
    into.finish()
    landing.settle_replay(connection, load_id, landed, suppressed, into.rows_by_day)
    return ReplayResult(load_id, len(landed), still_quarantined)


def _without_values(what: str, error: psycopg.Error) -> LoadError:
    """A failure that says what the database objects to, but not to which value: its own words may quote one.

    Raises:
        UserError: the database is down and cannot be started; the sentence says why.
    """
    if error.sqlstate is None:
        connect("loader").close()
    return LoadError(
        f"{what}: {outage(error) or f'the database stopped it ({type(error).__name__}, {error.sqlstate})'}"
    )


def _sha256_of_one(text: str, file_count: int) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise UserError("--sha256 takes the 64 hexadecimal digits of a SHA-256.")
    if file_count != 1:
        raise UserError(f"--sha256 is about one file, and {file_count} are meant: load them one by one.")
    return text.lower()


def _tell_nobody(progress: Progress) -> None:
    pass
