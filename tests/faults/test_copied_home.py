"""Homes that were copied or moved: a copy never reaches, stops or deletes its original's server."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import agora, agora_sql, remove_home

from warehouse import embedded, embedded_account, embedded_processes

WRITE = "insert into audit.publications (domain, generation) values ('{}', '1')"
READ = "select domain from audit.publications order by domain"


def copy(home: Path) -> Path:
    """`cp -a` of a home, beside it."""
    target = home.with_name(home.name + "-copy")
    subprocess.run(["cp", "-a", home, target], check=True)
    return target


def postmaster(home: Path) -> int | None:
    state = json.loads((home / "server.json").read_text())
    return embedded_processes.postmaster(Path(state["data_directory"]), state["name"])


def written_in(home: Path) -> list[str]:
    return [row["domain"] for row in agora_sql(READ, home=home)]


def test_a_copy_of_a_stopped_home_is_a_warehouse_of_its_own(make_warehouse: Callable[[], Path]) -> None:
    home = make_warehouse()
    agora("sql", WRITE.format("both"), home=home)
    agora("down", home=home)
    copied = copy(home)
    try:
        agora("up", home=home)
        original = postmaster(home)
        agora("sql", WRITE.format("copy"), home=copied)
        agora("sql", WRITE.format("original"), home=home)
        assert written_in(copied) == ["both", "copy"]
        assert written_in(home) == ["both", "original"]
        assert postmaster(home) == original != postmaster(copied)
        # known from now on: the second start changes nothing
        name = json.loads((copied / "server.json").read_text())["name"]
        agora("down", home=copied)
        assert written_in(copied) == ["both", "copy"]
        assert json.loads((copied / "server.json").read_text())["name"] == name
    finally:
        remove_home(copied)
    assert postmaster(home) == original
    assert written_in(home) == ["both", "original"]


def test_a_copy_of_a_running_home_is_refused_and_its_original_runs_on(make_warehouse: Callable[[], Path]) -> None:
    home = make_warehouse()
    original = postmaster(home)
    copied = copy(home)
    try:
        for arguments in (["up"], ["sql", "select 1"], ["loads"]):
            said = agora(*arguments, home=copied, expect=2)
            assert said == (
                f"agora: {copied} was copied from {home} while the server there was running, so the copy may be "
                "broken: run `agora down` there, delete the copy and make it again.\n"
            )
        agora("down", home=copied)
        embedded.destroy(copied)
    finally:
        shutil.rmtree(copied)
    assert postmaster(home) == original
    assert written_in(home) == []


@pytest.mark.skipif(not embedded_account.server_account().is_lent, reason="only root's data may lie outside of a home")
def test_a_copy_without_its_database_is_refused_and_its_original_runs_on(make_warehouse: Callable[[], Path]) -> None:
    closed = make_warehouse() / "closed"
    closed.mkdir(mode=0o700)
    home = closed / "home"
    copied = closed / "home-copy"
    try:
        agora("sql", WRITE.format("original"), home=home)
        original = postmaster(home)
        copy(home)
        said = agora("up", home=copied, expect=2)
        assert f"is a copy of {home}, whose database lies outside of it" in said
        assert "Traceback" not in said
        agora("down", home=copied)
        embedded.destroy(copied)
        assert postmaster(home) == original
        assert written_in(home) == ["original"]
    finally:
        embedded.destroy(home)


def test_a_moved_home_keeps_its_server(make_warehouse: Callable[[], Path]) -> None:
    home = make_warehouse()
    agora("sql", WRITE.format("moved"), home=home)
    name = json.loads((home / "server.json").read_text())["name"]
    moved = home.rename(home.with_name(home.name + "-moved"))
    try:
        assert written_in(moved) == ["moved"]
        assert json.loads((moved / "server.json").read_text())["name"] == name
        assert len([pid for pid in embedded_processes.server_processes(name) if pid == postmaster(moved)]) == 1
    finally:
        remove_home(moved)
