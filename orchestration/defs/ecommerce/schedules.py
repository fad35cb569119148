"""When the shop's job runs by itself: every night, and when a new file lies in the drop folder."""

import dagster as dg

from ingestion.download import TransferError
from orchestration.defs.ecommerce.raw import SOURCE
from orchestration.drop import fingerprint_of, look_into_drop_folder
from orchestration.resume import note_built
from warehouse.errors import UserError

ecommerce_job = dg.define_asset_job(
    "ecommerce",
    selection=dg.AssetSelection.groups("ecommerce") | dg.AssetSelection.checks_for_assets(),
    description="Land what waits, clean, build features, fit the segments, publish the marts.",
    executor_def=dg.in_process_executor,
    hooks={note_built},
    op_retry_policy=dg.RetryPolicy(max_retries=3, delay=300, backoff=dg.Backoff.EXPONENTIAL),
)

# each night asks the drop folder and the audit what is missing: a night that was skipped is made up by the next
nightly = dg.ScheduleDefinition(
    name="ecommerce_nightly",
    job=ecommerce_job,
    cron_schedule="0 2 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)


@dg.sensor(
    name="ecommerce_new_files",
    job=ecommerce_job,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def new_files(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Starts a run when the set of files in the drop folder has changed and then stood still for one tick."""
    try:
        fingerprint = fingerprint_of(look_into_drop_folder(SOURCE))
    except (TransferError, UserError) as error:
        return dg.SkipReason(f"the drop folder cannot be looked into: {error}")
    seen, _, started = (context.cursor or "|").partition("|")
    if fingerprint == started or not fingerprint:
        return dg.SkipReason("no new file in the drop folder")
    if fingerprint != seen:
        # a file may still be growing: look again at the next tick
        context.update_cursor(f"{fingerprint}|{started}")
        return dg.SkipReason("the drop folder changed; waiting until its files stand still")
    return dg.SensorResult(run_requests=[dg.RunRequest(run_key=fingerprint)], cursor=f"{fingerprint}|{fingerprint}")
