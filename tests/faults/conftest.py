"""What the fault tests share: the seed of all chance, a shop's files, and what an undisturbed warehouse makes of them.

The moments of kills are random. The seed is printed at the end; AGORA_FAULT_SEED=N draws the same moments again.
"""

import os
import random
import secrets
from collections.abc import Iterator
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
def shop(one_key: None, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    base = tmp_path_factory.getbasetemp()
    # made once for all workers
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shop"
    folder.mkdir(exist_ok=True)
    with files.lock(folder / ".lock"):
        checksum = folder / "checksum"
        if not checksum.exists():
            _simulate_and_build(folder, checksum)
    return Shop(*(folder / f"{month}.csv.gz" for month in MONTHS), checksum.read_text())


def _simulate_and_build(folder: Path, checksum: Path) -> None:
    size = ("--users", 1500, "--events", 120_000, "--months", len(MONTHS))
    agora("simulate", "ecommerce", "--out", folder, "--seed", 20191001, *size)
    home = short_directory()
    try:
        agora("load", "ecommerce.events", folder, home=home)
        agora("run", "ecommerce", home=home)
        checksum.write_text(agora("checksum", "ecommerce", home=home))
    finally:
        remove_home(home)
