"""What the fault tests share: the seed of all chance, a shop's files, and what an undisturbed warehouse makes of them.

The moments of kills are random. The seed is printed at the end; AGORA_FAULT_SEED=N draws the same moments again.
"""

import os
import random
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from shop import MONTHS, Shop
from support import FAULT_SEED, KEY, agora, execute, remove_home, short_directory

from warehouse import files

# the workers of one session draw from one seed
SEED = os.environ.setdefault(FAULT_SEED, str(secrets.randbelow(1_000_000)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"fault seed {SEED}: {FAULT_SEED}={SEED} make test-faults draws the same moments again")


@pytest.fixture(scope="module")
def chance(request: pytest.FixtureRequest) -> random.Random:
    """The module's source of random moments."""
    return random.Random(f"{SEED} {request.node.name}")


@pytest.fixture(scope="session", autouse=True)
def one_key() -> Iterator[None]:
    """One pseudonym key for all warehouses, so that their checksums can be compared."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("AGORA_KEY_ECOMMERCE", KEY)
        yield


@pytest.fixture
def empty_warehouse(warehouse: object) -> Iterator[None]:
    """Give a test the module's warehouse with nothing landed, and empty it afterwards."""
    yield
    execute(
        "truncate raw_ecommerce.events, raw_ecommerce.users, quarantine.rows, audit.load_slices, audit.loads"
        " restart identity cascade"
    )


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Give the tests of all workers the files of one shop."""
    with _made_once(tmp_path_factory, "shop") as folder:
        if not list(folder.iterdir()):
            size = ("--users", 1500, "--events", 120_000, "--months", len(MONTHS))
            agora("simulate", "ecommerce", "--out", folder, "--seed", 20191001, *size)
    return Shop(*(folder / f"{month}.csv.gz" for month in MONTHS))


@pytest.fixture(scope="session")
def undisturbed(one_key: None, shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What `agora checksum` says of the shop where nothing went wrong."""
    with _made_once(tmp_path_factory, "undisturbed") as folder:
        checksum = folder / "checksum"
        if not checksum.exists():
            home = short_directory()
            try:
                agora("load", "ecommerce.events", *shop.months, home=home)
                agora("run", "ecommerce", home=home)
                checksum.write_text(agora("checksum", "ecommerce", home=home))
            finally:
                remove_home(home)
        return checksum.read_text()


@contextmanager
def _made_once(tmp_path_factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """A folder that all workers of a session share, one at a time."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    with files.lock(folder.with_name(f".{name}.lock")):
        yield folder
