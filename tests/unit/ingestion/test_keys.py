"""Pseudonyms and key files; what ties a key to a database is tested with one."""

import hashlib
import hmac
from pathlib import Path
from typing import Any

import pytest

from ingestion.keys import Key, Pseudonyms, key_of, key_path, open_key, pseudonym_of
from warehouse.errors import UserError

SECRET = bytes(range(32))


class NoFingerprints:
    """A database that knows no key yet, and remembers one it is told."""

    def __init__(self) -> None:
        self.row: tuple[str, str] | None = None

    def execute(self, statement: str, values: tuple[Any, ...]) -> "NoFingerprints":
        if statement.startswith("insert"):
            self.row = values[1:3]
        return self

    def fetchone(self) -> tuple[str, str] | None:
        return self.row


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("AGORA_HOME", str(tmp_path))
    return NoFingerprints()


def test_a_pseudonym_is_the_first_eight_bytes_of_the_hmac() -> None:
    # RFC 2104 by hand
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in SECRET.ljust(64, b"\0")) + b"541312140").digest()
    by_hand = hashlib.sha256(bytes(b ^ 0x5C for b in SECRET.ljust(64, b"\0")) + inner).digest()
    assert by_hand == hmac.new(SECRET, b"541312140", hashlib.sha256).digest()
    unsigned = sum(byte << 8 * (7 - place) for place, byte in enumerate(by_hand[:8]))
    signed = unsigned - 2**64 if unsigned >= 2**63 else unsigned
    assert pseudonym_of(SECRET, 541312140) == (signed, by_hand[8:])


def test_pseudonyms_are_those_of_the_canonical_id() -> None:
    pseudonyms = Pseudonyms(key_of(SECRET))
    expected, remainder = pseudonym_of(SECRET, 7)
    assert {pseudonyms[b"7"], pseudonyms[b"007"], pseudonyms[b"7"]} == {b"%d" % expected}
    # told once for each spelling, not for each row
    assert pseudonyms.take_new() == [expected.to_bytes(8, "big", signed=True) + remainder] * 2
    assert pseudonyms.take_new() == []


@pytest.mark.parametrize("secret_bytes", [32, 63, 64, 65, 200])
def test_a_key_of_any_length_gives_the_hmac_of_the_standard(secret_bytes: int) -> None:
    secret = bytes(range(secret_bytes))
    pseudonyms = Pseudonyms(key_of(secret), lambda person_id: person_id == 5)
    ids = [0, 7, -7, 541312140, 2**63 - 1, -(2**63)]
    hmacs = [hmac.new(secret, str(one).encode(), hashlib.sha256).digest() for one in ids]
    assert [pseudonyms.compute(one) for one in [5, *ids]] == [None] + [pseudonym_of(secret, one)[0] for one in ids]
    assert pseudonyms.take_new() == hmacs


def test_people_are_forgotten_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingestion.keys.PEOPLE_REMEMBERED", 10)
    pseudonyms = Pseudonyms(key_of(SECRET))
    first = [pseudonyms[b"%d" % n] for n in range(100)]
    assert len(pseudonyms) <= 10
    assert [pseudonyms[b"%d" % n] for n in range(100)] == first


def test_a_key_is_generated_once_and_kept_to_its_owner(database: Any) -> None:
    key = open_key(database, "ecommerce", may_generate=True)
    path = key_path("ecommerce")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert bytes.fromhex(path.read_text()) == key.secret
    assert len(key.secret) == 32
    assert open_key(database, "ecommerce", may_generate=True) == key
    assert open_key(NoFingerprints(), "quarantine", may_generate=True) != key  # type: ignore[arg-type]


def test_the_fingerprint_is_an_hmac_of_a_constant_and_the_secret_is_not_shown(database: Any) -> None:
    key = key_of(SECRET)
    assert key.fingerprint == hmac.new(SECRET, b"agora key fingerprint", hashlib.sha256).hexdigest()
    assert isinstance(key, Key)
    assert SECRET.hex() not in repr(key)
    assert repr(SECRET) not in repr(key)


def test_the_environment_goes_first(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGORA_KEY_ECOMMERCE", SECRET.hex())
    assert open_key(database, "ecommerce", may_generate=False).secret == SECRET
    assert not key_path("ecommerce").exists()


@pytest.mark.parametrize("text", ["too short", "00" * 31, "zz" * 32, "é" * 64])
def test_what_is_no_key_is_told(database: Any, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("AGORA_KEY_ECOMMERCE", text)
    with pytest.raises(UserError, match="AGORA_KEY_ECOMMERCE holds no key: it must be 32 bytes or more") as refusal:
        open_key(database, "ecommerce", may_generate=True)
    assert text not in str(refusal.value)
    monkeypatch.delenv("AGORA_KEY_ECOMMERCE")
    path = key_path("ecommerce")
    path.parent.mkdir()
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(UserError, match=r"ecommerce.key holds no key"):
        open_key(database, "ecommerce", may_generate=True)


def test_a_key_file_open_to_others_is_refused(database: Any) -> None:
    open_key(database, "ecommerce", may_generate=True)
    key_path("ecommerce").chmod(0o640)
    with pytest.raises(UserError, match="run `chmod 600"):
        open_key(database, "ecommerce", may_generate=True)


def test_another_key_and_a_missing_one_are_refused(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    key = open_key(database, "ecommerce", may_generate=True)
    key_path("ecommerce").unlink()
    with pytest.raises(
        UserError, match=f"key {key.key_id} for ecommerce, which is missing: put it into .*ecommerce.key"
    ):
        open_key(database, "ecommerce", may_generate=True)
    assert not key_path("ecommerce").exists()
    monkeypatch.setenv("AGORA_KEY_ECOMMERCE", SECRET.hex())
    with pytest.raises(UserError, match=f"not the one the database was filled with .{key.key_id}"):
        open_key(database, "ecommerce", may_generate=True)


def test_no_key_is_made_where_none_is_asked_for(database: Any) -> None:
    with pytest.raises(UserError, match="no key for ecommerce yet"):
        open_key(database, "ecommerce", may_generate=False)
    assert not key_path("ecommerce").exists()
