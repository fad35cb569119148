"""Whether the marts that Dagster shows as built are those that readers see, and how many rows these have."""

from datetime import UTC, datetime

import dagster as dg
from psycopg import sql

from warehouse.connections import connect


@dg.asset_check(
    asset=dg.AssetKey(["ecommerce", "ecommerce__customer_segments"]),
    description="The generation this run built was published.",
    required_resource_keys={"ecommerce_run_lock"},
)
def is_published(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    # not the start of the run: it may have waited for another, which published too; nor always a step of this run
    run_ids = [context.run.run_id, *filter(None, [context.run.parent_run_id])]
    steps = [step for run_id in run_ids for step in context.instance.get_run_step_stats(run_id, ["ecommerce_marts"])]
    started_at = next((step.start_time for step in steps if step.start_time), 0.0)
    with connect("transformer") as connection:
        row = connection.execute(
            "select generation from audit.publications where domain = 'ecommerce' order by generation desc limit 1"
        ).fetchone()
        tables = connection.execute("select tablename from pg_tables where schemaname = 'ecommerce' order by 1")
        row_counts = {
            name: connection.execute(
                sql.SQL("select count(*) from {}").format(sql.Identifier("ecommerce", name))
            ).fetchone()
            for (name,) in tables.fetchall()
        }
    generation = row[0] if row else ""
    return dg.AssetCheckResult(
        # a generation is called after the moment dbt began, by the clock of this machine, not of the server's
        passed=generation >= f"{datetime.fromtimestamp(started_at, UTC):%Y%m%d%H%M%S%f}",
        metadata={
            "generation": generation or "none was ever published",
            **{f"rows in {name}": count[0] for name, count in row_counts.items() if count},
        },
    )
