"""Binds the resources of every domain."""

import dagster as dg
from dagster_dbt import DbtCliResource

from orchestration.project import AGORA, DBT_PROJECT, PROFILES, production_target
from orchestration.resources import Presence, RunLock


@dg.definitions
def resources() -> dg.Definitions:
    return dg.Definitions(
        resources={
            "dbt": DbtCliResource(
                project_dir=str(DBT_PROJECT),
                profiles_dir=str(PROFILES),
                target=production_target(),
                # `agora dbt` holds the lock on builds as long as dbt lives, whatever becomes of this process
                dbt_executable=str(AGORA),
                global_config_flags=["dbt"],
            ),
            "ecommerce_run_lock": RunLock(domain="ecommerce"),
            "presence": Presence(),
        }
    )
