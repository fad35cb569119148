"""Who read which mart when, on real servers: every way to read is told, and no value is, wherever a client puts one."""

import csv
import io
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support import agora, agora_sql, execute, rows_of

from governance.access_log import AccessRecord, access_log, forget_before
from warehouse import embedded, embedded_log, embedded_processes, files
from warehouse.connections import connect, parameters

USERS, ORDERS = "shop.users", "shop.orders"
DELIVERED_ID, PSEUDONYM = "541312140", "-7276182384123456789"
EMAIL, ALIAS, COMMENT = "jeanne.moreau@example.org", "zorglub_alias", "zorglub comment"
CANARIES = (DELIVERED_ID, PSEUDONYM, EMAIL, "zorglub", "example.org", "7276182384")


@pytest.fixture
def shop(make_warehouse: Callable[[], Path]) -> Path:
    """A warehouse with a published domain of two marts."""
    home = make_warehouse()
    execute("create schema shop authorization transformer")
    execute("grant usage on schema shop to bi_reader")
    publish(1)
    return home


def publish(number: int) -> None:
    """Build and publish a generation of the marts."""
    generation = f"{number:020d}"
    schema = f"shop_next_{generation}"
    with connect("transformer") as connection:
        connection.execute(f"create schema {schema}")
        connection.execute(
            f"create table {schema}.users as"
            f" select n as user_id, n / 7.0 as spent_eur, '{EMAIL}'::text as name from generate_series(1, 20000) as n"
        )
        connection.execute(
            f"create table {schema}.orders as select n as order_id, n % 999 as user_id from"
            " generate_series(1, 20000) as n"
        )
        connection.execute(f"alter table {schema}.users add primary key (user_id)")
        connection.execute(f"analyze {schema}.users")
        connection.execute(f"grant select on all tables in schema {schema} to bi_reader")
        connection.execute("select audit.publish('shop', %s, array['orders', 'users'])", (generation,))


@pytest.fixture
def reader(shop: Path) -> Iterator[psycopg.Connection]:
    with connect("bi_reader", autocommit=True) as connection:
        yield connection


def reads(**filters: Any) -> list[AccessRecord]:
    """What bi_reader read, earliest first."""
    return [record for record in reversed(access_log(role="bi_reader", **filters)) if record.tables]


def told(records: list[AccessRecord]) -> list[tuple[str, tuple[str, ...]]]:
    return [(record.what, record.tables) for record in records]


def everything_under(directory: Path) -> Iterator[tuple[Path, bytes]]:
    for path in directory.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes()


# --- every way to read ------------------------------------------------------------------------------------------


def test_simple_prepared_and_unqualified_statements_are_told_once(reader: psycopg.Connection) -> None:
    reader.execute("select 1 from shop.users limit 1")
    reader.execute("select 1 from shop.users where user_id = %s", (5,))
    for _ in range(7):
        reader.execute("select 1 from shop.orders where user_id = %s", (5,), prepare=True)
    reader.execute("set search_path to shop")
    reader.execute('select count(*) from USERS inner join "orders" using (user_id)')
    assert told(reads()) == [
        ("select", (USERS,)),
        ("select", (USERS,)),
        *[("select", (ORDERS,))] * 7,
        ("select", (ORDERS, USERS)),
    ]


def test_cursors_copies_subqueries_and_several_statements_at_once(reader: psycopg.Connection) -> None:
    with reader.transaction(), reader.cursor(name="in_the_server") as cursor:
        cursor.execute("select * from shop.users")
        for _ in range(3):
            cursor.fetchmany(10)
    with reader.cursor().copy("copy (select user_id from shop.orders) to stdout") as copy:
        assert len(list(copy)) == 20000
    with reader.cursor().copy("copy shop.orders to stdout") as copy:
        assert len(list(copy)) == 20000
    # told once, although the inner table is gone through 900 times
    reader.execute(
        "select (select max(spent_eur) from shop.users where users.user_id < orders.user_id) from shop.orders limit 900"
    )
    reader.execute("with o as (select * from shop.orders) select 1 from o; select 1 from shop.users where user_id = 1")
    reader.execute("explain select * from shop.users")
    reader.execute("explain analyze select * from shop.users")
    assert told(reads()) == [
        ("fetch", (USERS,)),
        ("copy", (ORDERS,)),
        ("copy", (ORDERS,)),
        ("select", (ORDERS, USERS)),
        ("select", (ORDERS, USERS)),
        ("explain", (USERS,)),
        ("explain", (USERS,)),
    ]


def test_a_read_that_finds_nothing_is_told(reader: psycopg.Connection) -> None:
    reader.execute("set enable_seqscan = off")
    for _ in range(2):
        assert reader.execute("select 1 from shop.users where user_id = -1").fetchall() == []
        assert reader.execute("select 1 from shop.orders where user_id = %s", (-1,), prepare=True).fetchall() == []
    with reader.transaction(), reader.cursor(name="in_the_server") as cursor:
        cursor.execute("select * from shop.users where user_id = -1")
        assert cursor.fetchall() == []
    assert told(reads()) == [*[("select", (USERS,)), ("select", (ORDERS,))] * 2, ("fetch", (USERS,))]


def test_names_in_comments_and_strings_are_no_reads(reader: psycopg.Connection) -> None:
    reader.execute("select 'from shop.users', 1 as \"shop.users\" /* join shop.orders */ -- shop.orders")
    assert reads() == []


def test_parallel_plans_and_statistics_are_kept_and_told_once(reader: psycopg.Connection) -> None:
    reader.execute("set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0")
    plan = "\n".join(line for (line,) in reader.execute("explain select sum(spent_eur) from shop.users"))
    assert "Workers Planned" in plan
    reader.execute("select sum(spent_eur) from shop.users")
    # of 20,000 rows a sixth, as statistics know; without them a third would be assumed
    (row,) = reader.execute("explain (format json) select * from shop.users where spent_eur < 476").fetchone() or ()
    assert 3000 < row[0]["Plan"]["Plan Rows"] < 3700 or 3000 < row[0]["Plan"]["Plans"][-1]["Plan Rows"] * 2 < 3700
    assert told(reads()) == [("explain", (USERS,)), ("select", (USERS,)), ("explain", (USERS,))]


def test_next_generation_is_told_as_well(reader: psycopg.Connection) -> None:
    reader.execute("prepare of_users as select count(*) from shop.users")
    reader.execute("execute of_users")
    publish(2)
    reader.execute("execute of_users")
    reader.execute("select 1 from shop.orders")
    assert [tables for _, tables in told(reads())] == [(USERS,), (USERS,), (ORDERS,)]


def test_what_failed_or_was_refused(reader: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        reader.execute("select 1 / (user_id - 10) from shop.users")
    time.sleep(0.05)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("select * from raw_ecommerce.events")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        # it would show values of a table to who may not read the table
        reader.execute("set row_security = off; select * from shop.users")
    reader.execute("reset row_security")
    assert reader.execute("select count(*) from pg_stats where schemaname = 'shop'").fetchone() == (0,)
    reader.execute("select 1 from shop.orders limit 1")
    assert told(reads()) == [("unfinished", (USERS,)), ("select", (ORDERS,))]
    assert reads()[0].seconds is None

    where = parameters("bi_reader")
    login = {"host": where.host, "port": where.port, "dbname": where.database, "user": "bi_reader", "password": "no"}
    for changes in ({}, {"user": EMAIL}, {"password": where.password, "dbname": "postgres"}):
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(**(login | changes))
    assert [(record.role, record.what) for record in access_log()[:4]] == [
        ("bi_reader", "refused"),
        ("bi_reader", "connected"),
        ("unknown", "refused"),
        ("bi_reader", "refused"),
    ]


def test_readers_cannot_write_into_the_log(reader: psycopg.Connection) -> None:
    reader.execute("set default_transaction_read_only = off")
    for statement in (
        "do $$ begin raise log 'agora: shop.users read by steward'; end $$",
        "select audit.note_read('shop', 'users')",
        "set log_duration = off",
        "set log_min_messages = panic",
        "set log_error_verbosity = verbose",
        "alter table shop.users disable row level security",
        "drop policy reads_are_logged on shop.users",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute(statement)
    assert reads() == []


def test_statements_of_people_are_told_and_those_of_machines_are_not(shop: Path) -> None:
    began = datetime.now(UTC) - timedelta(milliseconds=10)
    rows_of("select count(*) from quarantine.rows", role="steward")
    rows_of("select count(*) from shop.users", role="transformer")
    rows_of("select count(*) from audit.loads", role="loader")
    by_role = {
        role: {record.what for record in access_log(since=began, role=role)}
        for role in ("owner", "steward", "transformer", "loader")
    }
    assert by_role == {
        "owner": {"connected", "select"},
        "steward": {"connected", "select"},
        "transformer": {"connected"},
        "loader": {"connected"},
    }


# --- no value ---------------------------------------------------------------------------------------------------


def test_no_value_reaches_the_log_however_it_is_put(shop: Path) -> None:
    where = parameters("bi_reader")
    with psycopg.connect(
        host=where.host,
        port=where.port,
        dbname=where.database,
        user=where.user,
        password=where.password,
        application_name=f"{EMAIL}\t{DELIVERED_ID}\nzorglub",
        autocommit=True,
    ) as connection:
        for statement in (
            f"select * from shop.users where user_id = {DELIVERED_ID} or name = '{EMAIL}'",
            f'select {PSEUDONYM} as "{ALIAS} {DELIVERED_ID}" from shop.users /* {COMMENT} {EMAIL} */ limit 1',
            f"set application_name = '{EMAIL}\t{DELIVERED_ID}'",
            f"prepare \"{ALIAS}\" as select * from shop.users where name = '{EMAIL}'",
            f'execute "{ALIAS}"',
            f'begin; declare "{ALIAS}" cursor for select \'{EMAIL}\' from shop.users; fetch 1 from "{ALIAS}"; commit',
            f"copy (select '{EMAIL}' from shop.users) to stdout",
            f"explain select '{EMAIL}' from shop.users where user_id = {DELIVERED_ID}",
        ):
            # as it is, in the simple protocol
            connection.pgconn.exec_(statement.encode())
            if "copy" in statement:
                while connection.pgconn.get_copy_data(0)[0] > 0:
                    pass
                connection.pgconn.get_result()
        for prepare in (False, True):
            connection.execute(
                f"select %s::bigint, %s::text from shop.users -- {COMMENT}", (int(PSEUDONYM), EMAIL), prepare=prepare
            )
        for failing in (
            f"select '{EMAIL}'::bigint from shop.users",
            f"select 1 / (user_id - user_id), '{EMAIL}' from shop.users",
            f"select {ALIAS} from shop.users",
            f"selec {EMAIL}",
            f"select * from raw_ecommerce.events where user_id = {PSEUDONYM}",
            f"set statement_timeout = '5ms'; select pg_sleep(9), '{EMAIL}' from shop.users",
            f"do $$ begin raise log '{EMAIL}'; end $$",
            f"notify \"{ALIAS}\", '{EMAIL}'; select 1/0",
        ):
            with pytest.raises(psycopg.Error):
                connection.execute(failing)
        # a backend that dies at work, whose statement Postgres would tell
        connection.execute("set statement_timeout = 0")
        connection.pgconn.send_query(f"select pg_sleep(60), '{EMAIL}' from shop.users".encode())
        time.sleep(0.2)
        os.kill(connection.info.backend_pid, signal.SIGKILL)
        time.sleep(0.5)
        connection.close()
    assert len([record for record in access_log(role="bi_reader") if USERS in record.tables]) >= 8
    paths = embedded_log.log_files(shop)
    assert paths
    for path in paths:
        text = path.read_text()
        assert not [word for word in CANARIES if word in text], path
    printed = agora("access-log", "--limit", 1000) + agora("access-log", "--csv", "--limit", 1000)
    assert USERS in printed
    assert not [word for word in CANARIES if word in printed]
    data_directory = embedded.start(shop).data_directory
    embedded.stop(shop)
    # nor anywhere in the data, but for what is in the mart itself, put there by the test
    for path, content in everything_under(data_directory):
        assert b"zorglub" not in content, path


# --- times, order, survival -------------------------------------------------------------------------------------


def test_times_are_right_and_survive_stops_and_kills(shop: Path) -> None:
    spans = []
    for number in range(4):
        with connect("bi_reader", autocommit=True) as connection:
            began = datetime.now(UTC)
            connection.execute(f"select pg_sleep(0.2) from shop.{'orders' if number % 2 else 'users'} limit 1")
            spans.append((began, datetime.now(UTC)))
        if number == 1:
            agora("down")
            agora("up")
        if number == 2:
            server = embedded.start(shop)
            name = (files.read_json(shop / "server.json") or {})["name"]
            process_id = embedded_processes.postmaster(server.data_directory, name)
            assert process_id
            os.kill(process_id, signal.SIGKILL)
    records = reads()
    assert [record.tables for record in records] == [(USERS,), (ORDERS,), (USERS,), (ORDERS,)]
    for record, (began, ended) in zip(records, spans, strict=True):
        assert began - timedelta(milliseconds=5) < record.at < ended
        assert record.seconds is not None
        assert 0.2 <= record.seconds <= (ended - began).total_seconds()
        assert record.host == "[local]"
    at = [record.at for record in access_log()]
    assert at == sorted(at, reverse=True)


def test_log_is_set_aside_while_the_server_writes_and_nothing_is_lost(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_log, "LOG_BYTES", 4096)
    with connect("bi_reader", autocommit=True) as connection:
        for number in range(300):
            connection.execute("select 1 from shop.users where user_id = 1")
            if number % 30 == 0:
                embedded.start(shop)
    paths = embedded_log.log_files(shop)
    assert len(paths) > 3
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in paths)
    assert b"\0" not in paths[-1].read_bytes()
    # of one session, whose login stands in the first file
    assert told(reads()) == [("select", (USERS,))] * 300


def test_what_is_older_is_forgotten_and_the_server_goes_on_writing(shop: Path) -> None:
    with connect("bi_reader", autocommit=True) as connection:
        connection.execute("select 1 from shop.users limit 1")
        time.sleep(0.05)
        moment = datetime.now(UTC)
        time.sleep(0.05)
        connection.execute("select 1 from shop.orders limit 1")
        assert forget_before(moment - timedelta(days=300)) == 0
        assert forget_before(moment) > 0
        assert [record.tables for record in access_log()] == [(ORDERS,)]
        connection.execute("select 1 from shop.users limit 1")
    assert told(reads()) == [("select", (ORDERS,)), ("select", (USERS,))]
    assert forget_before(datetime.now(UTC) + timedelta(days=1)) > 0
    assert access_log() == []


# --- the command ------------------------------------------------------------------------------------------------


def test_command_shows_latest_first_and_filters(shop: Path) -> None:
    agora_sql("select 1 as n from shop.users limit 1", role="bi_reader")
    agora_sql("select 1 as n from shop.orders limit 1", role="bi_reader")
    shown = agora("access-log", "--role", "bi_reader")
    assert shown.index(ORDERS) < shown.index(USERS)
    assert "[local]" in shown
    rows = list(csv.DictReader(io.StringIO(agora("access-log", "--csv", "--table", USERS))))
    assert [(row["role"], row["what"], row["tables"]) for row in rows] == [("bi_reader", "select", USERS)]
    assert datetime.fromisoformat(rows[0]["at"]).utcoffset() == timedelta(0)
    assert "nothing of the kind" in agora("access-log", "--since", "2999-01-01")
    assert "no date" in agora("access-log", "--since", "yesterday", expect=2)
    assert "no role" in agora("access-log", "--role", "pirate", expect=2)
    embedded.stop(shop)
    assert USERS in agora("access-log", "--table", USERS)
    assert embedded.running(shop) is None, "reading the log starts nothing"


def test_on_a_server_of_ones_own_it_says_where_to_look(server_warehouse: Path) -> None:
    said = agora("access-log", expect=2)
    assert "docs/access-log.md" in said
    assert len(said.strip().splitlines()) == 1
    assert forget_before(datetime.now(UTC)) == 0
