"""Where a role connects to, and one raw connection to it. That the server is up is the business of `bootstrap`."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg
from psycopg import pq

from warehouse import settings
from warehouse.credentials import embedded_passwords, server_passwords
from warehouse.embedded import EmbeddedServer
from warehouse.errors import UserError

CONNECT_SECONDS = 10


@dataclass(frozen=True)
class ConnectionParameters:
    """Where and as whom to connect. A `host` that starts with a slash is the directory of a socket."""

    host: str
    port: int
    database: str
    user: str
    password: str | None = field(repr=False)


def embedded_parameters(server: EmbeddedServer, home: Path, role: str) -> ConnectionParameters:
    """Return how a role reaches the embedded server."""
    return ConnectionParameters(
        host=str(server.socket_directory),
        port=server.port,
        database=server.database,
        user=server.owner if role == "owner" else role,
        password=embedded_passwords(home)[role],
    )


def server_parameters(home: Path, role: str) -> ConnectionParameters:
    """Return how a role reaches the server that the PG* variables name. The owner's password is left to libpq.

    Raises:
        UserError: the variables name a service or a port that libpq does not understand.
    """
    defaults = _server_defaults()
    host = defaults.get("host") or defaults.get("hostaddr") or "localhost"
    owner = defaults.get("user") or "agora"
    port = defaults.get("port") or "5432"
    if not port.isdigit():
        raise UserError(f"PGPORT is {port!r}: it must be one port number.")
    parameters = ConnectionParameters(
        host=host,
        port=int(port),
        database=defaults.get("dbname") or owner,
        user=owner,
        password=defaults.get("password"),
    )
    if role == "owner":
        return parameters
    return replace(parameters, user=role, password=server_passwords(home, host, int(port))[role])


def _server_defaults() -> dict[str, str]:
    # libpq reads the variables and the service file
    options = pq.Conninfo.get_defaults()
    return {option.keyword.decode(): option.val.decode() for option in options if option.val}


def open_connection(
    parameters: ConnectionParameters, application_name: str, *, autocommit: bool = False, database: str | None = None
) -> psycopg.Connection:
    """Log in. Times are UTC whatever the server says.

    Raises:
        UserError: the server is out of reach or refuses the login.
    """
    try:
        connection = psycopg.connect(
            host=parameters.host,
            port=parameters.port,
            dbname=database or parameters.database,
            user=parameters.user,
            password=parameters.password,
            application_name=application_name,
            # no schema named like the user: dbt could make one, with functions that the owner then runs unawares
            options="-c TimeZone=UTC -c DateStyle=ISO -c search_path=public",
            client_encoding="utf8",
            connect_timeout=int(os.environ.get("PGCONNECT_TIMEOUT") or CONNECT_SECONDS),
            autocommit=True,
        )
    except psycopg.OperationalError as error:
        raise _sentence(parameters, database or parameters.database, error) from None
    if os.environ.get("PGTZ") or os.environ.get("PGDATESTYLE"):
        # libpq lets these win over the options
        connection.execute("set timezone to 'UTC'")
        connection.execute("set datestyle to 'ISO'")
    connection.autocommit = autocommit
    return connection


def _sentence(parameters: ConnectionParameters, database: str, error: psycopg.OperationalError) -> UserError:
    where = f"{parameters.host}:{parameters.port}/{database}"
    reason = str(error).strip().splitlines()[0].removeprefix("connection failed: ").removeprefix("connection is bad: ")
    advice = "check the PG* variables" if settings.uses_server() else "see `agora status`"
    return UserError(f"cannot connect to {where} as {parameters.user} ({reason}): {advice}.")
