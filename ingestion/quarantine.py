"""Lines the door turned away: kept encrypted, with their reason, until they are replayed or their time is over.

A payload is a little CSV file of its own: the header as the door understood it, then the line as delivered. A foreign
file's record is kept as the line the door was shown; what never became a record, under a header without columns.
Sending quarantined lines through the door again is `loader.replay`.
"""

import hmac
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import itemgetter

import psycopg
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ingestion.door import Layout, RejectedLine
from ingestion.keys import Key
from ingestion.source import Source
from warehouse.connections import connect
from warehouse.errors import UserError

NONCE_BYTES = 12
LINES_AT_A_TIME = 10_000
CIPHER_LABEL = b"agora quarantine aes-256-gcm"


@dataclass(frozen=True)
class QuarantinedRows:
    """The lines of one load turned away for one reason."""

    load_id: int
    source: str
    file_name: str
    period: str | None
    error_code: str
    detail: str
    row_count: int
    first_line_number: int
    quarantined_at: datetime


class Seal:
    """Encrypts and opens payloads: AES-256-GCM, bound to load and line so that none can be put in another's place."""

    def __init__(self, key: Key) -> None:
        self._cipher = AESGCM(hmac.digest(key.secret, CIPHER_LABEL, "sha256"))

    def close(self, payload: bytes, load_id: int, line_number: int) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, payload, b"%d:%d" % (load_id, line_number))

    def open(self, sealed: bytes, load_id: int, line_number: int) -> bytes:
        """Raises: UserError if it was made with another key or for another line, or is damaged."""
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], b"%d:%d" % (load_id, line_number))
        except (InvalidTag, ValueError):
            raise UserError(
                f"Line {line_number} of load {load_id} cannot be decrypted: it was changed, or sealed with another key."
            ) from None


def pack(layout: Layout, line: bytes) -> bytes:
    """The payload of a line: the header as understood, columns that are left out unnamed; a line feed; the line."""
    return ",".join(column.name if column else "" for column in layout).encode() + b"\n" + line


def unpack(payload: bytes, source: Source) -> tuple[Layout, bytes]:
    """The layout and the line of a payload, by the source's columns of today."""
    by_name = {column.name: column for column in source.columns}
    names, line = payload.split(b"\n", 1)
    return tuple(by_name.get(name) for name in names.decode().split(",")), line


def quarantine_lines(
    connection: psycopg.Connection,
    seal: Seal,
    layout: Layout,
    load_id: int,
    lines: Sequence[RejectedLine],
    quarantined_at: datetime,
) -> None:
    """Write lines to quarantine.rows within the caller's transaction."""
    if not lines:
        return
    with connection.cursor().copy(
        "copy quarantine.rows (load_id, line_number, error_code, detail, payload, quarantined_at) from stdin"
    ) as copy:
        for rejected in lines:
            copy.write_row(
                (
                    load_id,
                    rejected.line_number,
                    rejected.rejection.error_code,
                    rejected.rejection.detail,
                    seal.close(
                        pack(() if rejected.is_unread else layout, rejected.line), load_id, rejected.line_number
                    ),
                    quarantined_at,
                )
            )


def quarantined_lines(
    connection: psycopg.Connection, seal: Seal, source: Source, load_id: int
) -> Iterator[tuple[Layout, list[tuple[int, bytes]]]]:
    """Yield a load's quarantined lines with their numbers, decrypted, in batches of one layout; as steward."""
    with connection.cursor(name="quarantined") as cursor:
        cursor.execute(
            "select line_number, payload from quarantine.rows where load_id = %s order by line_number", (load_id,)
        )
        while rows := cursor.fetchmany(LINES_AT_A_TIME):
            lines = [(number, *unpack(seal.open(payload, load_id, number), source)) for number, payload in rows]
            for layout, alike in groupby(lines, key=itemgetter(1)):
                yield layout, [(number, line) for number, _, line in alike]


def list_rows(load_id: int | None = None) -> list[QuarantinedRows]:
    """Return what is in quarantine, one entry per load and reason, latest load first; of one load if it is given."""
    with connect("steward") as connection:
        rows = connection.execute(
            """
            select
                rows.load_id, loads.source, loads.file_name, loads.period, rows.error_code, rows.detail,
                count(*), min(rows.line_number), min(rows.quarantined_at)
            from quarantine.rows as rows
            inner join audit.loads as loads on rows.load_id = loads.load_id
            where %(load_id)s::bigint is null or rows.load_id = %(load_id)s
            group by rows.load_id, loads.source, loads.file_name, loads.period, rows.error_code, rows.detail
            order by rows.load_id desc, count(*) desc, rows.error_code, rows.detail
            """,
            {"load_id": load_id},
        ).fetchall()
    return [QuarantinedRows(*row) for row in rows]
