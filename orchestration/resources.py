"""Dagster resources: dbt, and the lock that a run of a domain holds."""

from collections.abc import Generator
from contextlib import contextmanager

import dagster as dg

from orchestration.locks import domain_lock
from orchestration.presence import present


class RunLock(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Held from the first step of a run to its last: two runs of one domain never mix what they build."""

    domain: str

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator["RunLock", None, None]:
        def say(message: str) -> None:
            if context.log:
                context.log.info(message)

        # also while it waits for the lock
        with present(context.run_id or ""), domain_lock("run", self.domain, on_wait=say):
            yield self
