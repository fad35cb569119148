"""The dbt models as assets: per domain one step before its machine learning and one after it, which publishes."""

import os
from collections.abc import Iterator
from typing import Any

import dagster as dg
import psycopg
from dagster_dbt import DbtCliResource, dbt_assets
from dagster_dbt.core.dbt_event_iterator import DbtEventIterator
from psycopg import sql

from orchestration.project import DBT_SETTINGS, after_ml, manifest
from orchestration.resources import RunLock
from warehouse.connections import connect, dbt_environment
from warehouse.settings import home


class Build(dg.Config):
    full_refresh: bool = False


def build(context: dg.AssetExecutionContext, dbt: DbtCliResource, config: Build) -> DbtEventIterator[Any]:
    """Run ``dbt build`` on the step's models, as the transformer; their tests become asset checks."""
    os.environ.update(dbt_environment("transformer") | DBT_SETTINGS)
    # unit tests check the models, not the data: they run in CI
    arguments = ["build", "--exclude-resource-type", "unit_test"]
    if config.full_refresh:
        arguments.append("--full-refresh")
    # one folder a step, written anew by each run: the lock on the run keeps others out
    target_path = home() / "dbt" / context.op_execution_context.op.name
    return dbt.cli(arguments, context=context, target_path=target_path).stream()


def with_row_counts(context: dg.AssetExecutionContext, events: DbtEventIterator[Any]) -> Iterator[Any]:
    """Add to each table that dbt has built how many rows it has (dagster-dbt's own way keeps a core busy waiting)."""
    # a transaction would keep dbt from replacing what was counted in it
    with connect("transformer", autocommit=True) as connection:
        for event in events:
            if isinstance(event, dg.Output):
                schema, name = context.asset_key_for_output(event.output_name).path
                yield event.with_metadata({**event.metadata, **_row_count(connection, schema, name)})
            else:
                yield event


def _row_count(connection: psycopg.Connection, schema: str, name: str) -> dict[str, int]:
    tables = connection.execute("select from pg_tables where schemaname = %s and tablename = %s", (schema, name))
    if not tables.rowcount:
        # a view: counting it would mean computing it
        return {}
    row = connection.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(schema, name))).fetchone()
    return {"dagster/row_count": row[0]} if row else {}


@dbt_assets(
    manifest=manifest(),
    name="ecommerce_models",
    select="tag:ecommerce",
    exclude=after_ml("ecommerce"),
)
def ecommerce_models(
    context: dg.AssetExecutionContext, dbt: DbtCliResource, config: Build, ecommerce_run_lock: RunLock
) -> Iterator[Any]:
    yield from with_row_counts(context, build(context, dbt, config))


@dbt_assets(
    manifest=manifest(),
    name="ecommerce_marts",
    select=after_ml("ecommerce"),
)
def ecommerce_marts(
    context: dg.AssetExecutionContext, dbt: DbtCliResource, config: Build, ecommerce_run_lock: RunLock
) -> Iterator[Any]:
    # published, the marts are no longer where dbt built them: the check on the publication counts their rows
    yield from build(context, dbt, config)
