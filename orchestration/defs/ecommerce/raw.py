"""The shop's raw events: lands what lies in the drop folder, and reports what has been landed."""

from collections.abc import Iterator

import dagster as dg

from ingestion.ecommerce.source import EVENTS
from orchestration.drop import drop_fingerprint, drop_folder, land_drop_folder
from orchestration.resume import note_landed
from warehouse.connections import connect

SOURCE = EVENTS.name
# as often as files come, a run has to look at them
FRESH = dg.FreshnessPolicy.time_window(fail_window=EVENTS.stale_after, warn_window=EVENTS.late_after)
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
    lying_there = drop_fingerprint(SOURCE)
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
    # a file that was refused, or came meanwhile, is for the next run to land
    if not refusals and drop_fingerprint(SOURCE) == lying_there:
        note_landed(context.instance, context.run_id, "ecommerce")
    for message in refusals:
        context.log.error(message)
    yield dg.AssetCheckResult(passed=not refusals, metadata={"refused": dg.MetadataValue.md("\n".join(refusals))})
