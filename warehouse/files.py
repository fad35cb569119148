"""Small files under AGORA_HOME: written whole or not at all, and one process at a time.

What is in the files is known to the modules that own them.
"""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from warehouse.errors import UserError


def make_home(home: Path) -> None:
    """Create the state directory.

    Raises:
        UserError: the directory cannot be created or written.
    """
    try:
        if not home.exists():
            home.mkdir(parents=True, exist_ok=True)
            # whatever the umask: the embedded server's account passes through, but lists nothing
            home.chmod(0o711)
    except OSError as error:
        raise UserError(f"cannot create {home} ({error.strerror}): choose another AGORA_HOME.") from None
    if not os.access(home, os.W_OK | os.X_OK):
        raise UserError(f"cannot write to {home}: run as the user it belongs to, or choose another AGORA_HOME.")


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes (and threads) for the length of the block."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a 0600 file in one step: a reader sees the old content or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(content, stream, indent=2, sort_keys=True)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the content of a file written by `write_json`, or None if there is none.

    Raises:
        UserError: the file cannot be read or is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except PermissionError:
        raise UserError(f"cannot read {path}: run as the user it belongs to, or choose another AGORA_HOME.") from None
    except ValueError:
        raise UserError(f"{path} is damaged: restore it from a backup, or start over with a new AGORA_HOME.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: restore it from a backup, or start over with a new AGORA_HOME.")
    return content
