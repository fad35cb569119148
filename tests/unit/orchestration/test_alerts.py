"""What is told and how often: against a webhook on this machine and an instance of Dagster, without a warehouse."""

import os
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
import trustme
from support import serving

from orchestration import alerts, presence
from orchestration.status import SourceStatus, failing_jobs

STALE = SourceStatus(
    source="ecommerce.events",
    freshness="stale",
    late_after_hours=26,
    stale_after_hours=49,
    load_count=1,
    is_landing=False,
    last_load_id=1,
    last_file="2019-Oct.csv.gz",
    last_loaded_at=datetime.fromisoformat("2020-03-01T00:00:00+00:00"),
    age_seconds=50 * 3600,
    rows_landed=10,
    last_rows_landed=10,
    quarantined_ratio=0.0,
    last_quarantined_ratio=0.0,
    last_seconds=1.0,
    last_rows_per_second=10.0,
    failure_count=1,
    last_error="ada@example.org is no period",
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receiver: Any) -> Path:
    monkeypatch.setenv("AGORA_HOME", str(tmp_path))
    monkeypatch.setenv("AGORA_WEBHOOK_URL", receiver.url)
    monkeypatch.setattr(alerts, "PAUSES_SECONDS", (0.0, 0.0))
    receiver.bodies.clear()
    receiver.answers.clear()
    return tmp_path


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


@dg.op
def clean_events(context: dg.OpExecutionContext) -> None:
    if context.run_tags.get("fails"):
        raise ValueError("user 541312140 paid 489.07")


@dg.job(op_retry_policy=dg.RetryPolicy(max_retries=3, delay=0))
def ecommerce() -> None:
    clean_events()


def run(instance: dg.DagsterInstance, *, fails: bool) -> str:
    tags = {"fails": "true"} if fails else {}
    return ecommerce.execute_in_process(instance=instance, raise_on_error=False, tags=tags).run_id


def told(instance: dg.DagsterInstance) -> list[str]:
    """What hindered the telling."""
    notices: list[str] = []
    alerts.tell(instance, on_notice=notices.append)
    return notices


# --- runs -------------------------------------------------------------------------------------------------------


def test_a_failed_run_is_told_once_after_its_retries_and_so_is_the_next_good_one(
    instance: dg.DagsterInstance, receiver: Any
) -> None:
    alerts.begin_watching(instance)
    run_id = run(instance, fails=True)
    assert [told(instance), told(instance)] == [[], []]
    (body,) = receiver.bodies
    assert (body["kind"], body["domain"], body["run_id"]) == ("failure", "ecommerce", run_id)
    assert body["text"].startswith("Agora: the job ecommerce failed at “clean_events”. ")
    for value in ("541312140", "489.07", "paid"):
        assert value not in str(body)
    assert failing_jobs() == {"ecommerce": body["text"].removeprefix("Agora: ")}

    again = run(instance, fails=True)
    assert told(instance) == []
    assert [body["run_id"] for body in receiver.bodies] == [run_id, again]

    run(instance, fails=False)
    assert [told(instance), told(instance)] == [[], []]
    assert [body["kind"] for body in receiver.bodies] == ["failure", "failure", "recovered"]
    assert failing_jobs() == {}


def test_runs_before_the_watch_and_good_ones_are_not_told(instance: dg.DagsterInstance, receiver: Any) -> None:
    run(instance, fails=True)
    alerts.begin_watching(instance)
    run(instance, fails=False)
    assert told(instance) == []
    assert receiver.bodies == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"of": "another version"}'])
def test_a_damaged_memory_hinders_nobody(instance: dg.DagsterInstance, receiver: Any, home: Path, content: str) -> None:
    (home / "alerts.json").write_text(content)
    assert failing_jobs() == {}
    run(instance, fails=True)
    assert told(instance) == []
    run_id = run(instance, fails=True)
    assert told(instance) == []
    assert [body["run_id"] for body in receiver.bodies] == [run_id]


def test_two_who_look_at_once_tell_it_once(instance: dg.DagsterInstance, receiver: Any) -> None:
    alerts.begin_watching(instance)
    run(instance, fails=True)
    with ThreadPoolExecutor(4) as executor:
        assert list(executor.map(told, [instance] * 4)) == [[]] * 4
    assert len(receiver.bodies) == 1


def test_without_a_webhook_everything_counts_as_told(
    instance: dg.DagsterInstance, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AGORA_WEBHOOK_URL")
    alerts.begin_watching(instance)
    run(instance, fails=True)
    assert told(instance) == []
    assert "ecommerce" in failing_jobs()
    monkeypatch.setenv("AGORA_WEBHOOK_URL", receiver.url)
    assert told(instance) == []
    assert receiver.bodies == []


def unfinished(instance: dg.DagsterInstance) -> dg.DagsterRun:
    run = instance.create_run_for_job(ecommerce)
    event = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, "ecommerce")
    instance.report_dagster_event(event, run_id=run.run_id)
    return run


def status_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found
    return found.status


def test_a_run_whose_process_was_killed_is_told_as_dead(instance: dg.DagsterInstance, receiver: Any) -> None:
    alerts.begin_watching(instance)
    dead = unfinished(instance)
    code = (
        "import sys, time; from orchestration.presence import announce\n"
        "announce(sys.argv[1]); print('present', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, dead.run_id], env=os.environ, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "present\n"
    assert told(instance) == []
    assert status_of(instance, dead) == dg.DagsterRunStatus.STARTED

    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert [told(instance), told(instance)] == [[], []]
    assert status_of(instance, dead) == dg.DagsterRunStatus.FAILURE
    (body,) = receiver.bodies
    assert body["kind"] == "failure"
    assert "died before its first step" in body["text"]
    assert list((presence.home() / "dagster" / "alive").iterdir()) == []


def test_a_run_that_lives_or_only_just_starts_is_left_alone(
    instance: dg.DagsterInstance, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    alerts.begin_watching(instance)
    here, starting = unfinished(instance), unfinished(instance)
    presence.announce(here.run_id)
    assert told(instance) == []
    assert {status_of(instance, here), status_of(instance, starting)} == {dg.DagsterRunStatus.STARTED}
    monkeypatch.setattr(presence, "START_UP", timedelta(0))
    assert told(instance) == []
    assert status_of(instance, here) == dg.DagsterRunStatus.STARTED
    assert status_of(instance, starting) == dg.DagsterRunStatus.FAILURE
    assert [body["run_id"] for body in receiver.bodies] == [starting.run_id]
    instance.report_run_canceled(here)
    assert told(instance) == []
    assert list((presence.home() / "dagster" / "alive").iterdir()) == [], "swept once the run is over"


def test_no_run_waits_for_a_webhook_that_another_waits_for(instance: dg.DagsterInstance, home: Path) -> None:
    alerts.begin_watching(instance)
    dead = unfinished(instance)
    with alerts._memory():
        alerts.begin_watching(instance)
        presence.announce(dead.run_id)
        alerts.begin_watching(instance)
    assert status_of(instance, dead) == dg.DagsterRunStatus.STARTED


def test_a_watch_begun_under_a_clock_that_was_ahead_begins_now(
    instance: dg.DagsterInstance, receiver: Any, home: Path
) -> None:
    (home / "alerts.json").write_text('{"since": "2999-01-01T00:00:00+00:00"}')
    assert told(instance) == []
    run_id = run(instance, fails=True)
    assert told(instance) == []
    assert [body["run_id"] for body in receiver.bodies] == [run_id]


# --- sources ----------------------------------------------------------------------------------------------------


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> list[SourceStatus]:
    """What the warehouse says of its sources."""
    statuses: list[SourceStatus] = []
    monkeypatch.setattr(alerts, "is_up", lambda: True)
    monkeypatch.setattr(alerts, "source_statuses", lambda: statuses)
    return statuses


def test_a_stale_source_is_told_once_and_once_when_it_is_over(
    instance: dg.DagsterInstance, receiver: Any, sources: list[SourceStatus]
) -> None:
    for freshness in ("never loaded", "fresh", "late", "stale", "stale", "stale", "fresh", "fresh", "stale"):
        sources[:] = [replace(STALE, freshness=freshness, age_seconds=7200 if freshness == "fresh" else 180000)]
        assert told(instance) == []
    assert [body["kind"] for body in receiver.bodies] == ["stale", "recovered", "stale"]
    assert receiver.bodies[0] == {
        "text": "Agora: nothing has landed from ecommerce.events for 50 h; the limit is 49 h.",
        "kind": "stale",
        "domain": "ecommerce",
        "source": "ecommerce.events",
    }
    assert receiver.bodies[1]["text"] == "Agora: ecommerce.events is no longer stale; its last load was 2 h ago."


def test_a_run_that_cannot_start_is_told_without_the_reasons_text(receiver: Any) -> None:
    notices: list[str] = []
    error = RuntimeError("ada@example.org")
    alerts.tell_not_started("ecommerce", error, on_notice=notices.append)
    assert receiver.bodies == [
        {
            "text": "Agora: the job ecommerce could not start (RuntimeError): run it by hand.",
            "kind": "failure",
            "domain": "ecommerce",
        }
    ]
    receiver.answers[:] = [500] * 3
    alerts.tell_not_started("ecommerce", error, on_notice=notices.append)
    (notice,) = notices
    assert "it answered 500" in notice


# --- a webhook that does not listen -----------------------------------------------------------------------------


def test_a_webhook_that_answers_an_error_is_tried_thrice_and_again_the_next_time(
    instance: dg.DagsterInstance, receiver: Any, sources: list[SourceStatus]
) -> None:
    sources.append(STALE)
    receiver.answers[:] = [500, 503, 429]
    (notice,) = told(instance)
    assert "did not take a message in 3 tries (it answered 429)" in notice
    assert len(receiver.bodies) == 3
    assert told(instance) == []
    assert len(receiver.bodies) == 4
    assert told(instance) == []
    assert len(receiver.bodies) == 4


def test_a_webhook_that_listens_the_second_time_was_told(
    instance: dg.DagsterInstance, receiver: Any, sources: list[SourceStatus]
) -> None:
    sources.append(STALE)
    # a redirected message would arrive without its content
    receiver.answers[:] = [302, 204]
    assert [told(instance), told(instance)] == [[], []]
    assert len(receiver.bodies) == 2


def test_a_webhook_on_this_machine_is_told_past_any_proxy(
    instance: dg.DagsterInstance, receiver: Any, sources: list[SourceStatus], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    sources.append(STALE)
    assert told(instance) == []
    assert len(receiver.bodies) == 1


def test_a_webhook_that_never_answers_hinders_nobody_for_long(
    instance: dg.DagsterInstance, receiver: Any, sources: list[SourceStatus], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "TRY_SECONDS", 0.2)
    receiver.is_open.clear()
    sources.append(STALE)
    (notice,) = told(instance)
    receiver.is_open.set()
    assert "(TimeoutError)" in notice


def test_a_webhook_that_answers_byte_by_byte_hinders_nobody_for_long(
    instance: dg.DagsterInstance, sources: list[SourceStatus], monkeypatch: pytest.MonkeyPatch
) -> None:
    is_over = threading.Event()

    class Drip(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            while not is_over.wait(0.05):
                self.wfile.write(b"H")

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Drip)
    monkeypatch.setattr(alerts, "TRY_SECONDS", 0.5)
    monkeypatch.setenv("AGORA_WEBHOOK_URL", f"http://127.0.0.1:{server.server_port}/secret")
    sources.append(STALE)
    with serving(server):
        try:
            (notice,) = told(instance)
        finally:
            is_over.set()
    assert "(TimeoutError)" in notice


def test_a_warehouse_that_goes_away_meanwhile_hinders_nobody(
    instance: dg.DagsterInstance, receiver: Any, sources: list[SourceStatus], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost() -> list[SourceStatus]:
        raise psycopg.OperationalError("server closed the connection, user 541312140")

    monkeypatch.setattr(alerts, "source_statuses", lost)
    alerts.begin_watching(instance)
    run(instance, fails=True)
    (notice,) = told(instance)
    assert "(OperationalError)" in notice
    assert "541312140" not in notice
    assert told(instance) == [notice]
    assert len(receiver.bodies) == 1, "what was told is kept in mind all the same"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:9/secret", "(ConnectionRefusedError)"),
        ("http://localhost:9/secret", "(ConnectionRefusedError)"),
        ("https://127.0.0.1:9/secret", "(ConnectionRefusedError)"),
        ("https://127.0.0.1:port/secret", "(InvalidURL)"),
        ("http://hooks.example.org/secret", "must begin with https://"),
        ("http://127.0.0.1.example.org/secret", "must begin with https://"),
        ("http://[secret", "must begin with https://"),
        ("file:///etc/secret", "must begin with https://"),
        ("secret", "must begin with https://"),
    ],
)
def test_an_address_that_does_not_do_is_said_and_never_shown(
    instance: dg.DagsterInstance,
    sources: list[SourceStatus],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    url: str,
    reason: str,
) -> None:
    monkeypatch.setenv("AGORA_WEBHOOK_URL", url)
    sources.append(STALE)
    (notice,) = told(instance)
    assert reason in notice
    assert "secret" not in notice + "".join(capfd.readouterr())


def test_a_certificate_that_nobody_vouches_for_is_refused(
    instance: dg.DagsterInstance, sources: list[SourceStatus], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    monkeypatch.setenv("AGORA_WEBHOOK_URL", f"https://127.0.0.1:{server.server_port}/secret")
    sources.append(STALE)
    with serving(server):
        (notice,) = told(instance)
    assert "(SSLCertVerificationError)" in notice


def test_a_message_holds_neither_a_files_name_nor_an_error(
    instance: dg.DagsterInstance, receiver: Any, sources: list[SourceStatus]
) -> None:
    sources.append(STALE)
    assert told(instance) == []
    (body,) = receiver.bodies
    assert "ada@example.org" not in str(body)
    assert "2019-Oct" not in str(body)
