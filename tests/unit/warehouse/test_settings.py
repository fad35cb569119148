from datetime import UTC, datetime
from pathlib import Path

import pytest

from warehouse import settings
from warehouse.errors import UserError


def test_home_is_in_the_checkout_unless_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert settings.home() == Path(settings.__file__).parent.parent / ".agora"
    monkeypatch.setenv("AGORA_HOME", "")
    assert settings.home().name == ".agora"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGORA_HOME", "here")
    assert settings.home() == tmp_path / "here"
    monkeypatch.setenv("AGORA_HOME", "~/there")
    assert settings.home() == Path.home() / "there"


def test_home_that_is_a_file_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("AGORA_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="which is a file: name a directory"):
        settings.home()


@pytest.mark.parametrize(
    "chosen", ["2020-03-01T00:00:00Z", "2020-03-01", "2020-03-01 00:00:00", "2020-03-01T01:00:00+01:00"]
)
def test_chosen_time_is_utc(monkeypatch: pytest.MonkeyPatch, chosen: str) -> None:
    monkeypatch.setenv("AGORA_NOW", chosen)
    assert settings.now() == datetime(2020, 3, 1, tzinfo=UTC)
    assert settings.now().tzinfo is UTC


def test_real_clock_is_aware() -> None:
    assert abs((settings.now() - datetime.now(UTC)).total_seconds()) < 5


def test_unreadable_time_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGORA_NOW", "yesterday")
    with pytest.raises(UserError, match="AGORA_NOW is 'yesterday'"):
        settings.now()


@pytest.mark.parametrize("name", ["PGHOST", "PGHOSTADDR", "PGSERVICE"])
def test_server_is_used_when_one_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("PGPORT", "5432")
    assert not settings.uses_server()
    monkeypatch.setenv(name, "somewhere")
    assert settings.uses_server()
