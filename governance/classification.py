"""Which tables hold personal data, on whom, why and for how long: read from the tags in the dbt project.

``meta.holds`` of every model, seed and source table says what kind of data it holds; ``meta.privacy`` on what terms, if
personal; ``meta.pii`` of a column, how it leads to the person (docs/rgpd.md).

Not here: the database, whose tables the tests compare with these; what is made of the tags (``governance.register``).
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from warehouse.errors import UserError

Holds: TypeAlias = Literal["personal", "aggregates", "reference", "technical"]

# how a column leads to a person
PII_KINDS: Mapping[str, str] = {
    "pseudonym": "keyed pseudonym",
    "hmac": "keyed hash",
    "session_id": "session number of the source",
    "event_hash": "hash made of the pseudonym and others",
    "exact_time": "time to the second",
    "encrypted": "encrypted lines as delivered",
}
# what a folder or a source must say of its personal tables, beside their subject key
TERMS = ("data_subjects", "data_categories", "purpose", "legal_basis", "retention")

_KINDS_OF_TABLES = ("model", "seed", "snapshot", "source")
_DOMAIN_SCHEMAS = ("raw", "ml")


@dataclass(frozen=True)
class ClassifiedTable:
    """A table or view of the warehouse, and what is held in it.

    `domain` is None for what serves all domains. `subject_key` and all after it up to `retention` are None unless the
    table holds personal data; `subject_key` is None too where the person is found only by decrypting. `columns` has
    every column, with its entry of `PII_KINDS` or None; in a personal table all columns are data on a person.
    """

    schema: str
    name: str
    domain: str | None
    holds: Holds
    subject_key: str | None
    data_subjects: str | None
    data_categories: str | None
    purpose: str | None
    legal_basis: str | None
    retention: str | None
    columns: Mapping[str, str | None]
    description: str
    made_by: Literal["dbt", "agora"]

    @property
    def is_personal(self) -> bool:
        return self.holds == "personal"

    @property
    def identifying_columns(self) -> dict[str, str]:
        return {name: kind for name, kind in self.columns.items() if kind}

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


def classified_tables(manifest_path: Path) -> list[ClassifiedTable]:
    """Return every table and view that dbt knows of, by schema and name as they stand in the warehouse.

    Args:
        manifest_path: a manifest of ``dbt parse`` for a production target, which has marts where they are published.

    Raises:
        UserError: a table or column is not classified, or a tag contradicts another; all of them are named.
    """
    manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    nodes = [
        node
        for node in (*manifest["nodes"].values(), *manifest["sources"].values())
        if node["resource_type"] in _KINDS_OF_TABLES and node["config"].get("materialized") != "ephemeral"
    ]
    subject_keys = {key for node in nodes if (key := _terms(node).get("subject_key")) and _holds(node) == "personal"}
    problems = [problem for node in nodes for problem in _problems(node, subject_keys)]
    if problems:
        raise UserError(f"Not every table is classified (docs/rgpd.md): {'; '.join(sorted(problems))}.")
    return sorted((_classified(node) for node in nodes), key=str)


def _classified(node: Mapping[str, Any]) -> ClassifiedTable:
    terms = _terms(node) if _holds(node) == "personal" else {}
    schema, name = _place(node)
    return ClassifiedTable(
        schema=schema,
        name=name,
        domain=terms.get("domain") or _domain(node),
        holds=_holds(node),
        subject_key=terms.get("subject_key"),
        data_subjects=terms.get("data_subjects"),
        data_categories=terms.get("data_categories"),
        purpose=terms.get("purpose"),
        legal_basis=terms.get("legal_basis"),
        retention=terms.get("retention"),
        columns=_columns(node),
        description=" ".join(node["description"].split()),
        made_by="agora" if node["resource_type"] == "source" else "dbt",
    )


def _problems(node: Mapping[str, Any], subject_keys: Iterable[str]) -> Iterator[str]:
    table, holds, columns = ".".join(_place(node)), _holds(node), _columns(node)
    if holds is None:
        yield f"{table} does not say what it holds (meta.holds)"
        return
    if holds not in get_args(Holds):
        yield f"{table} holds {holds!r}, which is none of {', '.join(get_args(Holds))}"
        return
    if not columns:
        yield f"{table} lists no columns"
    for name, kind in columns.items():
        if kind is not None and kind not in PII_KINDS:
            yield f"{table}.{name} is tagged {kind!r}, which is none of {', '.join(PII_KINDS)}"
        elif holds != "personal" and (kind is not None or name in subject_keys):
            yield f"{table}.{name} leads to a person, but {table} claims to hold no personal data ({holds})"
    if holds == "personal":
        yield from _problems_of_terms(table, _terms(node), columns)


def _problems_of_terms(table: str, terms: Mapping[str, Any], columns: Mapping[str, str | None]) -> Iterator[str]:
    lacking = [term for term in TERMS if not terms.get(term)]
    if lacking:
        yield f"{table} holds personal data and lacks {', '.join(lacking)} (meta.privacy)"
    key = terms.get("subject_key")
    if not key:
        if "encrypted" not in columns.values():
            yield f"{table} holds personal data and lacks a subject_key (meta.privacy)"
    elif key not in columns:
        yield f"{table} has no column {key}, its subject_key"
    elif columns[key] is None:
        yield f"{table}.{key} is a subject_key without a tag (meta.pii)"


def _place(node: Mapping[str, Any]) -> tuple[str, str]:
    return node["schema"], node["identifier"] if node["resource_type"] == "source" else node["alias"]


def _holds(node: Mapping[str, Any]) -> Any:
    return node["config"].get("meta", {}).get("holds")


def _terms(node: Mapping[str, Any]) -> Mapping[str, Any]:
    return node["config"].get("meta", {}).get("privacy") or {}


def _columns(node: Mapping[str, Any]) -> dict[str, str | None]:
    return {name: column["config"].get("meta", {}).get("pii") for name, column in node["columns"].items()}


def _domain(node: Mapping[str, Any]) -> str | None:
    """The folder of a model or seed; what follows ``raw_`` or ``ml_`` in the name of a source."""
    if node["resource_type"] == "source":
        step, _, domain = node["source_name"].partition("_")
        return domain if step in _DOMAIN_SCHEMAS and domain else None
    folders = node["fqn"][1:-1]
    return folders[-1] if folders else None
