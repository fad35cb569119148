"""Fixtures for every test: a clean environment and throw-away warehouses.

`--transport=tcp` runs the tests of the `warehouse` fixture against a server that Agora did not start, over TCP, with an
owner who is no superuser: as in a company.
"""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from support import FAULT_SEED, remove_home, short_directory

from warehouse import bootstrap, embedded
from warehouse.credentials import embedded_passwords

CALLERS_VARIABLES = ("PG", "AGORA_", "DBT_")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--transport", choices=("socket", "tcp"), default="socket", help="how tests reach Postgres")


def pytest_configure() -> None:
    """Forget the caller's servers, homes and profiles before any test module is imported."""
    for name in list(os.environ):
        if name != FAULT_SEED and (name.startswith(CALLERS_VARIABLES) or name == "DAGSTER_HOME"):
            del os.environ[name]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Over TCP only what uses the `warehouse` fixture is repeated, but for modules marked `once`."""
    if config.getoption("--transport") != "tcp":
        return
    repeated = [
        item
        for item in items
        if "warehouse" in getattr(item, "fixturenames", ()) and item.get_closest_marker("once") is None
    ]
    config.hook.pytest_deselected(items=[item for item in items if item not in repeated])
    items[:] = repeated


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name bytes `bytes`: a packed file's own bytes hold the time, and two workers must collect the same names."""
    return "bytes" if isinstance(val, bytes) else None


@pytest.fixture
def make_warehouse(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Path]]:
    """Make fresh homes with a started server, AGORA_HOME pointing to the latest; all are destroyed after the test."""
    homes: list[Path] = []

    def make() -> Path:
        homes.append(short_directory())
        _point_to_embedded(monkeypatch, homes[-1])
        bootstrap.ensure_up()
        return homes[-1]

    yield make
    for home in homes:
        remove_home(home)


@pytest.fixture(scope="module")
def warehouse(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Give the tests of a module one warehouse, applied and empty; the value is AGORA_HOME."""
    make = _server_warehouse if request.config.getoption("--transport") == "tcp" else _embedded_warehouse
    with pytest.MonkeyPatch.context() as monkeypatch, make(monkeypatch) as home:
        yield home


@pytest.fixture(scope="module")
def other_home() -> Iterator[Path]:
    """Give the tests of a module the home of a second, embedded warehouse, which its first command starts."""
    home = short_directory()
    yield home
    remove_home(home)


@pytest.fixture
def server_warehouse(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give one test a warehouse on a server that Agora did not start; the value is AGORA_HOME."""
    with _server_warehouse(monkeypatch) as home:
        yield home


@contextmanager
def _embedded_warehouse(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    home = short_directory()
    _point_to_embedded(monkeypatch, home)
    try:
        bootstrap.ensure_up()
        yield home
    finally:
        remove_home(home)


@contextmanager
def _server_warehouse(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    server_home, home = short_directory(), short_directory()
    password = secrets.token_urlsafe(24)
    try:
        server = embedded.start(server_home, ("127.0.0.1", 0))
        _create_company_database(server, embedded_passwords(server_home)["owner"], password)
        _point_to_embedded(monkeypatch, home)
        monkeypatch.setenv("PGHOST", "127.0.0.1")
        monkeypatch.setenv("PGPORT", str(server.port))
        monkeypatch.setenv("PGDATABASE", "company")
        monkeypatch.setenv("PGUSER", "company_owner")
        monkeypatch.setenv("PGPASSWORD", password)
        bootstrap.ensure_up()
        yield home
    finally:
        remove_home(server_home)
        remove_home(home)


def _create_company_database(server: embedded.EmbeddedServer, superuser_password: str, password: str) -> None:
    with psycopg.connect(
        host=str(server.socket_directory),
        port=server.port,
        dbname=server.database,
        user=server.owner,
        password=superuser_password,
        autocommit=True,
    ) as connection:
        create = sql.SQL("create role company_owner login createrole password {}")
        connection.execute(create.format(sql.Literal(password)))
        connection.execute("create database company owner company_owner")


def _point_to_embedded(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    for name in ("PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AGORA_HOME", str(home))
