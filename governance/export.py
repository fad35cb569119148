"""Access (RGPD art. 15): all that is held on one person, from every table and from quarantine."""

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql

from governance.classification import ClassifiedTable
from governance.people import (
    quarantined_lines_about,
    refuse_closed_tables,
    sources_of,
    tables_about_people,
    without_values,
)
from ingestion.keys import delivered_ids, open_key, pseudonym_of
from warehouse.connections import connect
from warehouse.errors import UserError
from warehouse.settings import now


def export(domain: str, lines: Iterable[str], classified: Iterable[ClassifiedTable]) -> dict[str, Any]:
    """Return all that is held on the person with the delivered id, as JSON would have it.

    `tables` has the rows by table, none of them empty, and `terms` why and for how long each is held; `quarantine` has
    the lines about the person as delivered; `unreadable_line_count` says how many more lines hold the id but are too
    broken to say whose they are: they may name others and are not handed out.

    Args:
        domain: whose id it is.
        lines: the delivered id of one person, on one line.
        classified: what the tags say of the tables.

    Raises:
        UserError: not exactly one id was given, it is no whole number, a key is missing or another, or rows may be
            where the steward may not read.
    """
    sources_of(domain)
    person_ids = {person_id for _, person_id in delivered_ids(lines)}
    if len(person_ids) != 1:
        raise UserError("Write the delivered id of one person on standard input: an export is about one.")
    (person_id,) = person_ids
    with without_values("the export"), connect("steward") as connection:
        connection.execute("set transaction isolation level repeatable read")
        key = open_key(connection, domain, may_generate=False)
        user_id, _ = pseudonym_of(key.secret, person_id)
        refuse_closed_tables(connection, domain)
        tables = _rows_by_table(connection, domain, user_id)
        in_quarantine = list(quarantined_lines_about(connection, domain, person_ids))
        return {
            "domain": domain,
            "exported_at": now().isoformat(),
            "user_id": user_id,
            "terms": {
                str(table): {
                    "description": table.description,
                    "purpose": table.purpose,
                    "legal_basis": table.legal_basis,
                    "retention": table.retention,
                }
                for table in classified
                if str(table) in tables
            },
            "tables": tables,
            "quarantine": [
                {
                    "load_id": line.load_id,
                    "line_number": line.line_number,
                    "line": line.line.decode("utf-8", errors="backslashreplace"),
                }
                for line in in_quarantine
                if line.is_certain
            ],
            "unreadable_line_count": sum(not line.is_certain for line in in_quarantine),
        }


def _rows_by_table(connection: psycopg.Connection, domain: str, user_id: int) -> dict[str, list[dict[str, Any]]]:
    rows_by_table = {}
    for table in sorted(tables_about_people(connection, domain), key=str):
        statement = sql.SQL("select row_to_json(rows)::text from {} as rows where {} = %s order by 1").format(
            table.identifier, table.key
        )
        rows = [json.loads(text, parse_float=_exact) for (text,) in connection.execute(statement, (user_id,))]
        if rows:
            rows_by_table[str(table)] = rows
    return rows_by_table


def _exact(text: str) -> float | str:
    """A decimal number as JSON has it, or as text where a float would round it."""
    return float(text) if Decimal(text) == Decimal(repr(float(text))) else text
