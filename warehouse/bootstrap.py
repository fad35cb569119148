"""Brings the warehouse up: starts the embedded server if it is the one meant, applies the SQL files, sets passwords.

Everything is applied in one transaction and only if something changed. What the SQL files say is theirs alone.
"""

import hashlib
from pathlib import Path

import psycopg
from psycopg import sql

from warehouse import credentials, embedded, settings
from warehouse.endpoint import ConnectionParameters, embedded_parameters, open_connection, server_parameters
from warehouse.errors import UserError
from warehouse.settings import ROLES

SQL_DIRECTORY = Path(__file__).parent / "sql"
APPLICATION_NAME = "agora:owner"
# what says who may do what; takes no lock on a table
RIGHTS = ("01_roles.sql", "90_rights.sql")


def ensure_up(listen: tuple[str, int] | None = None) -> ConnectionParameters:
    """Bring the warehouse up and return the owner's parameters; a few milliseconds if it is up already.

    Args:
        listen: (host, port) to open the embedded server to TCP; port 0 is any free one.

    Raises:
        UserError: the server is out of reach, refuses the owner, or does not let it create what is needed.
        RuntimeError: the embedded server does not start.
    """
    owner = parameters_of_running("owner", listen)
    with open_connection(owner, APPLICATION_NAME) as connection:
        _apply_if_changed(connection, role_passwords(owner))
    return owner


def is_up() -> bool:
    """Whether there is a server to ask without starting one; one that the environment names counts as up."""
    return settings.uses_server() or embedded.running(settings.home()) is not None


def restore_passwords() -> None:
    """Set the role passwords again, although nothing changed here: somebody else has changed them on the server."""
    owner = parameters_of_running("owner")
    with open_connection(owner, APPLICATION_NAME) as connection:
        _set_passwords(connection, role_passwords(owner))


def apply_rights() -> list[str]:
    """Give the roles what the matrix says and nothing else, although nothing changed here: somebody has by hand.

    Returns:
        The grants and revokes that this took; none if every schema and table was as the matrix says.
    """
    owner = ensure_up()
    with open_connection(owner, APPLICATION_NAME) as connection:
        _lock(connection)
        for name in RIGHTS:
            cursor = _apply(connection, name, (SQL_DIRECTORY / name).read_bytes())
        _set_passwords(connection, role_passwords(owner))
    *_, taken = cursor.results()
    return [statement for (statement,) in taken]


def parameters_of_running(role: str, listen: tuple[str, int] | None = None) -> ConnectionParameters:
    """Return a role's parameters, starting the embedded server if it is the one meant and down."""
    home = settings.home()
    if not settings.uses_server():
        return embedded_parameters(embedded.start(home, listen), home, role)
    if listen is not None:
        raise UserError("--listen is for the embedded server, but PG* variables choose another: unset them.")
    return server_parameters(home, role)


def role_passwords(owner: ConnectionParameters) -> dict[str, str]:
    """Return the password of every role but the owner."""
    home = settings.home()
    if settings.uses_server():
        known = credentials.server_passwords(home, owner.host, owner.port)
    else:
        known = credentials.embedded_passwords(home)
    return {role: known[role] for role in ROLES}


def _apply_if_changed(connection: psycopg.Connection, passwords: dict[str, str]) -> None:
    statements = {path.name: path.read_bytes() for path in sorted(SQL_DIRECTORY.glob("*.sql"))}
    fingerprint = _fingerprint(statements, passwords)
    if _applied_fingerprint(connection) == fingerprint:
        return
    _lock(connection)
    if _applied_fingerprint(connection) == fingerprint:
        return
    for name, content in statements.items():
        _apply(connection, name, content)
    _set_passwords(connection, passwords)
    connection.execute("delete from audit.applied_sql")
    connection.execute("insert into audit.applied_sql (fingerprint) values (%s)", [fingerprint])


def _lock(connection: psycopg.Connection) -> None:
    # an index waits for whoever writes to its table: rather fail than hang
    connection.execute("set local lock_timeout = '60s'")
    # one after the other: catalogue rows do not bear concurrent grants
    connection.execute("select pg_advisory_xact_lock(hashtext('agora bootstrap'))")


def _fingerprint(statements: dict[str, bytes], passwords: dict[str, str]) -> str:
    files = hashlib.sha256()
    for name, content in statements.items():
        files.update(f"{name} {len(content)}\n".encode() + content)
    # as slow to guess from as what Postgres itself stores
    secret = "\n".join(passwords[role] for role in sorted(passwords)).encode()
    return hashlib.pbkdf2_hmac("sha256", secret, files.digest(), 4096).hex()


def _applied_fingerprint(connection: psycopg.Connection) -> str | None:
    if connection.execute("select to_regclass('audit.applied_sql') is null").fetchone() == (True,):
        return None
    try:
        row = connection.execute("select fingerprint from audit.applied_sql").fetchone()
    except psycopg.errors.InsufficientPrivilege:
        raise _not_allowed(connection) from None
    return row[0] if row else None


def _apply(connection: psycopg.Connection, name: str, content: bytes) -> psycopg.Cursor:
    try:
        return connection.execute(content)
    except psycopg.errors.InsufficientPrivilege as error:
        raise _not_allowed(connection, f"{error.diag.message_primary} in {name}") from None
    except psycopg.Error as error:
        raise RuntimeError(f"warehouse/sql/{name} cannot be applied: {error}") from error


def _not_allowed(connection: psycopg.Connection, reason: str = "audit belongs to another user") -> UserError:
    return UserError(
        f"{connection.info.user} may not set up database {connection.info.dbname} ({reason}): "
        "connect as the database's owner, with the CREATEROLE attribute."
    )


def _set_passwords(connection: psycopg.Connection, passwords: dict[str, str]) -> None:
    for role, password in passwords.items():
        # hashed here: the server, and so its log, never sees the password
        verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
        statement = sql.SQL("alter role {} with login password {}")
        connection.execute(statement.format(sql.Identifier(role), sql.Literal(verifier)))
