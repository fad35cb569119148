"""Secrets and what is made with them: pseudonyms, and the fingerprints that tie a database to its keys.

A key is 32 bytes or more, in the environment (AGORA_KEY_ECOMMERCE, hex) or in a 0600 file under AGORA_HOME. The
database keeps its fingerprint only; whatever was made with one key is never mixed with another's.
"""

import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from ingestion.source import BLANKS, sources, whole_number
from warehouse import files
from warehouse.connections import connect
from warehouse.errors import UserError
from warehouse.settings import home, now

KEY_BYTES = 32
SHA256_BLOCK_BYTES = 64
FINGERPRINT_LABEL = b"agora key fingerprint"
QUARANTINE = "quarantine"
# about 200 MB
PEOPLE_REMEMBERED = 1_000_000


@dataclass(frozen=True)
class Key:
    """A secret with the names the database knows it by."""

    key_id: str
    fingerprint: str
    secret: bytes = field(repr=False)


def open_key(connection: psycopg.Connection, domain: str, *, may_generate: bool) -> Key:
    """Return the key of a domain ("ecommerce", or "quarantine" for payloads) and see that it is the database's.

    A key is generated only where neither the environment, nor its file, nor the database knows one. `connection` is
    logged in as loader or steward.

    Raises:
        UserError: the key is missing, malformed, open to others, or not the one the database was filled with.
    """
    row = connection.execute("select key_id, fingerprint from audit.keys where domain = %s", (domain,)).fetchone()
    secret = _secret_of_environment(domain) or _secret_of_file(domain)
    if secret is None:
        if row is not None:
            raise UserError(
                f"The database was filled with key {row[0]} for {domain}, which is missing: put it into "
                f"{key_path(domain)} or {key_variable(domain)}."
            )
        if not may_generate:
            raise UserError(f"There is no key for {domain} yet: it is made when the first file is loaded.")
        secret = _generate(domain)
    key = key_of(secret)
    if row is None:
        connection.execute(
            "insert into audit.keys (domain, key_id, fingerprint, created_at) values (%s, %s, %s, %s) "
            "on conflict (domain) do nothing",
            (domain, key.key_id, key.fingerprint, now()),
        )
        row = connection.execute("select key_id, fingerprint from audit.keys where domain = %s", (domain,)).fetchone()
    if row is None or not hmac.compare_digest(row[1], key.fingerprint):
        raise UserError(
            f"The key for {domain} is not the one the database was filled with ({row[0] if row else 'none'}): restore "
            f"that one in {key_path(domain)} or {key_variable(domain)}."
        )
    return key


def key_of(secret: bytes) -> Key:
    """Name a secret: its fingerprint is the HMAC of a constant label under it."""
    fingerprint = hmac.digest(secret, FINGERPRINT_LABEL, "sha256").hex()
    return Key(fingerprint[:12], fingerprint, secret)


def key_path(domain: str) -> Path:
    """The file a domain's key is kept in, unless it comes by the environment."""
    return home() / "keys" / f"{domain}.key"


def key_variable(domain: str) -> str:
    """The environment variable a domain's key may come by."""
    return f"AGORA_KEY_{domain.upper()}"


def pseudonym_of(secret: bytes, person_id: int) -> tuple[int, bytes]:
    """Return a person's pseudonym and the 24 bytes that tell two people on one pseudonym apart.

    The HMAC-SHA256 of the id in plain decimal digits: its first 8 bytes, big-endian and signed; and the rest.
    """
    digest = hmac.digest(secret, b"%d" % person_id, "sha256")
    return int.from_bytes(digest[:8], "big", signed=True), digest[8:]


class Pseudonyms(dict[bytes, bytes]):
    """The bytes to land for the bytes of a delivered id (a whole number), each computed when first asked for.

    Empty for those who asked to be forgotten (`is_suppressed`). The HMACs computed are gathered until the caller takes
    them.
    """

    def __init__(self, key: Key, is_suppressed: Callable[[int], bool] = lambda person_id: False) -> None:
        super().__init__()
        # with the key absorbed once, an HMAC takes 0.6 µs in place of 1.5
        padded = key.secret if len(key.secret) <= SHA256_BLOCK_BYTES else hashlib.sha256(key.secret).digest()
        padded = padded.ljust(SHA256_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))
        self._is_suppressed = is_suppressed
        self._new: list[bytes] = []

    def __missing__(self, person_id: bytes) -> bytes:
        if len(self) >= PEOPLE_REMEMBERED:
            self.clear()
        user_id = self.compute(int(person_id))
        pseudonym = self[person_id] = b"" if user_id is None else b"%d" % user_id
        return pseudonym

    def compute(self, person_id: int) -> int | None:
        """The pseudonym of a delivered id, not remembered; None for one who asked to be forgotten."""
        if self._is_suppressed(person_id):
            return None
        digest = self._hmac(person_id)
        self._new.append(digest)
        return int.from_bytes(digest[:8], "big", signed=True)

    def take_new(self) -> list[bytes]:
        """Return and forget the HMACs computed since the last time: the first 8 bytes of each are the pseudonym."""
        new, self._new = self._new, []
        return new

    def _hmac(self, person_id: int) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(b"%d" % person_id)
        outer.update(inner.digest())
        return outer.digest()


def pseudonyms(domain: str, raw_ids: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Return each delivered id, blanks around it removed, with its pseudonym; empty lines are passed over.

    Raises:
        UserError: an unknown domain, a missing or wrong key; while iterating: see `delivered_ids`.
    """
    known = {source.domain for source in sources().values()}
    if domain not in known:
        raise UserError(f"There is no domain '{domain}' with pseudonyms. Known: {', '.join(sorted(known))}.")
    with connect("loader") as connection:
        key = open_key(connection, domain, may_generate=False)
    return ((raw_id, pseudonym_of(key.secret, person_id)[0]) for raw_id, person_id in delivered_ids(raw_ids))


def delivered_ids(lines: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Yield each delivered id as written, blanks around it removed, and as a number; empty lines are passed over.

    Raises:
        UserError: an id is no whole number (told by its line, never by its value).
    """
    for line_number, line in enumerate(lines, 1):
        # a file from Windows may begin with a byte order mark
        raw_id = line.removeprefix("\ufeff").strip(BLANKS + "\r\n")
        if not raw_id:
            continue
        person_id = whole_number(raw_id)
        if person_id is None:
            raise UserError(f"Line {line_number}: the id is not a plain whole number.")
        yield raw_id, person_id


def _secret_of_environment(domain: str) -> bytes | None:
    text = os.environ.get(key_variable(domain))
    return _secret_of(text, key_variable(domain)) if text else None


def _secret_of_file(domain: str) -> bytes | None:
    path = key_path(domain)
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        return None
    except PermissionError:
        raise UserError(f"{path} cannot be read: run as the user it belongs to.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): a file with the key belongs there.") from None
    except ValueError:
        text = ""
    if stat.S_IMODE(mode) & 0o077:
        raise UserError(f"{path} holds a key but others may open it: run `chmod 600 {path}`.")
    return _secret_of(text, str(path))


def _secret_of(text: str, place: str) -> bytes:
    try:
        secret = bytes.fromhex(text.strip())
    except ValueError:
        secret = b""
    if len(secret) < KEY_BYTES:
        raise UserError(f"{place} holds no key: it must be {KEY_BYTES} bytes or more in hexadecimal digits.")
    return secret


def _generate(domain: str) -> bytes:
    path = key_path(domain)
    files.make_home(home())
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with files.lock(path.parent / ".lock"):
        made_meanwhile = _secret_of_file(domain)
        if made_meanwhile:
            return made_meanwhile
        secret = secrets.token_bytes(KEY_BYTES)
        temporary = path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(secret.hex() + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        # rows made with a key that a power cut took away could never be joined again
        directory = os.open(path.parent, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
    return secret
