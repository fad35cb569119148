"""Whether a run may go on from the one that failed before it, or has to begin at the beginning.

It may if nothing has changed that the finished steps of the failed run depend on, and if what they made still stands. A
run notes both as tags: what had landed when it began to build, and after each step what was built. Not here: the
execution (`run`), which is Dagster's own re-execution from failure.
"""

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import dagster as dg

from ingestion.source import sources
from orchestration.drop import drop_fingerprint
from orchestration.project import code_fingerprint
from warehouse.connections import connect
from warehouse.errors import UserError

LANDED = "agora/landed"
BUILT = "agora/built"
STANDS_ON = "agora/stands_on"
ENDED_BADLY = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


def run_to_go_on_from(instance: dg.DagsterInstance, domain: str) -> dg.DagsterRun | None:
    """The domain's last run, if it failed and what its finished steps made is what they would make again."""
    records = instance.get_run_records(dg.RunsFilter(job_name=domain), limit=1)
    run = records[0].dagster_run if records else None
    if run is None or run.status not in ENDED_BADLY or not _is_whole_and_ordinary(run):
        return None
    # what another target has built is not looked at
    if os.environ.get("DBT_TARGET"):
        return None
    # a second failure may lie in what the finished steps made, for all that we can see: then everything is made anew
    if run.parent_run_id:
        return None
    is_unchanged = run.tags.get(LANDED) == landed(domain) and run.tags.get(BUILT) == built(domain)
    return run if is_unchanged else None


def tags_to_go_on(failed: dg.DagsterRun) -> dict[str, str]:
    """Tags of the run that goes on from another: shown as one with it, as by Dagster's page; and what it stands on."""
    return {
        "dagster/parent_run_id": failed.run_id,
        "dagster/root_run_id": failed.run_id,
        STANDS_ON: f"{failed.run_id} {failed.tags[LANDED]} {failed.tags[BUILT]}",
    }


def refuse_if_changed_meanwhile(run: dg.DagsterRun | None, domain: str) -> None:
    """See again, now that nobody else builds or erases, that what a run goes on from still stands.

    Raises:
        UserError: something has changed while the run waited.
    """
    # Dagster's page copies tags to the run it begins, which has another parent
    if run is None or not run.tags.get(STANDS_ON, "").startswith(f"{run.parent_run_id} "):
        return
    if run.tags[STANDS_ON] != f"{run.parent_run_id} {landed(domain)} {built(domain)}":
        raise UserError("something has changed since the failed run while this one waited to go on: run it again.")


def configured_ops(run: dg.DagsterRun) -> dict[str, Any]:
    """By step, what the run was told of it."""
    configuration: Mapping[str, Any] = run.run_config
    return dict(configuration.get("ops") or {})


def note_landed(instance: dg.DagsterInstance, run_id: str, domain: str) -> None:
    """Note what has landed, before the run begins to build of it."""
    instance.add_run_tags(run_id, {LANDED: landed(domain)})


@dg.success_hook(name="note_built")
def note_built(context: dg.HookContext) -> None:
    """Note after each step what stands in the warehouse."""
    context.instance.add_run_tags(context.run_id, {BUILT: built(context.job_name)})


def landed(domain: str) -> str:
    """A fingerprint of all that a build depends on: loads, drop folder and code.

    An erasure shows in the counts of the loads, a purge in their times.
    """
    names = sorted(source.name for source in sources().values() if source.domain == domain)
    with connect("transformer") as connection:
        loads = connection.execute(
            "select load_id, sha256, rows_landed, rows_quarantined, rows_suppressed, raw_purged_at, purged_at"
            " from audit.loads where source = any(%s) and status = 'loaded' order by load_id",
            (names,),
        ).fetchall()
    return _fingerprint(loads, [drop_fingerprint(name) for name in names], code_fingerprint())


def built(domain: str) -> str:
    """A fingerprint of the tables below the marts: of which files they are, which Postgres renews with each table."""
    with connect("transformer") as connection:
        tables = connection.execute(
            "select nspname, relname, pg_class.oid, relfilenode from pg_class"
            " inner join pg_namespace on pg_class.relnamespace = pg_namespace.oid"
            " where relkind = 'r' and (nspname = %s or (nspname = any(%s) and strpos(relname, %s) > 0)) order by 1, 2",
            (f"ml_{domain}", ["staging", "intermediate"], domain),
        ).fetchall()
    return _fingerprint(tables)


def _is_whole_and_ordinary(run: dg.DagsterRun) -> bool:
    """Whether the run was of the whole job, with no settings but a full refresh, which what goes on from it keeps."""
    is_part = run.asset_selection or run.resolved_op_selection or run.op_selection
    settings = [op.get("config", {}) for op in configured_ops(run).values()]
    return not is_part and all(set(setting) <= {"full_refresh"} for setting in settings)


def _fingerprint(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
