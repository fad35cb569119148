"""The register of processing activities (GDPR art. 30(1)), written from the tags and from the rights in the warehouse.

Not here: the tags themselves (``governance.classification``). What no tag can know, who the controller is, comes from
the environment; what Agora does for the safety of the data stands here, in words, and must stay true of the code.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, Literal, TypeAlias

import psycopg

from governance.access_log import KEPT_DAYS
from governance.classification import PII_KINDS, ClassifiedTable

Format: TypeAlias = Literal["markdown", "json"]
# (schema, table) → roles that may read it; a table that was not built yet is not there
Readers: TypeAlias = Mapping[tuple[str, str], Sequence[str]]

TO_FILL_IN = "to be filled in by the controller"
NOT_BUILT = "not built yet"

ROLES = {
    "loader": "lands files",
    "steward": "replaces and undoes loads, opens quarantine, erases, exports and purges",
    "transformer": "dbt: builds every model",
    "ml": "fits the segments",
    "bi_reader": "BI tools and the people who use them, whom the controller names",
}
OWNER = "The database's owner, and whoever administers the server or its machine, can read every table."
TRANSFERS = (
    "None by Agora: it runs where the controller runs it and sends no personal data anywhere. Where the server, its "
    "backups or the readers' BI tools are in a third country, the controller adds the transfer and its safeguards."
)
MEASURES = (
    "Delivered customer ids are replaced by keyed pseudonyms (HMAC-SHA-256) before anything is sent to the server; "
    "there is no table that leads back.",
    "The keys are outside the database, in the environment or in files that only their owner can read; the database "
    "keeps a fingerprint, and another key is refused.",
    "Lines that cannot be landed are kept encrypted (AES-256-GCM), bound to their load and line.",
    "Each step logs in as a role of its own, with a password of its own and the rights it needs. Readers see published "
    "marts only, and read only.",
    "The embedded server listens on a socket in a private directory, and on TCP only when asked to; its log holds no "
    "statements and no values.",
    "From the clean events on, times are cut to the minute. (A hash of the full time stays in event_id, unpublished.)",
    "The copy of a file that is being landed has no name and vanishes with the process that reads it.",
    "Every table and column is classified; a test compares the tags with the database's own catalog.",
    "Who asked to be forgotten is kept out by a list of keyed hashes (HMAC-SHA-256 under a key of its own).",
    "What is past its time is removed by a job: every night where Dagster runs, else whenever the controller "
    "has it run (agora retention purge).",
    "Who logged in and read which published table is logged, without values or texts of statements; on a server that "
    "Agora did not start, as far as its settings allow it.",
    "Aggregates made to be passed on hide cells that stand for few people or mostly for one.",
)
# kept beside the tables; on a server that Agora did not start it is the server's, and the controller's to describe
ACCESS_LOG = (
    ("Purpose", "Security of processing: finding misuse (art. 32 GDPR)"),
    ("Legal basis", "legitimate interests, art. 6(1)(f) GDPR (proposed; the controller decides)"),
    ("Data subjects", "people who log in to the warehouse or use a tool that does"),
    (
        "Categories of data",
        "time, role, host and, of statements, their kind, their length and the marts they read",
    ),
    ("Recipients", "whoever runs Agora on its machine; nobody by way of the database"),
    ("Kept for", f"{KEPT_DAYS} days"),
)
MEASURES_OF_THE_CONTROLLER = (
    "encryption of disks and backups, and of connections over a network (PGSSLMODE)",
    "who gets the passwords and keys, and where copies of the keys are kept",
    "what happens to delivered files, to copies in development schemas (dbt's targets dev and ci), and to what readers "
    "copy out of the warehouse",
)


@dataclass(frozen=True)
class Controller:
    """Who answers for the processing, art. 30(1)(a); None is still to be filled in."""

    name: str | None = None
    contact: str | None = None
    joint_controller: str | None = None
    representative: str | None = None
    data_protection_officer: str | None = None


@dataclass(frozen=True)
class Activity:
    """What is done with personal data for one purpose: all tables of one domain and purpose."""

    domain: str | None
    purpose: str
    legal_bases: tuple[str, ...]
    data_subjects: tuple[str, ...]
    data_categories: tuple[str, ...]
    tables: tuple[ClassifiedTable, ...]

    @property
    def title(self) -> str:
        return f"{self.domain or 'all domains'}: {self.purpose}"


def controller_from_environment() -> Controller:
    """The controller as AGORA_CONTROLLER and its kin name it (.env.example)."""
    return Controller(
        name=os.environ.get("AGORA_CONTROLLER") or None,
        contact=os.environ.get("AGORA_CONTROLLER_CONTACT") or None,
        joint_controller=os.environ.get("AGORA_JOINT_CONTROLLER") or None,
        representative=os.environ.get("AGORA_CONTROLLER_REPRESENTATIVE") or None,
        data_protection_officer=os.environ.get("AGORA_DATA_PROTECTION_OFFICER") or None,
    )


def readers_in(connection: psycopg.Connection) -> Readers:
    """Return which roles may read which table by the rights in the database, whoever granted them.

    Left out are superusers and the database's owner, who can read everything (`OWNER`), and roles that cannot log in.
    """
    rows = connection.execute(
        """
        select pg_namespace.nspname, pg_class.relname, array_agg(pg_roles.rolname::text order by pg_roles.rolname)
        from pg_class
        inner join pg_namespace on pg_class.relnamespace = pg_namespace.oid
        left join pg_roles on
            pg_roles.rolcanlogin and not pg_roles.rolsuper
            and pg_roles.oid <> (select datdba from pg_database where datname = current_database())
            and has_schema_privilege(pg_roles.oid, pg_namespace.oid, 'usage')
            and has_any_column_privilege(pg_roles.oid, pg_class.oid, 'select')
        where pg_class.relkind in ('r', 'p', 'v', 'm', 'f') and not starts_with(pg_namespace.nspname, 'pg_')
        group by pg_namespace.nspname, pg_class.relname
        """
    ).fetchall()
    return {(schema, name): [role for role in roles if role] for schema, name, roles in rows}


def activities(tables: Iterable[ClassifiedTable]) -> list[Activity]:
    """Group the personal tables by domain and purpose."""

    def key(table: ClassifiedTable) -> tuple[str, str]:
        return table.domain or "", table.purpose or ""

    personal = sorted((table for table in tables if table.is_personal), key=key)
    return [_activity(domain or None, purpose, tuple(group)) for (domain, purpose), group in groupby(personal, key)]


def _activity(domain: str | None, purpose: str, tables: tuple[ClassifiedTable, ...]) -> Activity:
    return Activity(
        domain=domain,
        purpose=purpose,
        legal_bases=_distinct(table.legal_basis for table in tables),
        data_subjects=_distinct(table.data_subjects for table in tables),
        data_categories=_distinct(table.data_categories for table in tables),
        tables=tables,
    )


def _distinct(texts: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in texts if text))


def register(
    tables: Sequence[ClassifiedTable], readers: Readers, controller: Controller, as_of: datetime, output: Format
) -> str:
    """Return the register as Markdown or JSON.

    Args:
        tables: all tables of the warehouse, personal or not.
        readers: which role may read which of them (`readers_in`).
        controller: who answers for the processing.
        as_of: when it is written, UTC.
        output: which of the two.
    """
    if output == "json":
        return json.dumps(_as_json(tables, readers, controller, as_of), ensure_ascii=False, indent=2) + "\n"
    return "\n".join(_as_markdown(tables, readers, controller, as_of)) + "\n"


# --- Markdown ---------------------------------------------------------------------------------------------------


def _as_markdown(
    tables: Sequence[ClassifiedTable], readers: Readers, controller: Controller, as_of: datetime
) -> list[str]:
    lines = [
        "# Register of processing activities",
        "",
        "Under art. 30(1) GDPR. Written by `agora rgpd register` from the tags in the dbt project and the rights in",
        f"the warehouse on {as_of:%Y-%m-%d, %H:%M} UTC. It covers what Agora holds. Purposes and legal bases are",
        "proposals of those who wrote the models: the controller checks and decides them.",
        *_markdown_not_built(tables, readers),
        "",
        "## Controller",
        "",
        *_markdown_table(
            ("", ""),
            [
                ("controller", controller.name or f"*{TO_FILL_IN}*"),
                ("contact", controller.contact or f"*{TO_FILL_IN}*"),
                ("joint controller, if any", controller.joint_controller or f"*{TO_FILL_IN}*"),
                ("representative in the EU, if any", controller.representative or f"*{TO_FILL_IN}*"),
                ("data protection officer", controller.data_protection_officer or f"*{TO_FILL_IN}*"),
            ],
        ),
        "",
        "## Processing activities",
    ]
    for number, activity in enumerate(activities(tables), 1):
        lines += ["", f"### {number}. {activity.title}", "", *_markdown_activity(activity, readers)]
    lines += ["", "### The access log", ""]
    lines += [f"- **{term}:** {text}" for term, text in ACCESS_LOG]
    lines += ["", "## For all activities", ""]
    lines += [f"- **Recipients:** {OWNER}", f"- **Transfers to third countries:** {TRANSFERS}"]
    lines += ["", "## Security measures", "", "What Agora does:", ""]
    lines += [f"- {measure}" for measure in MEASURES]
    lines += ["", "What the controller sees to:", ""]
    lines += [f"- {measure}" for measure in MEASURES_OF_THE_CONTROLLER]
    lines += ["", "## Tables without personal data", ""]
    others = [table for table in tables if not table.is_personal]
    lines += _markdown_table(
        ("table", "holds", "what a row is"), [(f"`{table}`", table.holds, table.description) for table in others]
    )
    return lines


def _markdown_not_built(tables: Iterable[ClassifiedTable], readers: Readers) -> list[str]:
    if all((table.schema, table.name) in readers for table in tables):
        return []
    return ["", f"Some tables are {NOT_BUILT}, and who may read them is unknown: write the register after a run."]


def _markdown_activity(activity: Activity, readers: Readers) -> list[str]:
    return [
        f"- **Purpose:** {activity.purpose}",
        f"- **Legal basis:** {'; '.join(activity.legal_bases)}",
        f"- **Data subjects:** {'; '.join(activity.data_subjects)}",
        f"- **Categories of data:** {'; '.join(activity.data_categories)}",
        f"- **Recipients:** {_recipients(activity, readers)}",
        "",
        "Tables and time limits:",
        "",
        *_markdown_table(
            ("table", "what a row is", "found by", "identifying columns", "others", "kept for", "read by"),
            [
                (
                    f"`{table}`",
                    table.description,
                    f"`{table.subject_key}`" if table.subject_key else "decrypting it",
                    ", ".join(f"`{name}` ({PII_KINDS[kind]})" for name, kind in table.identifying_columns.items()),
                    str(len(table.columns) - len(table.identifying_columns)),
                    table.retention or "",
                    _readers_of(table, readers),
                )
                for table in activity.tables
            ],
        ),
    ]


def _recipients(activity: Activity, readers: Readers) -> str:
    roles = sorted({role for table in activity.tables for role in readers.get((table.schema, table.name), ())})
    return "; ".join(f"`{role}` ({ROLES.get(role, 'a role that is not of Agora')})" for role in roles) or "no role"


def _readers_of(table: ClassifiedTable, readers: Readers) -> str:
    roles = readers.get((table.schema, table.name))
    return NOT_BUILT if roles is None else ", ".join(f"`{role}`" for role in roles) or "the owner alone"


def _markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(" ".join(cell.split()).replace("|", r"\|") for cell in cells) + " |"

    return [line(header), "|" + "---|" * len(header), *map(line, rows)]


# --- JSON -------------------------------------------------------------------------------------------------------


def _as_json(
    tables: Sequence[ClassifiedTable], readers: Readers, controller: Controller, as_of: datetime
) -> dict[str, Any]:
    def entry(table: ClassifiedTable) -> dict[str, Any]:
        return {
            "schema": table.schema,
            "table": table.name,
            "description": table.description,
            "holds": table.holds,
            "subject_key": table.subject_key,
            "retention": table.retention,
            "columns": dict(table.columns),
            "made_by": table.made_by,
            "read_by": None if (roles := readers.get((table.schema, table.name))) is None else list(roles),
        }

    return {
        "written_at": as_of.isoformat(),
        "controller": asdict(controller),
        "activities": [
            {
                "domain": activity.domain,
                "purpose": activity.purpose,
                "legal_bases": activity.legal_bases,
                "data_subjects": activity.data_subjects,
                "data_categories": activity.data_categories,
                "tables": [entry(table) for table in activity.tables],
            }
            for activity in activities(tables)
        ],
        "access_log": dict(ACCESS_LOG),
        "roles": ROLES,
        "recipients_of_all_activities": OWNER,
        "transfers": TRANSFERS,
        "security_measures": MEASURES,
        "security_measures_of_the_controller": MEASURES_OF_THE_CONTROLLER,
        "tables_without_personal_data": [entry(table) for table in tables if not table.is_personal],
    }
