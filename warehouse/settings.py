"""What the environment says: where the state lives, what time it is, which server is meant.

Nothing here opens a file or a connection, and nothing is read before a function is called.
"""

import os
from datetime import UTC, datetime
from pathlib import Path

from warehouse.errors import UserError

ROLES = ("loader", "transformer", "ml", "bi_reader", "steward")

SERVER_VARIABLES = ("PGHOST", "PGHOSTADDR", "PGSERVICE")


def home() -> Path:
    """Return the absolute directory that holds all state: AGORA_HOME, or `.agora` in the checkout.

    Raises:
        UserError: AGORA_HOME is a file.
    """
    chosen = os.environ.get("AGORA_HOME")
    if not chosen:
        return Path(__file__).absolute().parent.parent / ".agora"
    path = Path(chosen).expanduser().absolute()
    if path.is_file():
        raise UserError(f"AGORA_HOME is {path}, which is a file: name a directory, which need not exist yet.")
    return path


def now() -> datetime:
    """Return the current time in UTC: AGORA_NOW (ISO 8601, UTC where it names no offset) or the real clock.

    Raises:
        UserError: AGORA_NOW is not a time.
    """
    chosen = os.environ.get("AGORA_NOW")
    if not chosen:
        return datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(chosen.strip())
    except ValueError:
        raise UserError(
            f"AGORA_NOW is {chosen!r}, which is not an ISO 8601 time: write it like 2020-03-01T00:00:00Z."
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def allows_http() -> bool:
    """Return whether AGORA_ALLOW_HTTP=1 allows http:// to other machines."""
    return os.environ.get("AGORA_ALLOW_HTTP") == "1"


def uses_server() -> bool:
    """Return whether the environment names a Postgres server to use instead of the embedded one."""
    return any(os.environ.get(name) for name in SERVER_VARIABLES)
