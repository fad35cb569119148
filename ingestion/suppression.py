"""The list of people who asked to be forgotten: who is on it may not land, in no file and by no way in.

An entry is the HMAC of domain and delivered id under a key of its own, which is never changed: the list outlives the
pseudonym keys, and says nothing to who has the database alone.
"""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field

import psycopg

from ingestion.keys import Key, open_key
from warehouse.settings import now

SUPPRESSION = "suppression"


@dataclass(frozen=True)
class Suppressions:
    """The entries of one domain; without entries no key is needed."""

    domain: str
    key: Key | None = None
    entries: frozenset[bytes] = field(default=frozenset(), repr=False)

    def holds(self, person_id: int) -> bool:
        """Whether the person with this delivered id asked to be forgotten."""
        return self.key is not None and _suppression_id(self.key, self.domain, person_id) in self.entries

    def holds_any(self, person_ids: Iterable[int]) -> bool:
        """Whether one of these people did."""
        return any(map(self.holds, person_ids))


def suppressions(connection: psycopg.Connection, domain: str) -> Suppressions:
    """Read a domain's list, as loader or steward; who holds the source's lock reads what no erasure changes meanwhile.

    Raises:
        UserError: there are entries, but their key is missing or another.
    """
    rows = connection.execute("select suppression_id from audit.suppressions where domain = %s", (domain,)).fetchall()
    if not rows:
        return Suppressions(domain)
    key = open_key(connection, SUPPRESSION, may_generate=False)
    return Suppressions(domain, key, frozenset(bytes(entry) for (entry,) in rows))


def suppress(connection: psycopg.Connection, domain: str, person_ids: Iterable[int]) -> None:
    """Put people on the list within the caller's transaction; the key is made with the first entry.

    Raises:
        UserError: the key is missing or not the one the list was made with.
    """
    key = open_key(connection, SUPPRESSION, may_generate=True)
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into audit.suppressions (domain, suppression_id, suppressed_on) values (%s, %s, %s) "
            "on conflict do nothing",
            # the day alone: to the second, an entry would lead to the receipt of its erasure
            [(domain, _suppression_id(key, domain, person_id), now().date()) for person_id in person_ids],
        )


def _suppression_id(key: Key, domain: str, person_id: int) -> bytes:
    return hmac.digest(key.secret, b"%b %d" % (domain.encode(), person_id), "sha256")
