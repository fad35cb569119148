"""Passwords: generated once, kept in 0600 files under AGORA_HOME, or given through the environment.

The password of a real server's owner is the caller's own (PGPASSWORD, ~/.pgpass) and is never stored. How passwords
reach the server is known to `warehouse.bootstrap`.
"""

import os
import re
import secrets
import stat
from pathlib import Path

from warehouse import files
from warehouse.errors import UserError
from warehouse.settings import ROLES

EMBEDDED = "embedded"


def make_embedded_passwords(home: Path) -> dict[str, str]:
    """Return the passwords for an embedded server that is being created; an earlier attempt's are taken up again."""
    return _kept_passwords(home, EMBEDDED, ("owner", *ROLES))


def embedded_passwords(home: Path) -> dict[str, str]:
    """Return the embedded server's passwords by role name, `owner` among them; a role new to the server gets one.

    Raises:
        UserError: the file with the passwords is gone, open to others or damaged.
    """
    path = home / "credentials" / f"{EMBEDDED}.json"
    if "owner" not in _read(path):
        raise UserError(f"{path} is gone, and the database opens to nobody: restore it, or choose a new AGORA_HOME.")
    return {**make_embedded_passwords(home), **_given_passwords()}


def server_passwords(home: Path, host: str, port: int) -> dict[str, str]:
    """Return the role passwords for a server: AGORA_<ROLE>_PASSWORD where set, else generated once and kept.

    They are kept per server, not per database, because roles belong to the whole server.
    """
    given = _given_passwords()
    missing = tuple(role for role in ROLES if role not in given)
    if not missing:
        return given
    return {**_kept_passwords(home, _file_name(host, port), missing), **given}


def _given_passwords() -> dict[str, str]:
    variables = {role: os.environ.get(f"AGORA_{role.upper()}_PASSWORD") for role in ROLES}
    return {role: password for role, password in variables.items() if password}


def _file_name(host: str, port: int) -> str:
    return f"{re.sub(r'[^A-Za-z0-9.-]', '-', host)}_{port}"


def _kept_passwords(home: Path, name: str, users: tuple[str, ...]) -> dict[str, str]:
    files.make_home(home)
    directory = home / "credentials"
    directory.mkdir(mode=0o700, exist_ok=True)
    path = directory / f"{name}.json"
    kept = _read(path)
    if all(user in kept for user in users):
        return kept
    with files.lock(directory / ".lock"):
        kept = _read(path)
        made = {user: secrets.token_urlsafe(24) for user in users if user not in kept}
        if made:
            kept = {**kept, **made}
            files.write_json(path, kept)
    return kept


def _read(path: Path) -> dict[str, str]:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return {}
    if stat.S_IMODE(mode) & 0o077:
        raise UserError(f"{path} holds passwords but others may open it: run `chmod 600 {path}`.")
    return files.read_json(path) or {}
