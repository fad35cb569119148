"""Tells people what needs them, by the webhook that ``AGORA_WEBHOOK_URL`` names: a run that failed for good or died, a
source from which nothing has come for too long, and when either is over. Each once.

Who looks: every run that a command has started, at its end, and the sensor ``watch`` while `agora ui` is up. What has
been told stands in ``AGORA_HOME/alerts.json``, so that it does not matter who looks first. A message says which run and
which source, never a value or the text of an error, which could hold one.
"""

import json
import os
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from email.message import Message
from typing import IO, Literal
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

import dagster as dg

from orchestration.presence import DIED, close_dead_runs
from orchestration.project import STEP_NAMES
from orchestration.status import SourceStatus, age_in_words, source_statuses
from warehouse import files
from warehouse.bootstrap import is_up
from warehouse.errors import UserError
from warehouse.settings import home

TRY_SECONDS = 10.0
PAUSES_SECONDS = (1.0, 4.0)
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
# far more than are looked at
REMEMBERED_RUNS, LOOKED_AT_RUNS = 200, 50
ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]


@dataclass(frozen=True)
class Alert:
    """One message: ``text`` is for people, the rest for machines; ``run_id`` or ``source`` is what it is about."""

    text: str
    kind: Literal["failure", "stale", "recovered"]
    domain: str
    run_id: str | None = None
    source: str | None = None


@dataclass
class _Memory:
    """``told_*``: what has been told and not taken back. ``since``: of runs that began before, nothing is told.

    ``failing``: by job, the sentence on its last run, if that failed; `agora status` shows it.
    """

    since: str
    failing: dict[str, str] = field(default_factory=dict)
    told_runs: list[str] = field(default_factory=list)
    told_jobs: list[str] = field(default_factory=list)
    told_sources: list[str] = field(default_factory=list)


class _UndeliveredError(Exception):
    """The webhook did not take a message; the text says why, without its address, which is a secret."""


def begin_watching(instance: dg.DagsterInstance) -> None:
    """Let Dagster know of dead runs. Of runs that began before the first time anybody looked, nothing is told."""
    # who holds the memory may be waiting for a slow webhook: no run begins later for that
    if not (home() / "alerts.json").exists():
        with _memory():
            pass
    close_dead_runs(instance)


def tell_not_started(domain: str, error: Exception, *, on_notice: Callable[[str], None]) -> None:
    """Tell that a run came to nothing before Dagster knew of it: no server, no definitions. Never raises, as `tell`."""
    try:
        kind = type(error).__name__
        _deliver(Alert(f"Agora: the job {domain} could not start ({kind}): run it by hand.", "failure", domain))
    except _UndeliveredError as problem:
        on_notice(str(problem))


def tell(instance: dg.DagsterInstance, *, on_notice: Callable[[str], None]) -> None:
    """Tell what has not been told yet; never raises, or a run that has done its work would seem to have failed.

    What cannot be delivered is tried again the next time. Without a webhook everything counts as told. `on_notice`
    hears why something was not delivered.
    """
    try:
        with _memory() as memory:
            close_dead_runs(instance)
            memory.failing = _failing(instance, memory)
            _tell_of_runs(instance, memory)
            if is_up():
                _tell_of_sources(source_statuses(), memory)
    except (_UndeliveredError, UserError) as problem:
        on_notice(str(problem))
    except OSError as error:
        on_notice(f"cannot keep in mind what was told ({error.strerror}): make {home()} writable.")
    except Exception as error:
        # Postgres or Dagster's own books failed meanwhile; the text may hold anything
        on_notice(f"cannot look for what there is to tell ({type(error).__name__}): the next run looks again.")


@contextmanager
def _memory() -> Iterator[_Memory]:
    """What was told, for one process at a time; what the block makes of it is kept, also if it fails."""
    files.make_home(home())
    path = home() / "alerts.json"
    with files.lock(home() / ".alerts.lock"):
        try:
            memory = _Memory(**(files.read_json(path) or {}))
            before = asdict(memory)
            # written by a clock that was ahead
            memory.since = min(memory.since, datetime.now(UTC).isoformat())
        except (UserError, TypeError):
            # none yet, or damaged: watching begins now
            memory, before = _Memory(datetime.now(UTC).isoformat()), {}
        try:
            yield memory
        finally:
            memory.told_runs = memory.told_runs[-REMEMBERED_RUNS:]
            if asdict(memory) != before:
                files.write_json(path, asdict(memory))


# --- runs -------------------------------------------------------------------------------------------------------


def _tell_of_runs(instance: dg.DagsterInstance, memory: _Memory) -> None:
    for record in reversed(_records(instance, memory, [dg.DagsterRunStatus.FAILURE])):
        run = record.dagster_run
        if run.run_id not in memory.told_runs:
            _deliver(Alert(f"Agora: {_sentence_on(instance, run)}", "failure", run.job_name, run_id=run.run_id))
            memory.told_runs.append(run.run_id)
            if run.job_name not in memory.told_jobs:
                memory.told_jobs.append(run.job_name)
    for job in [job for job in memory.told_jobs if job not in memory.failing]:
        _deliver(Alert(f"Agora: the job {job} runs through again.", "recovered", job))
        memory.told_jobs.remove(job)


def _failing(instance: dg.DagsterInstance, memory: _Memory) -> dict[str, str]:
    latest: dict[str, dg.DagsterRun] = {}
    for record in _records(instance, memory, ENDED):
        latest.setdefault(record.dagster_run.job_name, record.dagster_run)
    failed = {job: run for job, run in latest.items() if run.status == dg.DagsterRunStatus.FAILURE}
    return {job: _sentence_on(instance, run) for job, run in failed.items()}


def _records(instance: dg.DagsterInstance, memory: _Memory, statuses: list[dg.DagsterRunStatus]) -> list[dg.RunRecord]:
    """Runs of Agora's jobs, latest first; what somebody builds by hand in Dagster's page is theirs to watch."""
    began = dg.RunsFilter(statuses=statuses, created_after=datetime.fromisoformat(memory.since))
    records = instance.get_run_records(began, limit=LOOKED_AT_RUNS)
    return [record for record in records if not record.dagster_run.job_name.startswith("__")]


def _sentence_on(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    advice = f"Run {run.run_id[:8]}; what to do: docs/runbooks/failed-run.md"
    steps = [step for step in instance.get_run_step_stats(run.run_id) if step.start_time]
    last = max(steps, key=lambda step: step.start_time or 0.0, default=None)
    where = f"at “{STEP_NAMES.get(last.step_key, last.step_key)}”" if last else "before its first step"
    if DIED in run.tags:
        return f"the job {run.job_name} died {where}: its process is gone. {advice}"
    return f"the job {run.job_name} failed {where}. {advice}"


# --- sources ----------------------------------------------------------------------------------------------------


def _tell_of_sources(statuses: list[SourceStatus], memory: _Memory) -> None:
    for status in statuses:
        domain = status.source.split(".")[0]
        is_told = status.source in memory.told_sources
        age = age_in_words(status.age_seconds or 0.0)
        if status.freshness == "stale" and not is_told:
            limit = age_in_words(status.stale_after_hours * 3600)
            text = f"Agora: nothing has landed from {status.source} for {age}; the limit is {limit}."
            _deliver(Alert(text, "stale", domain, source=status.source))
            memory.told_sources.append(status.source)
        elif status.freshness != "stale" and is_told:
            text = f"Agora: {status.source} is no longer stale; its last load was {age} ago."
            _deliver(Alert(text, "recovered", domain, source=status.source))
            memory.told_sources.remove(status.source)


# --- delivery ---------------------------------------------------------------------------------------------------


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET without its message, somewhere else."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        return None


def _deliver(alert: Alert) -> None:
    """Post an alert, thrice if need be; nothing without a webhook.

    Raises:
        _UndeliveredError: nobody took it.
    """
    url = os.environ.get("AGORA_WEBHOOK_URL")
    if not url:
        return
    _refuse_unsafe(url)
    body = json.dumps({name: value for name, value in asdict(alert).items() if value is not None}).encode()
    problem = _post(url, body)
    for pause in PAUSES_SECONDS:
        if problem is None:
            return
        time.sleep(pause)
        problem = _post(url, body)
    if problem is not None:
        raise _UndeliveredError(
            f"AGORA_WEBHOOK_URL did not take a message in {len(PAUSES_SECONDS) + 1} tries ({problem}): “{alert.text}”"
        )


def _refuse_unsafe(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOCAL_HOSTS)
    except ValueError:
        is_safe = False
    if not is_safe:
        raise _UndeliveredError("AGORA_WEBHOOK_URL must begin with https:// (http:// only for this machine itself).")


def _post(url: str, body: bytes) -> str | None:
    """Post once; None if it was taken, else why not, in words that hold nothing of the address."""
    outcomes: list[str | None] = []
    # a time limit of a connection begins anew with every byte, and looking up a name knows none
    thread = threading.Thread(target=lambda: outcomes.append(_posted(url, body)), daemon=True)
    thread.start()
    thread.join(TRY_SECONDS)
    return outcomes[0] if outcomes else "TimeoutError"


def _posted(url: str, body: bytes) -> str | None:
    headers = {"Content-Type": "application/json", "User-Agent": "agora"}
    request = urllib.request.Request(url, data=body, headers=headers)  # noqa: S310 the scheme has been checked
    # what is for this machine itself does not go by a proxy, in clear text
    no_proxy = [urllib.request.ProxyHandler({})] if request.type == "http" else []
    try:
        with urllib.request.build_opener(_NoRedirects, *no_proxy).open(request, timeout=TRY_SECONDS):
            return None
    except HTTPError as error:
        return f"it answered {error.code}"
    except URLError as error:
        return type(error.reason).__name__ if isinstance(error.reason, BaseException) else "no answer"
    except Exception as error:
        return type(error).__name__
