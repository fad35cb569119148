"""Says that a step failed for good: in the log, and to a webhook where ``AGORA_WEBHOOK_URL`` names one."""

import json
import os
import urllib.request

import dagster as dg


@dg.failure_hook(name="report_failure")
def report_failure(context: dg.HookContext) -> None:
    """Runs after the last retry. Sends names and the kind of error: its text could hold a value from a file."""
    kind = type(context.op_exception).__name__ if context.op_exception else "unknown error"
    message = {"job": context.job_name, "step": context.op.name, "run_id": context.run_id, "error": kind}
    context.log.error("failed for good: %s", json.dumps(message))
    url = os.environ.get("AGORA_WEBHOOK_URL")
    if url:
        _post(url, message)


def _post(url: str, message: dict[str, str]) -> None:
    if not url.startswith(("http://", "https://")):
        raise ValueError("AGORA_WEBHOOK_URL must begin with http:// or https://")
    request = urllib.request.Request(  # noqa: S310 the scheme is checked above
        url, data=json.dumps(message).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10):  # noqa: S310 (as above)
        pass
