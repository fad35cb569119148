"""The dbt models as assets: per domain one step before its machine learning and one after it, which publishes."""

import os
from collections.abc import Iterator
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliResource, dbt_assets
from dagster_dbt.core.dbt_event_iterator import DbtEventIterator

from orchestration.locks import domain_lock
from orchestration.project import DBT_SETTINGS, after_ml, manifest
from orchestration.resources import RunLock
from warehouse.connections import dbt_environment
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


@dbt_assets(
    manifest=manifest(),
    name="ecommerce_models",
    select="tag:ecommerce",
    exclude=after_ml("ecommerce"),
)
def ecommerce_models(
    context: dg.AssetExecutionContext, dbt: DbtCliResource, config: Build, ecommerce_run_lock: RunLock
) -> Iterator[Any]:
    with domain_lock("build", "ecommerce", on_wait=context.log.info):
        yield from build(context, dbt, config).fetch_row_counts()


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
