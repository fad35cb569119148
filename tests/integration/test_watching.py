"""Watching and going on, by the command line: what `agora status` says against hand arithmetic, what a webhook hears,
and what a run does again after the one before it failed or was killed.

One warehouse lives through all of it; the tests look at it in the order in which they stand. A run fails because
somebody has taken the transformer's right to make a schema, which only the marts need; `agora roles` mends that.
"""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from support import KEY, agora, execute, one, rows_of, start, write_events

from orchestration import resume
from warehouse.connections import connect

pytestmark = pytest.mark.once

LANDED_AT = "2026-03-01T00:00:00+00:00"
FIFTY_HOURS_LATER = "2026-03-03T02:00:00+00:00"
THEN = "2026-03-03T03:00:00+00:00"
GOOD = "2019-09-01 10:00:{:02} UTC,view,1,2,a.b,c,1.50,77,11111111-1111-4111-8111-111111111111"
ALL_STEPS = [
    "raw_ecommerce__events",
    "ecommerce_models",
    "ml_ecommerce__customer_segments",
    "ecommerce_marts",
    "ecommerce__ecommerce__customer_segments_is_published",
]


@pytest.fixture(scope="module")
def shop(warehouse: Path, tmp_path_factory: pytest.TempPathFactory, receiver: Any) -> Iterator[Path]:
    """Two simulated months in a folder; every command of the module tells the receiver."""
    folder = tmp_path_factory.mktemp("shop")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("AGORA_KEY_ECOMMERCE", KEY)
        monkeypatch.setenv("AGORA_WEBHOOK_URL", receiver.url)
        size = ("--users", 300, "--events", 6000, "--months", 2)
        agora("simulate", "ecommerce", "--out", folder, "--seed", 112358, *size)
        yield folder


def status(**variables: str) -> dict[str, Any]:
    return json.loads(agora("status", "--json", **variables))  # type: ignore[no-any-return]


def source(**variables: str) -> dict[str, Any]:
    (found,) = status(**variables)["sources"]
    return found  # type: ignore[no-any-return]


def domain() -> dict[str, Any]:
    (found,) = status()["domains"]
    return found  # type: ignore[no-any-return]


def kinds(receiver: Any) -> list[tuple[str, str]]:
    """What the webhook has heard since the last time this was asked."""
    heard = [(body["kind"], body.get("source") or body["domain"]) for body in receiver.bodies]
    receiver.bodies.clear()
    return heard


def steps_of_last_run() -> list[str]:
    with dg.DagsterInstance.from_config(str(Path(os.environ["AGORA_HOME"]) / "dagster")) as instance:
        run_id = instance.get_run_records(limit=1)[0].dagster_run.run_id
        stats = instance.get_run_step_stats(run_id)
    return [step.step_key for step in sorted(stats, key=lambda step: step.start_time or 0.0)]


def may_go_on() -> bool:
    with dg.DagsterInstance.from_config(str(Path(os.environ["AGORA_HOME"]) / "dagster")) as instance:
        return resume.run_to_go_on_from(instance, "ecommerce") is not None


def break_the_marts() -> None:
    execute(f"revoke create on database {one('select current_database()')} from transformer")


# --- status -----------------------------------------------------------------------------------------------------


def test_a_source_that_never_loaded_is_shown(shop: Path) -> None:
    assert source()["freshness"] == "never loaded"
    assert domain() == {
        "domain": "ecommerce", "generation": None, "published_at": None, "age_seconds": None, "unbuilt_load_count": 0
    }  # fmt: skip
    assert "never loaded" in agora("status")


def test_what_came_last_is_counted(shop: Path, tmp_path: Path) -> None:
    first = write_events(tmp_path / "2019-Sep.csv", [GOOD.format(second) for second in range(5)])
    second = write_events(tmp_path / "2019-Sep.b.csv", [GOOD.format(10), GOOD.format(11), "cut short", "so too"])
    agora("load", "ecommerce.events", first, AGORA_NOW="2026-02-27T00:00:00+00:00")
    agora("load", "ecommerce.events", second, AGORA_NOW=LANDED_AT)
    found = source(AGORA_NOW="2026-03-01T01:30:00+00:00")
    expected = {
        "load_count": 2, "last_load_id": 2, "last_file": "2019-Sep.b.csv", "last_loaded_at": LANDED_AT,
        "age_seconds": 5400.0, "rows_landed": 7, "last_rows_landed": 2, "last_quarantined_ratio": 0.5,
        "quarantined_ratio": pytest.approx(2 / 9), "failure_count": 0, "last_error": None, "is_landing": False,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
    seconds = one("select seconds from audit.loads where load_id = 2")
    assert found["last_seconds"] == pytest.approx(seconds)
    assert found["last_rows_per_second"] == pytest.approx(4 / seconds)
    assert domain()["unbuilt_load_count"] == 2


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("2026-03-02T02:00:00+00:00", "fresh"),
        ("2026-03-02T02:00:01+00:00", "late"),
        ("2026-03-03T01:00:00+00:00", "late"),
        ("2026-03-03T01:00:01+00:00", "stale"),
    ],
)
def test_it_is_late_after_26_hours_and_stale_after_49(shop: Path, moment: str, expected: str) -> None:
    assert source(AGORA_NOW=moment)["freshness"] == expected
    assert expected in agora("status", AGORA_NOW=moment)


def test_failures_since_the_last_load_are_counted_with_the_last_reason(shop: Path, tmp_path: Path) -> None:
    bad = tmp_path / "2019-Sep.c.csv"
    bad.write_text("time;type\n1;2\n")
    for _ in range(2):
        agora("load", "ecommerce.events", bad, expect=2)
    # an attempt whose process is gone, and that no command has noticed yet
    execute(
        "insert into audit.loads (source, file_name, status, started_at)"
        " values ('ecommerce.events', 'x', 'started', now())"
    )
    before = rows_of("select * from audit.loads order by load_id")
    found = source()
    assert (found["failure_count"], found["is_landing"]) == (3, False)
    assert found["last_error"] == "the process that loaded it is gone"
    assert "the process that loaded it is gone" in agora("status")
    assert rows_of("select * from audit.loads order by load_id") == before, "status only reads"

    with connect("loader") as connection:
        connection.execute(
            "select pg_advisory_xact_lock(hashtextextended('attempt ' || max(load_id)::bigint, 0)) from audit.loads"
        )
        found = source()
    assert (found["failure_count"], found["is_landing"]) == (2, True)
    assert found["last_error"].startswith("2019-Sep.c.csv, line 1")

    for load_id in (1, 2):
        agora("undo", load_id)
    found = source()
    assert (found["freshness"], found["load_count"], found["rows_landed"]) == ("never loaded", 0, 0)


def test_a_server_out_of_reach_is_said_to_be_so(warehouse: Path, shop: Path) -> None:
    agora("down")
    assert status()["is_up"] is True, "like every command, it starts what is down"
    unreachable = {"PGHOST": "127.0.0.1", "PGPORT": "9", "PGUSER": "nobody"}
    assert "out of reach: cannot connect to 127.0.0.1:9" in agora("status", **unreachable)
    assert status(**unreachable)["is_up"] is False


# --- failing, being told, going on ------------------------------------------------------------------------------


def test_a_run_fails_whether_the_webhook_listens_or_not(shop: Path, receiver: Any) -> None:
    agora("load", "ecommerce.events", shop / "2019-Oct.csv.gz", AGORA_NOW=LANDED_AT)
    assert domain()["unbuilt_load_count"] == 1
    break_the_marts()
    receiver.answers[:] = [500, 500, 500]
    said = agora("run", "ecommerce", expect=1, AGORA_NOW=FIFTY_HOURS_LATER)
    assert "permission denied for database" in said
    assert "agora: AGORA_WEBHOOK_URL did not take a message in 3 tries (it answered 500)" in said
    assert steps_of_last_run() == ALL_STEPS[:4]
    receiver.bodies.clear()
    (log,) = (Path(os.environ["AGORA_HOME"]) / "logs").glob("run-ecommerce-*.log")
    assert "secret-of-the-webhook" not in said + log.read_text()
    failed = "the job ecommerce failed at “dbt: building, testing and publishing the marts”."
    assert failed in agora("status")


def test_whatever_has_changed_since_makes_it_begin_at_the_beginning(
    warehouse: Path, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert may_go_on()
    late = write_events(tmp_path / "2019-Sep.d.csv", [GOOD.format(1)])
    agora("load", "ecommerce.events", late)
    assert not may_go_on()
    agora("undo", one("select max(load_id) from audit.loads where status = 'loaded'"))
    assert may_go_on()

    waiting = warehouse / "drop" / "ecommerce" / "2019-Nov.csv.gz"
    waiting.write_bytes(b"")
    assert not may_go_on()
    waiting.unlink()
    assert may_go_on()

    with monkeypatch.context() as context:
        context.setattr(resume, "code_fingerprint", lambda: "a model has changed")
        assert not may_go_on()

    # somebody is erased: their rows go in place
    execute("update audit.loads set rows_landed = rows_landed - 1, rows_suppressed = 1 where status = 'loaded'")
    assert not may_go_on()
    execute("update audit.loads set rows_landed = rows_landed + 1, rows_suppressed = 0 where status = 'loaded'")
    assert may_go_on()

    # the same rows in another table: somebody has built, or put back a backup
    with connect("transformer") as connection:
        connection.execute("create table intermediate.int_ecommerce__copy as select 1 as one")
        connection.commit()
        assert not may_go_on()
        connection.execute("drop table intermediate.int_ecommerce__copy")
    assert may_go_on()


def test_the_next_run_does_only_what_was_left(shop: Path, receiver: Any) -> None:
    agora("roles")
    built_before = one("select xmin::text from staging.stg_ecommerce__loads")
    said = agora("run", "ecommerce", AGORA_NOW=FIFTY_HOURS_LATER)
    assert "Going on from run " in said
    assert "scikit-learn: fitting the segments are done, and nothing has changed since." in said
    assert steps_of_last_run() == ALL_STEPS[3:]
    assert one("select count(*) from ml_ecommerce.customer_segments_runs") == 1
    assert one("select xmin::text from staging.stg_ecommerce__loads") == built_before
    texts = [body["text"] for body in receiver.bodies]
    assert kinds(receiver) == [
        ("failure", "ecommerce"), ("recovered", "ecommerce"), ("stale", "ecommerce.events")
    ], "told late, but told"  # fmt: skip
    assert texts[0].startswith("Agora: the job ecommerce failed at “dbt: building, testing and publishing the marts”.")
    assert texts[2] == "Agora: nothing has landed from ecommerce.events for 50 h; the limit is 49 h."
    assert domain()["generation"] == one("select max(generation) from audit.publications")
    assert domain()["unbuilt_load_count"] == 0
    assert status()["failing_jobs"] == {}


def test_after_a_kill_it_goes_on_as_well_and_gives_what_an_undisturbed_run_gives(
    shop: Path, other_home: Path, receiver: Any
) -> None:
    agora("load", "ecommerce.events", shop / "2019-Nov.csv.gz", AGORA_NOW=THEN)
    run = start("run", "ecommerce", AGORA_NOW=THEN)
    while one("select count(*) from ml_ecommerce.customer_segments_runs") < 2:
        assert run.poll() is None
        time.sleep(0.05)
    with connect() as connection:
        # the marts wait for this lock
        connection.execute("lock table intermediate.int_ecommerce__purchases in access exclusive mode")
        while "ecommerce_marts" not in steps_of_last_run():
            assert run.poll() is None
            time.sleep(0.2)
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
    assert kinds(receiver) == [], "who is dead tells nothing"

    said = agora("run", "ecommerce", AGORA_NOW=THEN)
    assert "Going on from run " in said
    assert steps_of_last_run() == ALL_STEPS[3:]
    assert one("select count(*) from ml_ecommerce.customer_segments_runs") == 2
    assert "died at “dbt: building, testing and publishing the marts”" in receiver.bodies[0]["text"]
    assert kinds(receiver) == [
        ("failure", "ecommerce"), ("recovered", "ecommerce"), ("recovered", "ecommerce.events")
    ]  # fmt: skip

    agora("load", "ecommerce.events", shop, home=other_home)
    agora("run", "ecommerce", home=other_home)
    assert agora("checksum", "ecommerce") == agora("checksum", "ecommerce", home=other_home)


def test_a_run_that_finds_no_server_is_told(shop: Path, receiver: Any) -> None:
    said = agora("run", "ecommerce", expect=2, PGHOST="127.0.0.1", PGPORT="9", PGUSER="nobody")
    assert "cannot connect to 127.0.0.1:9" in said
    (body,) = receiver.bodies
    assert kinds(receiver) == [("failure", "ecommerce")]
    assert "could not start (UserError)" in body["text"]
    assert "127.0.0.1" not in body["text"]
