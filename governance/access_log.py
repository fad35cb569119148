"""Who read which mart when: told from the embedded server's log, which holds names, times and no value.

The lines are written by the server itself (`warehouse.embedded_settings`, `warehouse/sql/06_access_log.sql`); the files
are kept by `warehouse.embedded_log`. docs/access-log.md says what is logged, docs/adr/0010 why so.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from warehouse import embedded_log, settings
from warehouse.embedded import OWNER
from warehouse.errors import UserError

KEPT_DAYS = 365
UNKNOWN = "unknown"
BEGINNING = datetime.min.replace(tzinfo=UTC)

# the fields of log_line_prefix, then level and message; the text below them begins with a tab and is none of ours
LINE = re.compile(
    r"(?P<at>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) UTC\t\d+\t(?P<session>[0-9a-f]+\.[0-9a-f]+)\t(?P<host>[^\t]*)"
    r"\t(?P<command>[^\t]*)\t(?P<level>LOG|FATAL):  (?P<message>.*)"
)
CONNECTED = re.compile(r'connection authenticated: (?:identity|user)="(?P<role>.*)" method=')
READ = re.compile(r"agora: (?P<table>\S+\.\S+) read by (?P<role>.+)")
LASTED = re.compile(r"duration: (?P<milliseconds>\d+\.\d+) ms")
REFUSED = re.compile(
    r"password authentication failed for user|no pg_hba\.conf entry for host|pg_hba\.conf rejects connection for host"
    r"|permission denied for database|database \".*\" does not exist|too many connections for role"
)
REFUSED_USER = re.compile(r'(?:^password authentication failed for|^[^"]*"[^"]*",) user "([^"]*)"')

# steps of a statement that is counted when it runs: what they name, it reads. A cursor reads when it is fetched from
PLANNING = frozenset(("PARSE", "BIND", "DECLARE CURSOR"))
FETCHING = frozenset(("FETCH", "MOVE"))
# statements that read nothing
SILENT = frozenset(
    (
        *("", "PREPARE", "DEALLOCATE", "DEALLOCATE ALL"),
        *("BEGIN", "START TRANSACTION", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE"),
        *("SET", "RESET", "SHOW", "DISCARD", "DISCARD ALL"),
        *("CLOSE CURSOR", "CLOSE CURSOR ALL"),
    )
)
# times in the log are cut to the millisecond: a statement may seem to begin a little after it read
SLACK = timedelta(milliseconds=2)


@dataclass(frozen=True)
class AccessRecord:
    """A login, a refused login or a statement.

    Attributes:
        at: in UTC; of a statement, when it began.
        role: who had logged in; the embedded server's superuser is `owner`.
        host: an address, or `[local]` for the socket.
        what: `connected`, `refused`, or the kind of statement in lower case (`select`, `copy`, `fetch`, …);
            `unfinished` for one that failed, was cancelled or has not ended yet.
        tables: the marts it read, `schema.table`, sorted.
        seconds: how long it took; None for a login and for what is `unfinished`.
    """

    at: datetime
    role: str
    host: str
    what: str
    tables: tuple[str, ...] = ()
    seconds: float | None = None


def access_log(since: datetime | None = None, role: str | None = None, table: str | None = None) -> list[AccessRecord]:
    """Return logins and statements, latest first. The server need not be up.

    Args:
        since: leave out what was before.
        role: only of this role.
        table: only what read this mart, `schema.table`.

    Raises:
        UserError: the warehouse is on a server that Agora did not start, or the log belongs to another user.
    """
    found = [
        record
        for record in parsed(_lines())
        if (since is None or record.at >= since)
        and (role is None or record.role == role)
        and (table is None or table in record.tables)
    ]
    found.sort(key=lambda record: record.at)
    found.reverse()
    return found


def forget_before(moment: datetime) -> int:
    """Delete all that was logged before `moment`; return the number of lines. Nothing on a server of the user's own."""
    return 0 if settings.uses_server() else embedded_log.forget_before(settings.home(), moment)


def _lines() -> Iterator[str]:
    if settings.uses_server():
        raise UserError(
            "PG* variables choose a server that keeps its own log: docs/access-log.md says how it tells who read what."
        )
    for path in embedded_log.log_files(settings.home()):
        try:
            with path.open(encoding="utf-8", errors="replace", newline="\n") as stream:
                yield from stream
        except FileNotFoundError:
            # forgotten meanwhile
            continue
        except PermissionError:
            raise UserError(f"cannot read {path}: run as the user it belongs to.") from None


@dataclass
class _Session:
    """What is known of a session so far: who it is, and the marts its present statement has read."""

    host: str
    role: str = UNKNOWN
    tables: set[str] = field(default_factory=set)
    reading_since: datetime | None = None
    # the marts were named by a step before the one that reads
    is_planned: bool = False
    latest: datetime = BEGINNING

    def forget(self) -> None:
        """Begin a new statement."""
        self.tables, self.reading_since, self.is_planned = set(), None, False


def parsed(lines: Iterable[str]) -> Iterator[AccessRecord]:
    """Tell what log lines say, a statement when it has ended; pass over every line that is not exactly ours."""
    sessions: dict[str, _Session] = {}
    for line in lines:
        found = LINE.fullmatch(line.rstrip("\n"))
        if found is None:
            continue
        try:
            at = datetime.fromisoformat(found["at"]).replace(tzinfo=UTC)
        except ValueError:
            continue
        session = sessions.setdefault(found["session"], _Session(found["host"]))
        message = found["message"]
        if found["level"] == "FATAL":
            if REFUSED.match(message):
                yield AccessRecord(at, _refused_role(session, message), session.host, "refused")
        elif connected := CONNECTED.match(message):
            session.role = _role(connected["role"])
            yield AccessRecord(at, session.role, session.host, "connected")
        elif read := READ.fullmatch(message):
            session.role = _role(read["role"])
            session.reading_since = session.reading_since or at
            session.tables.add(read["table"])
        elif lasted := LASTED.fullmatch(message):
            yield from _ended(session, at, found["command"], float(lasted["milliseconds"]) / 1000)
    for session in sessions.values():
        yield from _unfinished(session)


def _ended(session: _Session, at: datetime, command: str, seconds: float) -> Iterator[AccessRecord]:
    began = at - timedelta(seconds=seconds)
    is_of_another = session.reading_since and session.reading_since < began - SLACK and not session.is_planned
    if is_of_another or command in SILENT:
        # read by a statement before this one, which failed: no line tells its end
        yield from _unfinished(session)
    if command in PLANNING:
        session.is_planned = True
    if command in PLANNING or command in SILENT or (command in FETCHING and not session.tables):
        return
    tables = tuple(sorted(session.tables))
    session.forget()
    # times in the log are cut to the millisecond: one statement must not seem to begin before another
    session.latest = max(began, session.latest)
    yield AccessRecord(session.latest, session.role, session.host, command.lower(), tables, seconds)


def _unfinished(session: _Session) -> Iterator[AccessRecord]:
    if session.reading_since:
        yield AccessRecord(
            session.reading_since, session.role, session.host, "unfinished", tuple(sorted(session.tables))
        )
    session.forget()


def _refused_role(session: _Session, message: str) -> str:
    """Return the role that was refused; a name that is not ours may be anything, so it is not told."""
    if session.role != UNKNOWN:
        return session.role
    user = REFUSED_USER.search(message)
    return _role(user[1]) if user and user[1] in (OWNER, *settings.ROLES) else UNKNOWN


def _role(name: str) -> str:
    return "owner" if name == OWNER else name
