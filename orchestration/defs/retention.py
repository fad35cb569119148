"""Retention, for all domains: every night, before they are built, what is past its time goes."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import dagster as dg

from governance import access_log, retention
from governance.classification import classified_tables
from ingestion.download import sweep_spool
from orchestration.project import manifest
from warehouse.settings import home, now


class Expiry(dg.Config):
    as_of: str | None = None


@dg.op(required_resource_keys={"presence"})
def purge_expired(context: dg.OpExecutionContext, config: Expiry) -> None:
    """Remove what is past its time on the day given, or now."""
    as_of = datetime.fromisoformat(config.as_of).astimezone(UTC) if config.as_of else now()
    models = [str(table) for table in classified_tables(manifest()) if table.made_by == "dbt"]
    purges = [
        retention.purge(domain, as_of, models=models, on_notice=context.log.info) for domain in retention.domains()
    ]
    for purge in purges:
        for load_id in purge.loads_waiting:
            context.log.warning("load %s is past its time but not built yet: its raw rows stay until it is", load_id)
    # kept by the clock that wrote them, whatever day the purge is for
    lines = access_log.forget_before(datetime.now(UTC) - timedelta(days=access_log.KEPT_DAYS))
    sweep_spool(home() / "spool", datetime.now(UTC))
    context.log.info("%s lines of the access log were past their time", lines)
    context.add_output_metadata(
        {purge.domain: dg.MetadataValue.json(asdict(purge) | {"as_of": as_of.isoformat()}) for purge in purges}
    )


@dg.job(
    name="retention",
    description="Remove raw rows, quarantined lines, built rows, predictions and access log that are past their time.",
    executor_def=dg.in_process_executor,
    op_retry_policy=dg.RetryPolicy(max_retries=3, delay=300, backoff=dg.Backoff.EXPONENTIAL),
)
def retention_job() -> None:
    purge_expired()


# before the nightly builds, which drop the built rows of loads that are past their time
nightly = dg.ScheduleDefinition(
    name="retention_nightly",
    description="Every night, before the domains are built: what is past its time goes.",
    job=retention_job,
    cron_schedule="0 1 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
