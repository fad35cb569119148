"""Fixtures for every test: a clean environment and throw-away warehouses.

`--transport=tcp` runs the tests of the `warehouse` fixture against a server that Agora did not start, over TCP, with an
owner who is no superuser: as in a company.
"""

import json
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from support import FAULT_SEED, remove_home, serving, short_directory

from warehouse import bootstrap, embedded
from warehouse.credentials import embedded_passwords

CALLERS_VARIABLES = ("PG", "AGORA_", "DBT_", "AWS_")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--transport", choices=("socket", "tcp"), default="socket", help="how tests reach Postgres")


def pytest_configure() -> None:
    """Forget the caller's servers, homes and profiles before any test module is imported."""
    for name in list(os.environ):
        is_ours = name.startswith(CALLERS_VARIABLES) or name in ("DAGSTER_HOME", "REQUESTS_CA_BUNDLE")
        if is_ours and name != FAULT_SEED:
            del os.environ[name]
    # servers of tests are here, whatever lies between this machine and others
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "localhost,127.0.0.1"


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


@dataclass
class Receiver:
    """A webhook on this machine: what was posted to it, and what it does with that; ``answers`` are used up first."""

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    is_open: threading.Event = field(default_factory=threading.Event)


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """Give the tests of a module a webhook; while `is_open` is cleared, it takes messages and does not answer."""
    received = Receiver()
    received.is_open.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            received.is_open.wait()
            answer = received.answers.pop(0) if received.answers else 200
            self.send_response(answer)
            if answer in (301, 302):
                self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    received.url = f"http://127.0.0.1:{server.server_port}/hooks/secret-of-the-webhook"
    with serving(server):
        yield received
        received.is_open.set()


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
