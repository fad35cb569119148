"""Looks every minute for what people have to be told, also of runs that died and of files that never came."""

import dagster as dg

from orchestration import alerts


@dg.sensor(
    name="watch",
    description="Tells the webhook of failed and dead runs and of stale sources, each once.",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def watch(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Starts nothing."""
    alerts.tell(context.instance, on_notice=context.log.warning)
    return dg.SkipReason("all that there was to tell has been tried")
