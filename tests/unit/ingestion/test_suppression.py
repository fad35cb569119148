"""The suppression list: who is on it, and that an entry tells nothing without the key."""

import hashlib
import hmac

from ingestion.keys import Pseudonyms, key_of, pseudonym_of
from ingestion.suppression import Suppressions

KEY = key_of(bytes(range(32)))
OTHER_KEY = key_of(bytes(range(1, 33)))


def entry(key: bytes, domain: str, person_id: int) -> bytes:
    return hmac.new(key, f"{domain} {person_id}".encode(), hashlib.sha256).digest()


LIST = Suppressions("ecommerce", KEY, frozenset({entry(KEY.secret, "ecommerce", 512475445)}))


def test_a_person_is_known_by_domain_id_and_key() -> None:
    assert LIST.holds(512475445)
    assert not LIST.holds(512475446)
    assert not Suppressions("proximity", KEY, LIST.entries).holds(512475445)
    assert not Suppressions("ecommerce", OTHER_KEY, LIST.entries).holds(512475445)
    assert LIST.holds_any({1, 2, 512475445})
    assert not LIST.holds_any({1, 2})


def test_an_empty_list_needs_no_key_and_holds_nobody() -> None:
    assert not Suppressions("ecommerce").holds(512475445)
    assert not Suppressions("ecommerce").holds_any({512475445})


def test_an_entry_is_no_pseudonym() -> None:
    user_id, remainder = pseudonym_of(KEY.secret, 512475445)
    assert user_id.to_bytes(8, "big", signed=True) + remainder not in LIST.entries


def test_who_is_on_the_list_gets_no_pseudonym() -> None:
    pseudonyms = Pseudonyms(OTHER_KEY, LIST.holds)
    assert pseudonyms[b"512475445"] == b""
    assert pseudonyms[b"0512475445"] == b""
    assert int(pseudonyms[b"512475446"]) == pseudonym_of(OTHER_KEY.secret, 512475446)[0]
    assert [hmac[8:] for hmac in pseudonyms.take_new()] == [pseudonym_of(OTHER_KEY.secret, 512475446)[1]]


def test_neither_key_nor_entries_are_shown() -> None:
    assert KEY.secret.hex() not in repr(LIST)
    assert str(next(iter(LIST.entries))) not in repr(LIST)
