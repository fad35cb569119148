"""Dagster resources: what a run holds from its first step to its last, also between two tries of a step."""

from collections.abc import Generator
from contextlib import contextmanager

import dagster as dg

from orchestration.locks import domain_lock
from orchestration.presence import announce
from orchestration.resume import refuse_if_changed_meanwhile


class Presence(dg.ConfigurableResource):  # type: ignore[type-arg]
    """By which others see that the run is alive; for jobs without a `RunLock`, which holds it too."""

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        announce(_run_id(context))


class RunLock(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Held from the first step of a run to its last: two runs of one domain never mix what they build."""

    domain: str

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator["RunLock", None, None]:
        def say(message: str) -> None:
            if context.log:
                context.log.info(message)

        # also while it waits for the lock
        announce(_run_id(context))
        with domain_lock("run", self.domain, on_wait=say):
            refuse_if_changed_meanwhile(context.dagster_run, self.domain)
            yield self


def _run_id(context: dg.InitResourceContext) -> str:
    assert context.run_id, "only runs have these resources"
    return context.run_id
