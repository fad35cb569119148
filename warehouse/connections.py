"""Connections to the warehouse, each logged in as the role that its step may use. Nothing else opens one."""

import psycopg

from warehouse import bootstrap
from warehouse.endpoint import ConnectionParameters, open_connection
from warehouse.errors import UserError
from warehouse.settings import ROLES

__all__ = ["ConnectionParameters", "connect", "dbt_environment", "parameters"]


def parameters(role: str = "owner") -> ConnectionParameters:
    """Return where and as whom a role connects, after bringing the warehouse up.

    Raises:
        UserError: there is no such role, or the server is out of reach.
    """
    if role not in ("owner", *ROLES):
        raise UserError(f"there is no role {role!r}: choose one of owner, {', '.join(ROLES)}.")
    owner = bootstrap.ensure_up()
    return owner if role == "owner" else bootstrap.parameters_of_running(role)


def connect(role: str = "owner", *, autocommit: bool = False, database: str | None = None) -> psycopg.Connection:
    """Log in as a role (never `set role`), bringing the warehouse up first. The session's time zone is UTC.

    Args:
        role: `owner` or one of `settings.ROLES`.
        autocommit: as in psycopg; without it, `with connect() as connection` commits at its end.
        database: another database of the same server; the warehouse's own if None.

    Raises:
        UserError: there is no such role, or the server is out of reach or refuses the login.
    """
    where = parameters(role)
    name = f"agora:{role}"
    try:
        return open_connection(where, name, autocommit=autocommit, database=database)
    except UserError as error:
        if role == "owner" or "password authentication failed" not in str(error):
            raise
    # another AGORA_HOME has set its own passwords on this server since
    bootstrap.restore_passwords()
    return open_connection(where, name, autocommit=autocommit, database=database)


def dbt_environment(role: str = "transformer") -> dict[str, str]:
    """Return the environment variables that profiles.yml reads."""
    where = parameters(role)
    return {
        "DBT_HOST": where.host,
        "DBT_PORT": str(where.port),
        "DBT_DATABASE": where.database,
        "DBT_USER": where.user,
        "DBT_ENV_SECRET_PASSWORD": where.password or "",
    }
