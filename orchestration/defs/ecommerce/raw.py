"""The shop's raw events: lands what lies in the drop folder, and reports what has been landed."""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg

from orchestration.drop import drop_folder, land_drop_folder
from warehouse.connections import connect

SOURCE = "ecommerce.events"
# built every night: one night may fail, two in a row are somebody's business
FRESH = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=49), warn_window=timedelta(hours=26))
RAW_EVENTS = dg.AssetKey(["raw_ecommerce", "events"])


@dg.asset(
    key=RAW_EVENTS,
    group_name="ecommerce",
    kinds={"csv", "postgres"},
    check_specs=[
        dg.AssetCheckSpec("every_file_landed", asset=RAW_EVENTS, description="No file of the drop folder was refused.")
    ],
    freshness_policy=FRESH,
    required_resource_keys={"ecommerce_run_lock"},
)
def events(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """One row per landed line of the shop's event log; `agora load` and the drop folder both end here."""
    results = land_drop_folder(SOURCE, on_notice=context.log.info)
    with connect("loader") as connection:
        row = connection.execute(
            "select count(*), coalesce(sum(rows_read), 0), coalesce(sum(rows_landed), 0),"
            " coalesce(sum(rows_quarantined), 0), coalesce(sum(rows_suppressed), 0)"
            " from audit.loads where source = %s and status = 'loaded'",
            (SOURCE,),
        ).fetchone()
    load_count, rows_read, rows_landed, rows_quarantined, rows_suppressed = (int(value) for value in row or (0,) * 5)
    yield dg.MaterializeResult(
        metadata={
            "dagster/row_count": rows_landed,
            "loads": load_count,
            "rows_read": rows_read,
            "rows_quarantined": rows_quarantined,
            "rows_suppressed": rows_suppressed,
            "drop_folder": dg.MetadataValue.path(drop_folder(SOURCE).partition("?")[0]),
            "files": dg.MetadataValue.md("\n".join(f"- {r.file_name}: {r.status}" for r in results) or "none"),
        }
    )
    refusals = [result.message for result in results if result.status == "failed"]
    for message in refusals:
        context.log.error(message)
    yield dg.AssetCheckResult(passed=not refusals, metadata={"refused": dg.MetadataValue.md("\n".join(refusals))})
