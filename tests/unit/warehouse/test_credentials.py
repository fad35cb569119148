import multiprocessing
import stat
from pathlib import Path

import pytest

from warehouse import credentials
from warehouse.errors import UserError
from warehouse.settings import ROLES


def test_passwords_are_made_once(tmp_path: Path) -> None:
    made = credentials.make_embedded_passwords(tmp_path / "home")
    assert set(made) == {"owner", *ROLES}
    assert len(set(made.values())) == len(made)
    assert min(map(len, made.values())) >= 32
    assert credentials.make_embedded_passwords(tmp_path / "home") == made
    assert credentials.embedded_passwords(tmp_path / "home") == made
    directory = tmp_path / "home" / "credentials"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "embedded.json").stat().st_mode) == 0o600


def make_and_tell(home: Path, answers: "multiprocessing.Queue[str]") -> None:
    answers.put(credentials.make_embedded_passwords(home)["owner"])


def test_processes_that_race_agree(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    racers = [context.Process(target=make_and_tell, args=(tmp_path, answers)) for _ in range(8)]
    for racer in racers:
        racer.start()
    assert len({answers.get(timeout=30) for _ in racers}) == 1
    for racer in racers:
        racer.join()


def test_password_from_the_environment_wins_and_is_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGORA_BI_READER_PASSWORD", "chosen")
    assert credentials.server_passwords(tmp_path, "db.example.org", 5432)["bi_reader"] == "chosen"
    path = tmp_path / "credentials" / "db.example.org_5432.json"
    assert "bi_reader" not in path.read_text()
    monkeypatch.delenv("AGORA_BI_READER_PASSWORD")
    assert credentials.server_passwords(tmp_path, "db.example.org", 5432)["bi_reader"] != "chosen"


def test_nothing_is_written_if_all_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for role in ROLES:
        monkeypatch.setenv(f"AGORA_{role.upper()}_PASSWORD", "chosen")
    assert set(credentials.server_passwords(tmp_path, "h", 1).values()) == {"chosen"}
    assert list(tmp_path.iterdir()) == []


def test_host_cannot_lead_out_of_the_directory(tmp_path: Path) -> None:
    credentials.server_passwords(tmp_path, "/../../run/postgres", 5432)
    assert (tmp_path / "credentials" / "-..-..-run-postgres_5432.json").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_open_file_is_refused(tmp_path: Path, mode: int) -> None:
    credentials.make_embedded_passwords(tmp_path)
    path = tmp_path / "credentials" / "embedded.json"
    path.chmod(mode)
    with pytest.raises(UserError, match=f"run `chmod 600 {path}`"):
        credentials.make_embedded_passwords(tmp_path)


def test_damaged_file_is_a_sentence(tmp_path: Path) -> None:
    credentials.make_embedded_passwords(tmp_path)
    (tmp_path / "credentials" / "embedded.json").write_text("{")
    with pytest.raises(UserError, match=r"embedded\.json is damaged"):
        credentials.make_embedded_passwords(tmp_path)


def test_lost_file_is_not_replaced_by_passwords_that_do_not_open(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is gone, and the database opens to nobody"):
        credentials.embedded_passwords(tmp_path)
    assert list(tmp_path.iterdir()) == []
