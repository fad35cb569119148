"""The dbt project itself: targets ci and dev on their own schemas, what its manifest promises, its style.

One small warehouse with one landed file of three users, on which nothing was ever built before.
"""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from support import CHECKOUT, KEY, agora, execute, finish, rows_of, start, write_events

from orchestration.project import DBT_SETTINGS
from warehouse.connections import dbt_environment

pytestmark = pytest.mark.once

Node: TypeAlias = dict[str, Any]

PRODUCTION_SCHEMAS = ("raw_ecommerce", "ml_ecommerce", "staging", "intermediate", "ecommerce")
# how incremental models know what is new: their memory, not data (macros/incremental.sql)
MEMORY_OF_INCREMENTAL_MODELS = {f"source.agora.audit.{name}" for name in ("load_slices", "built_loads", "stale_users")}
SESSION = "72d76fde-8bb3-4e00-8c23-a032dfed738c"
THREE_USERS = [
    ("2019-10-15 10:00:00 UTC", "view", 1, 2053013555631882655, "kids.toys", "lego", "5.50", 101, SESSION),
    ("2019-10-15 10:01:00 UTC", "cart", 1, 2053013555631882655, "kids.toys", "lego", "5.50", 101, SESSION),
    ("2019-10-15 10:02:00 UTC", "purchase", 1, 2053013555631882655, "kids.toys", "lego", "5.50", 101, SESSION),
    ("2019-10-15 11:00:00 UTC", "view", 2, 2053013555631882656, "", "", "7.00", 102, SESSION),
    ("2019-10-15 11:00:00 UTC", "view", 2, 2053013555631882656, "", "", "7.00", 102, SESSION),
    ("2019-10-15 12:00:00 UTC", "view", 2, 2053013555631882656, "", "", "-7.00", 103, SESSION),
    ("2019-10-15 12:30:00 UTC", "view", 2, 2053013555631882656, "", "", "7.00", 103, SESSION),
]


@pytest.fixture(scope="module")
def landed(warehouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("AGORA_KEY_ECOMMERCE", KEY)
        monkeypatch.setenv("USER", "Jo.Do-e")
        agora(
            "load", "ecommerce.events", write_events(tmp_path_factory.mktemp("shop") / "2019-Oct-15.csv", THREE_USERS)
        )
        yield


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: tmp_path_factory.mktemp(name) for name in ("ci", "dev")}


@pytest.fixture(scope="module")
def built(landed: None, targets: dict[str, Path]) -> dict[str, str]:
    """What `agora dbt build` said on each target, both at once: they share nothing but what was landed."""
    before = production_tables()
    builds = {
        name: start("dbt", "build", "--target", name, DBT_TARGET_PATH=path, DBT_LOG_PATH=path)
        for name, path in targets.items()
    }
    said = {name: finish(build) for name, build in builds.items()}
    assert production_tables() == before
    return said


@pytest.fixture(scope="module")
def manifest(built: dict[str, str], targets: dict[str, Path]) -> Node:
    return json.loads((targets["ci"] / "manifest.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def models(manifest: Node) -> dict[str, Node]:
    return {node["name"]: node for node in manifest["nodes"].values() if node["resource_type"] == "model"}


def production_tables() -> list[tuple[Any, ...]]:
    """Every relation of the production schemas, by identity, and every schema that a publication would make."""
    return rows_of(
        "select nspname, relname, pg_class.oid::int, relfilenode::int from pg_namespace"
        " left join pg_class on relnamespace = pg_namespace.oid"
        " where nspname = any(%s) or nspname ~ '_next_' order by 1, 2",
        list(PRODUCTION_SCHEMAS),
    )


def relations(prefix: str) -> set[tuple[str, str]]:
    rows = rows_of(
        "select nspname, relname from pg_class inner join pg_namespace on relnamespace = pg_namespace.oid"
        " where relkind in ('r', 'v') and starts_with(nspname, %s)",
        prefix,
    )
    return {(schema.removeprefix(prefix), name) for schema, name in rows}


# --- targets ci and dev -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "prefix"), [("ci", "ci_"), ("dev", "dev_jo_do_e_")])
def test_a_build_beside_production_has_schemas_of_its_own(
    target: str, prefix: str, built: dict[str, str], manifest: Node, models: dict[str, Node]
) -> None:
    seeds = [node for node in manifest["nodes"].values() if node["resource_type"] == "seed"]
    expected = {(node["schema"].removeprefix("ci_"), node["alias"]) for node in [*models.values(), *seeds]}
    assert {("ecommerce", "dim_users"), ("intermediate", "int_ecommerce__events")} <= expected
    assert relations(prefix) == expected
    tests = [node for node in manifest["nodes"].values() if node["resource_type"] == "test"]
    total = len(models) + len(seeds) + len(tests) + len(manifest["unit_tests"]) + 2  # on-run-start, on-run-end
    assert f"Done. PASS={total} WARN=0 ERROR=0 SKIP=0 NO-OP=0 TOTAL={total}" in built[target]
    assert len(re.findall(r" PASS \w+::\w+", built[target])) == len(manifest["unit_tests"]) > 0
    assert rows_of(
        f"select count(*), count(last_purchase_at), sum(monetary_eur)::text from {prefix}ecommerce.dim_users"
    ) == [(3, 1, "5.50")]


def test_run_test_and_docs_behave_as_everywhere(
    built: dict[str, str], models: dict[str, Node], targets: dict[str, Path]
) -> None:
    before = production_tables()
    run = start("dbt", "run", "--target", "ci", DBT_TARGET_PATH=targets["ci"], DBT_LOG_PATH=targets["ci"])
    docs = start(
        "dbt", "docs", "generate", "--target", "dev", DBT_TARGET_PATH=targets["dev"], DBT_LOG_PATH=targets["dev"]
    )
    assert f"Done. PASS={len(models) + 2} WARN=0 ERROR=0" in finish(run)
    # one user has a segment, the others have none: a fault in production, a warning here
    execute(
        "insert into ci_ecommerce.customer_segments (user_id, segment_id, proba)"
        " select max(user_id), 2, 1 from ci_ecommerce.dim_users"
    )
    said = agora("dbt", "test", "--target", "ci", "--exclude-resource-type", "unit_test", DBT_TARGET_PATH=targets["ci"])
    assert "WARN=1 ERROR=0 SKIP=0" in said
    assert said.count("WARN 2 assert_every_user_has_a_segment") == 1
    finish(docs)
    assert production_tables() == before
    assert rows_of("select count(*) from ci_intermediate.int_ecommerce__events") == [(5,)]

    catalog = json.loads((targets["dev"] / "catalog.json").read_text())
    assert {node["metadata"]["name"] for node in catalog["nodes"].values()} >= {
        node["alias"] for node in models.values()
    }
    for unique_id, node in catalog["nodes"].items():
        if unique_id.startswith("model."):
            assert set(node["columns"]) == set(models[unique_id.removeprefix("model.agora.")]["columns"])


# --- what the manifest promises ---------------------------------------------------------------------------------


def test_every_model_and_column_is_described_and_says_its_grain(manifest: Node, models: dict[str, Node]) -> None:
    assert models
    for name, model in models.items():
        assert model["description"].startswith("One row"), name
        assert model["columns"], name
        assert [column for column, facts in model["columns"].items() if not facts["description"]] == [], name
        assert model["config"]["persist_docs"] == {"relation": True, "columns": True}, name
    for source in manifest["sources"].values():
        assert source["description"].startswith("One row"), source["name"]


def test_marts_have_enforced_contracts_and_tested_primary_keys(manifest: Node, models: dict[str, Node]) -> None:
    tests = [
        (node["test_metadata"]["name"], node["attached_node"], node["column_name"])
        for node in manifest["nodes"].values()
        if node["resource_type"] == "test" and node.get("test_metadata")
    ]
    marts = marts_of(models)
    assert {"dim_ecommerce__users", "fct_ecommerce__purchases", "ecommerce__customer_segments"} <= set(marts)
    for name, model in marts.items():
        assert model["config"]["materialized"] == "table", name
        assert model["contract"]["enforced"], name
        keys = [
            column
            for column, facts in model["columns"].items()
            if any(constraint["type"] == "primary_key" for constraint in facts["constraints"])
        ]
        assert len(keys) == 1, name
        for kind in ("unique", "not_null"):
            assert (kind, model["unique_id"], keys[0]) in tests, name
        for facts in model["columns"].values():
            for constraint in facts["constraints"]:
                assert not constraint["name"], f"{name}: a named constraint clashes with that of the next generation"


def test_only_staging_reads_sources(models: dict[str, Node]) -> None:
    for name, model in models.items():
        sources = {parent for parent in model["depends_on"]["nodes"] if parent.startswith("source.")}
        if model["fqn"][1] != "staging":
            assert sources <= MEMORY_OF_INCREMENTAL_MODELS, name
            assert "source(" not in model["raw_code"], name


def test_every_branch_has_a_unit_test_and_marts_have_neither(manifest: Node, models: dict[str, Node]) -> None:
    tested = {test["model"] for test in manifest["unit_tests"].values()}
    # the publication cannot see unit tests: macros/publish.sql
    assert not tested & set(marts_of(models))
    branching = {name for name, model in models.items() if re.search(r"\b(case|filter|where)\b", sql_of(model))}
    assert {"stg_ecommerce__events", "int_ecommerce__user_totals"} <= branching
    assert branching - tested == set()


def test_people_are_tagged(models: dict[str, Node]) -> None:
    for name, model in models.items():
        if "user_id" in model["columns"]:
            assert model["columns"]["user_id"]["config"]["meta"] == {"pii": "pseudonym"}, name


def marts_of(models: dict[str, Node]) -> dict[str, Node]:
    return {name: model for name, model in models.items() if model["fqn"][1] == "marts"}


def sql_of(model: Node) -> str:
    """The SQL without comments, and without Jinja: what is between `if is_incremental` and `endif` is no rule."""
    text = re.sub(r"{%-? *if is_incremental\(\).*?endif *-?%}", "", model["raw_code"], flags=re.DOTALL)
    return re.sub(r"{[{%#].*?[}%#]}|--[^\n]*", "", text, flags=re.DOTALL)


# --- style, and a run of too few --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_of_three(built: dict[str, str]) -> subprocess.Popen[str]:
    """`agora run` of what has landed, in production; it works while the linter does."""
    return start("run", "ecommerce", "--full-refresh")


def test_sqlfluff_has_nothing_to_say(built: dict[str, str], run_of_three: object, tmp_path: Path) -> None:
    # the tables of target ci exist: the incremental branches are linted too
    program = str(Path(sys.executable).parent / "sqlfluff")
    result = subprocess.run(
        [program, "lint", "dbt_project/models", "dbt_project/tests"],
        cwd=CHECKOUT,
        env=os.environ
        | DBT_SETTINGS
        | dbt_environment()
        | {"DBT_TARGET_PATH": str(tmp_path), "DBT_LOG_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "FAIL" not in result.stdout


def test_too_few_users_are_published_without_segments_and_said(
    run_of_three: subprocess.Popen[str], warehouse: Path
) -> None:
    said = finish(run_of_three)
    results = json.loads((warehouse / "dbt" / "ecommerce_models" / "run_results.json").read_text())
    assert results["args"]["full_refresh"] is True, "--full-refresh is passed on to dbt"
    assert "Traceback" not in said
    (sentence,) = [line for line in said.splitlines() if line.startswith("agora: ")]
    assert "is_fitted" in sentence
    assert "3 users cannot form 5 segments: load more events" in sentence
    assert rows_of("select count(*) from ecommerce.dim_users") == [(3,)]
    assert rows_of("select count(*) from ecommerce.customer_segments") == [(0,)]


def test_what_was_replayed_and_then_undone_is_taken_from_the_marts(
    run_of_three: subprocess.Popen[str], tmp_path: Path
) -> None:
    # a second load with a line in quarantine, which fits a rule of today only once it is made to
    more = [
        ("2019-10-16 10:00:00 UTC", "view", 1, 2053013555631882655, "kids.toys", "lego", "5.50", 104, SESSION),
        ("2019-10-16 10:01:00 UTC", "purchase", 1, 2053013555631882655, "", "", "no price", 105, SESSION),
    ]
    agora("load", "ecommerce.events", write_events(tmp_path / "2019-Oct-16.csv", more))
    agora(
        "dbt",
        "build",
        "--exclude",
        "source:ml_ecommerce+",
        "tag:marts_ecommerce",
        "--exclude-resource-type",
        "unit_test",
    )
    assert rows_of("select count(*) from intermediate.int_ecommerce__user_totals") == [(4,)]
    (load_id,) = rows_of("select load_id from audit.loads where file_name = '2019-Oct-16.csv'")[0]
    assert "0 rows landed, 1 stay" in agora("quarantine", "replay", load_id)
    agora("undo", load_id)
    (load_id,) = rows_of("select load_id from audit.loads where file_name = '2019-Oct-15.csv'")[0]
    agora("undo", load_id)
    # nothing stands any more: readers must see that, too
    agora("run", "ecommerce")
    for table in ("dim_users", "fct_purchases", "dim_products", "customer_segments"):
        assert rows_of(f"select count(*) from ecommerce.{table}") == [(0,)], table
    assert rows_of("select count(*) from intermediate.int_ecommerce__events") == [(0,)]


def test_duplicates_sessions_and_features_live_in_dbt_alone() -> None:
    grouping = {
        "groupby",
        "drop_duplicates",
        "duplicated",
        "pivot",
        "pivot_table",
        "resample",
        "nunique",
        "value_counts",
    }
    files = [file for package in ("ingestion", "orchestration") for file in (CHECKOUT / package).rglob("*.py")]
    assert len(files) > 20
    for file in files:
        names = {node.attr for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute)}
        assert not names & grouping, f"{file.relative_to(CHECKOUT)} groups rows in Python: {names & grouping}"
