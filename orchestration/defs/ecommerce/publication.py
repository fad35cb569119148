"""Whether the marts that Dagster shows as built are those that readers see."""

import dagster as dg

from warehouse.connections import connect


@dg.asset_check(
    asset=dg.AssetKey(["ecommerce", "ecommerce__customer_segments"]),
    description="The generation this run built was published.",
    required_resource_keys={"ecommerce_run_lock"},
)
def is_published(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    started_at = context.instance.get_run_stats(context.run.run_id).start_time or 0.0
    with connect("transformer") as connection:
        row = connection.execute(
            "select generation, extract(epoch from published_at) from audit.publications"
            " where domain = 'ecommerce' order by generation desc limit 1"
        ).fetchone()
    generation, published_at = row or (None, 0.0)
    return dg.AssetCheckResult(
        passed=float(published_at) >= started_at, metadata={"generation": generation or "none was ever published"}
    )
