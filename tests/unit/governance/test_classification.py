"""Reading the tags: what is classified comes out as tagged, and whatever nobody classified is named."""

import json
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from governance.classification import ClassifiedTable, classified_tables
from warehouse.errors import UserError

Node: TypeAlias = dict[str, Any]

TERMS = {
    "subject_key": "user_id",
    "data_subjects": "customers",
    "data_categories": "purchases",
    "purpose": "analytics",
    "legal_basis": "legitimate interests",
    "retention": "24 months",
}
PERSON = {"user_id": "pseudonym", "spent_eur": None}


def node(kind: str, schema: str, name: str, columns: dict[str, str | None], **meta: Any) -> Node:
    common = {
        "resource_type": kind,
        "schema": schema,
        "description": "One row per\n  thing.",
        "config": {"materialized": "table", "meta": {name: value for name, value in meta.items() if value}},
        "columns": {
            column: {"config": {"meta": {"pii": pii} if pii else {}, "tags": []}} for column, pii in columns.items()
        },
    }
    if kind == "source":
        return {**common, "source_name": schema, "identifier": name, "fqn": ["agora", "staging", "ecommerce", name]}
    return {**common, "alias": name, "fqn": ["agora", "marts", "ecommerce", name]}


def model(name: str = "dim_users", columns: dict[str, str | None] = PERSON, **meta: Any) -> Node:
    return node("model", "ecommerce", name, columns, **meta)


def read(folder: Path, *nodes: Node) -> list[ClassifiedTable]:
    path = folder / "manifest.json"
    named = {f"{item['resource_type']}.{number}": item for number, item in enumerate(nodes)}
    of_dbt = {name: item for name, item in named.items() if item["resource_type"] != "source"}
    sources = {name: item for name, item in named.items() if item["resource_type"] == "source"}
    path.write_text(json.dumps({"nodes": of_dbt, "sources": sources}))
    return classified_tables(path)


def refused(folder: Path, *nodes: Node) -> str:
    with pytest.raises(UserError) as error:
        read(folder, *nodes)
    return str(error.value)


def test_a_personal_table_has_its_terms_and_its_columns(tmp_path: Path) -> None:
    (table,) = read(tmp_path, model(holds="personal", privacy=TERMS))
    assert table == ClassifiedTable(
        schema="ecommerce",
        name="dim_users",
        domain="ecommerce",
        holds="personal",
        columns=PERSON,
        description="One row per thing.",
        made_by="dbt",
        **TERMS,
    )
    assert table.is_personal
    assert table.identifying_columns == {"user_id": "pseudonym"}
    assert str(table) == "ecommerce.dim_users"


def test_a_table_without_personal_data_has_none_of_its_folders_terms(tmp_path: Path) -> None:
    (table,) = read(tmp_path, model("dim_products", {"product_id": None}, holds="reference", privacy=TERMS))
    assert not table.is_personal
    assert (table.subject_key, table.purpose, table.legal_basis, table.retention) == (None, None, None, None)


def test_sources_are_agoras_and_belong_to_the_domain_of_their_schema_or_to_all(tmp_path: Path) -> None:
    tables = read(
        tmp_path,
        node("source", "raw_ecommerce", "events", PERSON, holds="personal", privacy=TERMS),
        node("source", "ml_proximity", "hotspots", {"hotspot_id": None}, holds="aggregates"),
        node("source", "audit", "loads", {"load_id": None}, holds="technical"),
        node("source", "audit", "stale_users", PERSON, holds="personal", privacy={**TERMS, "domain": "ecommerce"}),
    )
    assert {str(table): (table.domain, table.made_by) for table in tables} == {
        "audit.loads": (None, "agora"),
        "audit.stale_users": ("ecommerce", "agora"),
        "ml_proximity.hotspots": ("proximity", "agora"),
        "raw_ecommerce.events": ("ecommerce", "agora"),
    }


def test_seeds_and_snapshots_count_and_tests_and_ephemeral_models_do_not(tmp_path: Path) -> None:
    ephemeral = model("in_between")
    ephemeral["config"]["materialized"] = "ephemeral"
    seed = node("seed", "staging", "names", {"name": None}, holds="reference")
    seed["fqn"] = ["agora", "ecommerce", "names"]
    snapshot = node("snapshot", "staging", "users_then", PERSON, holds="personal", privacy=TERMS)
    tables = read(tmp_path, ephemeral, seed, snapshot, {"resource_type": "test", "config": {}})
    assert [(str(table), table.domain) for table in tables] == [
        ("staging.names", "ecommerce"),
        ("staging.users_then", "ecommerce"),
    ]


def test_every_table_that_nobody_classified_is_named_in_one_sentence(tmp_path: Path) -> None:
    said = refused(
        tmp_path,
        model("dim_users", privacy=TERMS),
        node("source", "audit", "notes", {"note": None}),
        model("dim_products", {"product_id": None}, holds="reference"),
    )
    assert said == (
        "Not every table is classified (docs/rgpd.md): audit.notes does not say what it holds (meta.holds); "
        "ecommerce.dim_users does not say what it holds (meta.holds)."
    )


@pytest.mark.parametrize(
    "term", ["data_subjects", "data_categories", "purpose", "legal_basis", "retention", "subject_key"]
)
@pytest.mark.parametrize("nothing", [None, ""])
def test_a_personal_table_lacks_no_term(tmp_path: Path, term: str, nothing: str | None) -> None:
    said = refused(tmp_path, model(holds="personal", privacy={**TERMS, term: nothing}))
    assert "ecommerce.dim_users" in said
    assert term in said
    assert "lacks" in said


def test_a_column_that_leads_to_a_person_is_in_a_personal_table_only(tmp_path: Path) -> None:
    said = refused(tmp_path, model("loads", {"load_id": None, "session": "session_id"}, holds="technical"))
    assert "ecommerce.loads.session leads to a person" in said
    assert "claims to hold no personal data (technical)" in said


def test_a_subject_key_without_a_tag_does_not_hide_in_a_table_of_aggregates(tmp_path: Path) -> None:
    said = refused(
        tmp_path,
        model(holds="personal", privacy=TERMS),
        model("totals", {"user_id": None, "total": None}, holds="aggregates"),
    )
    assert "ecommerce.totals.user_id leads to a person" in said
    assert "dim_users" not in said


@pytest.mark.parametrize(
    ("columns", "meta", "expected"),
    [
        (PERSON, {"holds": "secrets"}, "ecommerce.dim_users holds 'secrets'"),
        ({}, {"holds": "technical"}, "ecommerce.dim_users lists no columns"),
        ({"user_id": "nickname"}, {"holds": "personal", "privacy": TERMS}, "user_id is tagged 'nickname'"),
        ({"id": "pseudonym"}, {"holds": "personal", "privacy": TERMS}, "has no column user_id, its subject_key"),
        ({"user_id": None}, {"holds": "personal", "privacy": TERMS}, "user_id is a subject_key without a tag"),
    ],
)
def test_tags_that_say_nothing_or_contradict_each_other_are_named(
    tmp_path: Path, columns: dict[str, str | None], meta: dict[str, Any], expected: str
) -> None:
    assert expected in refused(tmp_path, model(columns=columns, **meta))


def test_only_what_is_encrypted_may_hide_its_subject(tmp_path: Path) -> None:
    terms = {**TERMS, "subject_key": None}
    (table,) = read(
        tmp_path, node("source", "quarantine", "rows", {"payload": "encrypted"}, holds="personal", privacy=terms)
    )
    assert (table.subject_key, table.domain) == (None, None)
