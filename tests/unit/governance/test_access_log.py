from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.access_log import AccessRecord, access_log, parsed
from warehouse import embedded_log
from warehouse.errors import UserError

AT = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


def line(
    message: str, *, milliseconds: int = 0, session: str = "6a.1f", command: str = "SELECT", level: str = "LOG"
) -> str:
    at = AT + timedelta(milliseconds=milliseconds)
    stamp = f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d} UTC"
    return f"{stamp}\t31\t{session}\t[local]\t{command}\t{level}:  {message}\n"


def login(role: str = "bi_reader", **where: str) -> str:
    message = f'connection authenticated: identity="{role}" method=scram-sha-256 (/a "path"/pg_hba.conf:1)'
    return line(message, command="authentication", **where)  # type: ignore[arg-type]


def read(table: str, milliseconds: int = 100, role: str = "bi_reader", session: str = "6a.1f") -> str:
    return line(f"agora: {table} read by {role}", milliseconds=milliseconds, session=session)


def lasted(milliseconds: float, at: int, command: str = "SELECT", session: str = "6a.1f") -> str:
    return line(f"duration: {milliseconds:.3f} ms", milliseconds=at, command=command, session=session)


def told(*lines: str) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(record.role, record.what, record.tables) for record in parsed(lines)]


def test_statement_has_its_marts_its_beginning_and_its_length() -> None:
    lines = [login(), read("a.t", 101), read("a.s", 102), read("a.t", 103), lasted(50, 150)]
    assert list(parsed(lines)) == [
        AccessRecord(AT, "bi_reader", "[local]", "connected"),
        AccessRecord(AT + timedelta(milliseconds=100), "bi_reader", "[local]", "select", ("a.s", "a.t"), 0.05),
    ]


def test_steps_of_one_statement_are_one_statement() -> None:
    steps = [lasted(0.1, 99, "PARSE"), lasted(0.1, 100, "BIND"), read("a.t", 101), lasted(5, 105)]
    assert told(*steps, lasted(0.1, 106, "COMMIT"), lasted(0.1, 107, "")) == [("bi_reader", "select", ("a.t",))]


def test_sessions_are_kept_apart() -> None:
    other = {"session": "6a.2b"}
    assert told(login(), login("steward", **other), read("a.t"), lasted(1, 101, "SELECT", "6a.2b"), lasted(9, 109)) == [
        ("bi_reader", "connected", ()),
        ("steward", "connected", ()),
        ("steward", "select", ()),
        ("bi_reader", "select", ("a.t",)),
    ]


def test_statement_without_an_end_is_told_and_not_given_to_the_next() -> None:
    assert told(read("a.t", 100), lasted(1, 500), read("a.s", 600)) == [
        ("bi_reader", "unfinished", ("a.t",)),
        ("bi_reader", "select", ()),
        ("bi_reader", "unfinished", ("a.s",)),
    ]


def test_superuser_is_the_owner_and_a_forgotten_login_is_unknown() -> None:
    assert told(login("agora"), lasted(1, 5), lasted(1, 5, "SELECT", "6a.2b")) == [
        ("owner", "connected", ()),
        ("owner", "select", ()),
        ("unknown", "select", ()),
    ]


@pytest.mark.parametrize(
    ("message", "role"),
    [
        ('password authentication failed for user "bi_reader"', "bi_reader"),
        ('password authentication failed for user "jeanne@example.org"', "unknown"),
        ('password authentication failed for user "x" user "steward"', "unknown"),
        ('pg_hba.conf rejects connection for host "10.0.0.1", user "agora", database "agora", no encryption', "owner"),
        ('no pg_hba.conf entry for host "10.0.0.1", user "541312140", database "agora"', "unknown"),
        ('database "541312140" does not exist', "unknown"),
    ],
)
def test_refused_login_tells_a_role_of_ours_or_nothing(message: str, role: str) -> None:
    assert told(line(message, command="authentication", level="FATAL")) == [(role, "refused", ())]


HOSTILE = [
    "",
    "\n",
    "\t" + read("a.t"),
    "x" + read("a.t"),
    read("a.t").replace("\t", " "),
    read("a.t").replace("LOG:  ", "LOG:  prefix "),
    read("a.t").replace("LOG", "STATEMENT"),
    read("a.t").replace("2026-01-31", "2026-02-31"),
    read("a.t")[:-20],
    "2026-01-31 12:00:00.000 UTC [31] LOG:  agora: a.t read by bi_reader\n",
    line("agora: read by bi_reader"),
    line("duration: many ms"),
    line("duration: 1.0 ms  statement: select '541312140'"),
    line("connection authenticated: identity="),
    line("database system is ready to accept connections"),
    line("terminating connection due to administrator command", level="FATAL"),
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_lines_that_are_not_ours_in_every_detail_are_passed_over(hostile: str) -> None:
    assert told(hostile) == []
    assert told(login(), hostile, lasted(1, 5)) == [("bi_reader", "connected", ()), ("bi_reader", "select", ())]


@given(st.lists(st.one_of(st.text(), st.sampled_from(HOSTILE), st.text().map(line))))
def test_any_text_is_read_without_a_failure(lines: list[str]) -> None:
    list(parsed(lines))


# --- files ------------------------------------------------------------------------------------------------------


def test_files_are_read_in_order_as_one_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGORA_HOME", str(tmp_path))
    (tmp_path / "postgres.log.20260131T120000000000").write_bytes(login().encode())
    (tmp_path / "postgres.log.1").write_bytes(
        b"2025-01-01 12:00:00.000 UTC [31] LOG:  of an earlier version \xff\x85\n"
    )
    (tmp_path / "postgres.log").write_text(read("a.t", 2) + lasted(5, 5) + read("a.s", 10, "steward") + lasted(9, 19))
    assert [(record.role, record.what) for record in access_log()] == [
        ("steward", "select"),
        ("bi_reader", "select"),
        ("bi_reader", "connected"),
    ]
    assert [record.tables for record in access_log(role="steward")] == [("a.s",)]
    assert [record.role for record in access_log(table="a.t")] == ["bi_reader"]
    assert len(access_log(since=AT + timedelta(milliseconds=5))) == 1


def test_forgetting_keeps_what_is_younger_and_lines_stay_with_the_one_above(tmp_path: Path) -> None:
    old, young = login(), read("a.t", 5000)
    (tmp_path / "postgres.log.20260131T120000000000").write_text(old + old)
    (tmp_path / "postgres.log.20260131T120500000000").write_text("before all times\n" + old + "\tof the old\n" + young)
    (tmp_path / "postgres.log").write_text(old + young + "\tof the young\n")
    assert embedded_log.forget_before(tmp_path, AT) == 0
    assert embedded_log.forget_before(tmp_path, AT + timedelta(milliseconds=1)) == 6
    assert "".join(path.read_text() for path in embedded_log.log_files(tmp_path)) == young + young + "\tof the young\n"
    assert not list(tmp_path.glob(".postgres.log*"))
    assert embedded_log.forget_before(tmp_path, AT + timedelta(days=1)) == 3
    assert [path.name for path in embedded_log.log_files(tmp_path)] == ["postgres.log"]


def test_small_log_stays_where_it_is(tmp_path: Path) -> None:
    embedded_log.bound(tmp_path)
    assert embedded_log.forget_before(tmp_path, AT) == 0
    (tmp_path / "postgres.log").write_text(login())
    embedded_log.bound(tmp_path)
    assert [path.name for path in embedded_log.log_files(tmp_path)] == ["postgres.log"]


def test_server_of_the_users_own_keeps_its_own_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "db.example.org")
    with pytest.raises(UserError, match=r"docs/access-log\.md"):
        access_log()
