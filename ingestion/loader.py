"""Landing, for every source: copy aside, hash, check at the door, land rows and quarantine and audit in one
transaction; and the two ways back, `undo` and `replay`.

Only what needs it is done as steward: removing rows, and opening quarantine. How lines are checked, keys are kept and
rows are written is known to `door`, `keys`, `quarantine` and `landing`.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psycopg

from ingestion import landing
from ingestion.audit import (
    Counts,
    LoadError,
    LoadRecord,
    close_attempt,
    load_record,
    loads_standing,
    note_sha256,
    open_attempt,
)
from ingestion.delivery import Delivery, deliveries
from ingestion.door import (
    Checked,
    Header,
    RejectedLine,
    check_batches,
    lines_of,
    take_first_line,
    understand_header,
)
from ingestion.keys import QUARANTINE, Key, open_key
from ingestion.landing import Landing
from ingestion.quarantine import Seal, quarantine_lines, quarantined_lines
from ingestion.source import Source, source_named
from ingestion.spool import Spooled, spooled
from ingestion.suppression import suppressions
from warehouse.connections import connect
from warehouse.errors import UserError, outage
from warehouse.settings import home, now


@dataclass(frozen=True)
class Progress:
    """How far a file has come, in delivered bytes; `stage` is "copying" or "loading", a notice is for people."""

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
    paths: Sequence[Path | str],
    *,
    since: str | None = None,
    force: bool = False,
    period: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[LoadResult]:
    """Land files, each in a transaction of its own, in the order of period and name.

    Args:
        source: what the files are; see `source_named`.
        paths: files, or directories, which mean every file in them whose name states a period.
        since: leave out files whose period ends before this one begins.
        force: land again what has landed with the same bytes; the earlier rows are replaced.
        period: what the files are about, whatever their names say.
        on_progress: told about every block, and everything worth telling on the way.

    Raises:
        UserError: nothing was tried: a path without file, a file without period, a key that is not the database's.
        FilesRefused: all files were tried and these refused; of a refused file nothing is landed.
        LoadError: the load failed through no fault of the user; later files were not tried.
    """
    tell = on_progress or _tell_nobody
    to_land = deliveries(
        source,
        [Path(path) for path in paths],
        since=source.period_of_text(since) if since else None,
        period=source.period_of_text(period) if period else None,
        notice=lambda text: tell(Progress("", "copying", 0, 0, 0, text)),
    )
    with connect("loader", autocommit=True) as connection:
        key = open_key(connection, source.domain, may_generate=True)
        seal = Seal(open_key(connection, QUARANTINE, may_generate=True))
        # its key is asked for before anything is tried; each load reads the list anew
        suppressions(connection, source.domain)
    results = [_load_file(source, delivery, key, seal, force, tell) for delivery in to_land]
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
class _Attempt:
    """One file on its way: what it is, the number of its attempt, and what landing it needs."""

    source: Source
    delivery: Delivery
    load_id: int
    key: Key
    seal: Seal
    force: bool
    tell: Callable[[Progress], None]
    started: float

    def notice(self, text: str) -> None:
        self.tell(Progress(self.delivery.path.name, "loading", 0, 0, 0, text))

    def result(self, status: str, tally: _Tally, messages: Sequence[str]) -> LoadResult:
        return LoadResult(
            self.load_id,
            self.delivery.path.name,
            self.delivery.period.text,
            status,
            **asdict(tally.counts),
            quarantined_by_reason=dict(tally.quarantined_by_reason),
            seconds=time.monotonic() - self.started,
            message="; ".join(messages),
        )


def _load_file(
    source: Source, delivery: Delivery, key: Key, seal: Seal, force: bool, tell: Callable[[Progress], None]
) -> LoadResult:
    try:
        return _attempt_to_load(source, delivery, key, seal, force, tell)
    except psycopg.Error as error:
        failure = _without_values(delivery.path.name, error)
    raise failure


def _attempt_to_load(
    source: Source, delivery: Delivery, key: Key, seal: Seal, force: bool, tell: Callable[[Progress], None]
) -> LoadResult:
    started = time.monotonic()
    name = delivery.path.name
    with open_attempt(source.name, name, delivery.period.text, key.key_id) as (audit, load_id):
        attempt = _Attempt(source, delivery, load_id, key, seal, force, tell, started)
        try:
            with spooled(
                delivery.path, home() / "spool", lambda done, total: tell(Progress(name, "copying", done, total, 0))
            ) as spool:
                note_sha256(audit, load_id, spool.sha256)
                # only what replaces rows needs the right to remove them
                for role in ("steward",) if force else ("loader", "steward"):
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
    source, load_id = attempt.source, attempt.load_id
    if may_remove:
        landing.lock_build(connection, source, attempt.notice)
    landing.lock_source(connection, source, attempt.notice)

    same_bytes, same_name = _earlier_loads(connection, attempt, spool)
    replaced = same_name + same_bytes if attempt.force else same_name
    if replaced and not may_remove:
        return None
    messages = [f"replaces load {earlier.load_id}" for earlier in replaced]
    if replaced:
        landing.remove_rows(connection, source, [earlier.load_id for earlier in replaced], "superseded")
    if same_bytes and not attempt.force:
        earlier = same_bytes[0]
        messages.append(f"the same bytes have landed as load {earlier.load_id} ({earlier.file_name}, {earlier.period})")
        result = attempt.result("skipped", _Tally(), messages)
        close_attempt(connection, load_id, "skipped", counts=Counts(), seconds=result.seconds)
        return result

    into = Landing(connection, source, load_id, spool.file_name, attempt.key)
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
    standing = loads_standing(connection, attempt.source.name)
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
    first_line, batches = take_first_line(lines_of(spool.blocks()))
    if first_line is None:
        raise UserError(f"{name} holds no rows: deliver it again.")
    header = understand_header(first_line, attempt.source, name)
    tally = _Tally()

    def count(checked: Checked) -> None:
        tally.add(checked)
        attempt.tell(Progress(name, "loading", checked.bytes_done, spool.size_bytes, tally.counts.rows_read))

    def quarantine_waiting() -> None:
        quarantine_lines(connection, attempt.seal, header.layout, attempt.load_id, tally.waiting, now())
        tally.waiting.clear()

    door = into.door(header.layout, attempt.delivery.period)
    into.land(door, check_batches(door, batches, first_line_number=2), count, quarantine_waiting)
    if tally.counts.rows_read == 0:
        raise UserError(f"{name} holds no rows, only a header: deliver it again.")
    return tally, header


def _refuse_hopeless(attempt: _Attempt, tally: _Tally) -> None:
    """Raise UserError if so many lines were turned away for one reason that it tells against the whole file."""
    name = attempt.delivery.path.name
    if not tally.rows_good and not tally.rows_suppressed:
        error_code, count = tally.by_reason.most_common(1)[0]
        first = tally.first_by_reason[error_code]
        # a limit of the source may know the remedy
        if error_code not in {limit.error_code for limit in attempt.source.limits}:
            raise UserError(
                f"{name}, line {first.line_number}: {first.rejection.detail}, and no row of the file is good "
                f"({count} of {tally.counts.rows_read} like this one): export the file again as "
                f"{','.join(column.name for column in attempt.source.columns)} with commas."
            )
    for limit in attempt.source.limits:
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


def _tell_nobody(progress: Progress) -> None:
    pass
