"""Sealed payloads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.ecommerce.source import EVENTS
from ingestion.keys import key_of
from ingestion.quarantine import Seal, pack, unpack
from warehouse.errors import UserError

SEAL = Seal(key_of(bytes(range(32))))


@given(st.binary(max_size=300), st.integers(1, 2**62), st.integers(1, 2**62))
def test_what_is_closed_can_be_opened(payload: bytes, load_id: int, line_number: int) -> None:
    sealed = SEAL.close(payload, load_id, line_number)
    assert SEAL.open(sealed, load_id, line_number) == payload
    assert sealed != SEAL.close(payload, load_id, line_number)


def test_a_payload_opens_for_its_own_line_and_key_only() -> None:
    sealed = SEAL.close(b"541312140", 7, 12)
    assert b"541312140" not in sealed
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for seal, payload, load_id, line_number in [
        (SEAL, sealed, 7, 13),
        (SEAL, sealed, 8, 12),
        (SEAL, sealed, 71, 2),
        (SEAL, changed, 7, 12),
        (SEAL, b"", 7, 12),
        (Seal(key_of(bytes(32))), sealed, 7, 12),
    ]:
        with pytest.raises(UserError, match="cannot be decrypted"):
            seal.open(payload, load_id, line_number)


@given(st.binary(max_size=100))
def test_a_payload_tells_what_stood_where(line: bytes) -> None:
    layout = (EVENTS.columns[3], None, EVENTS.columns[0])
    payload = pack(layout, line)
    assert payload.startswith(b"category_id,,event_time\n")
    assert unpack(payload, EVENTS) == (layout, line)
