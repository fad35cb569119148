"""Runs Dagster jobs from the command line: the same jobs the UI, the schedules and the sensor start."""

import contextlib
import errno
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import dagster as dg

from orchestration.alerts import begin_watching, tell
from orchestration.project import STEP_NAMES
from orchestration.resume import configured_ops, run_to_go_on_from, tags_to_go_on
from warehouse.connections import connect
from warehouse.errors import UserError
from warehouse.files import lock
from warehouse.settings import home

LOGS_KEPT = 10
# Postgres gives no reason where a page was written in part, but a hint
NO_SPACE = (os.strerror(errno.ENOSPC), "Check free disk space")
# by which a command finds its own run
COMMAND = "agora/command"


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended.

    ``errors``: one text per failed step; ``warnings``: one per check that failed without stopping the run;
    ``notices``: what hindered telling people of it; ``is_users_mistake``: trying again
    needs other input; ``reports``: what steps reported as JSON, by its label.
    """

    run_id: str
    success: bool
    errors: list[str]
    warnings: list[str]
    notices: list[str]
    is_users_mistake: bool
    log_path: Path
    reports: dict[str, Any]


def job_named(name: str) -> dg.JobDefinition:
    """The job of that name, for Dagster to rebuild it."""
    from orchestration.definitions import defs

    return defs().get_repository_def().get_job(name)


def dagster_home() -> Path:
    """Where Dagster keeps its runs: the UI and the command line share it."""
    path = home() / "dagster"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    configuration = path / "dagster.yaml"
    with lock(path / ".lock"):
        if not configuration.exists():
            configuration.write_text(
                "telemetry:\n  enabled: false\n"
                "# no invitation to a newsletter on the first page\nnux:\n  enabled: false\n"
            )
        # whoever opens it first makes its tables; two at once would spoil them for good
        with dg.DagsterInstance.from_config(str(path)):
            pass
    return path


def run_domain(
    domain: str,
    *,
    full_refresh: bool,
    on_step: Callable[[str], None],
    on_notice: Callable[[str], None] | None = None,
) -> RunOutcome:
    """Execute the domain's job in this process and record it in Dagster's instance.

    Args:
        domain: whose job.
        full_refresh: build all days and users anew, from the beginning.
        on_step: told of each step that begins.
        on_notice: told if the run goes on from a failed one, which it does only where somebody listens.
    """
    steps = (f"{domain}_models", f"{domain}_marts")
    ops = {step: {"config": {"full_refresh": full_refresh}} for step in steps}
    with _instance() as instance:
        begin_watching(instance)
        failed = run_to_go_on_from(instance, domain) if on_notice and not full_refresh else None
        done = _steps_done(instance, failed) if failed else []
        # landing alone is nothing to save, and a second failure would begin at the beginning
        if failed is None or on_notice is None or len(done) < 2:
            return _run_job(instance, domain, ops, on_step)
        on_notice(f"Going on from run {failed.run_id[:8]}: {'; '.join(done)} are done, and nothing has changed since.")
        return _run_job(instance, domain, configured_ops(failed) or ops, on_step, failed)


def run_retention(as_of: datetime, *, on_step: Callable[[str], None]) -> RunOutcome:
    """Execute the retention job in this process and record it in Dagster's instance."""
    with _instance() as instance:
        begin_watching(instance)
        return _run_job(instance, "retention", {"purge_expired": {"config": {"as_of": as_of.isoformat()}}}, on_step)


@contextlib.contextmanager
def _instance() -> Iterator[dg.DagsterInstance]:
    os.environ["DAGSTER_HOME"] = str(dagster_home())
    with dg.DagsterInstance.get() as instance:
        yield instance


def _steps_done(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[str]:
    steps = instance.get_run_step_stats(run.run_id)
    return [
        STEP_NAMES.get(step.step_key, step.step_key)
        for step in sorted(steps, key=lambda step: step.start_time or 0.0)
        if step.status and step.status.value == "SUCCESS"
    ]


def _run_job(
    instance: dg.DagsterInstance,
    name: str,
    ops: dict[str, Any],
    on_step: Callable[[str], None],
    failed: dg.DagsterRun | None = None,
) -> RunOutcome:
    """Retries are for runs nobody watches: here a failure is told at once. What `failed` has done stays done."""
    job = dg.build_reconstructable_job("orchestration.run", "job_named", reconstructable_args=(name,))
    config = {
        "execution": {"config": {"retries": {"disabled": {}}}},
        "loggers": {"console": {"config": {"log_level": "ERROR"}}},
        "ops": ops,
    }
    log_path = _new_log(name)
    rest_of = dg.ReexecutionOptions.from_failure(failed.run_id, instance) if failed else None
    tags = {COMMAND: secrets.token_hex(8), **(tags_to_go_on(failed) if failed else {})}
    with _steps_told(instance, tags[COMMAND], on_step), _output_to(log_path):
        result = dg.execute_job(job, instance=instance, run_config=config, reexecution_options=rest_of, tags=tags)
        warnings = [_warning(event) for event in result.all_events if _is_failed_check(event)]
        failures = [event.step_failure_data.error for event in result.all_events if event.is_step_failure]
        # before its first step
        failures = failures or [event.job_failure_data.error for event in result.all_events if event.is_job_failure]
        reports = {
            label: value.data
            for event in result.all_events
            if event.is_successful_output
            for label, value in event.step_output_data.metadata.items()
            if isinstance(value, dg.JsonMetadataValue)
        }
    notices: list[str] = []
    tell(instance, on_notice=notices.append)
    errors = [_sentence(error) for error in failures if error]
    is_mistake = any(_is_mistake(error) for error in failures if error)
    if not result.success:
        try:
            connect("transformer").close()
        except UserError as error:
            # a database that cannot be started again says why better than the step that lost it
            errors, is_mistake = [str(error)], True
    return RunOutcome(result.run_id, result.success, errors, warnings, notices, is_mistake, log_path, reports)


def _new_log(job_name: str) -> Path:
    """A log of this run alone: another may be going on, and the one that failed before is still of interest."""
    folder = home() / "logs"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    logs = sorted(folder.glob(f"run-{job_name}-*.log"))
    for log in logs[: max(0, len(logs) - LOGS_KEPT + 1)]:
        log.unlink(missing_ok=True)
    return folder / f"run-{job_name}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.log"


@contextlib.contextmanager
def _steps_told(instance: dg.DagsterInstance, command: str, on_step: Callable[[str], None]) -> Iterator[None]:
    """Tell of each step as it begins, of the run that has the command's tag."""
    done = threading.Event()
    begun: SimpleQueue[str | None] = SimpleQueue()

    def hear(entry: dg.EventLogEntry) -> None:
        if entry.dagster_event and entry.dagster_event.is_step_start:
            begun.put(entry.step_key)

    # apart from the run, which goes on if nobody reads the screen any more
    def watch() -> None:
        records: Sequence[dg.RunRecord] = []
        while not records and not done.wait(0.5):
            records = instance.get_run_records(dg.RunsFilter(tags={COMMAND: command}), limit=1)
        for record in records:
            instance.add_event_listener(record.dagster_run.run_id, hear)
            missed = [stats.step_key for stats in instance.get_run_step_stats(record.dagster_run.run_id)]
            told: set[str | None] = set()
            for step_key in chain(missed, iter(begun.get, None)):
                if step_key not in told:
                    told.add(step_key)
                    on_step(STEP_NAMES.get(step_key, step_key))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        begun.put(None)
        watcher.join()


@contextlib.contextmanager
def _output_to(path: Path) -> Iterator[None]:
    # dbt's and Dagster's own lines are for whoever looks for a cause, not for the screen
    with path.open("w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        yield


def _is_failed_check(event: dg.DagsterEvent) -> bool:
    return event.event_type_value == "ASSET_CHECK_EVALUATION" and not event.asset_check_evaluation_data.passed


def _warning(event: dg.DagsterEvent) -> str:
    check = event.asset_check_evaluation_data
    details = "; ".join(str(value.value) for value in check.metadata.values() if isinstance(value.value, str))
    return f"check {check.check_name} of {check.asset_key.to_user_string()} failed: {details}"


def _sentence(error: object) -> str:
    message = str(getattr(_root(error), "message", "")).strip()
    if any(words in message for words in NO_SPACE):
        return "the disk of the database is full: make room and run again"
    # dagster-dbt puts its own command line before what dbt says
    _, _, said_by_dbt = message.partition("Errors parsed from dbt logs:")
    return f"dbt stopped.\n{_without_blank_lines(said_by_dbt)}" if said_by_dbt else message.split(": ", 1)[-1]


def _without_blank_lines(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


def _is_mistake(error: object) -> bool:
    return getattr(_root(error), "cls_name", "") in ("Failure", "UserError")


def _root(error: object) -> object:
    while getattr(error, "cause", None):
        error = error.cause  # type: ignore[attr-defined]
    return error
