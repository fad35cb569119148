"""From which run the next one may go on: from the last, if it failed and nothing has changed. Without a warehouse."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from orchestration import project, resume
from warehouse.errors import UserError

FAILURE, SUCCESS, CANCELED = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED
STARTED = dg.DagsterRunStatus.STARTED
NOTED = {resume.LANDED: "landed as now", resume.BUILT: "built as now"}


@pytest.fixture(autouse=True)
def as_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the warehouse says of itself."""
    monkeypatch.setattr(resume, "landed", lambda domain: "landed as now")
    monkeypatch.setattr(resume, "built", lambda domain: "built as now")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


@dg.op(config_schema=dg.Permissive())
def ecommerce_models() -> None:
    pass


@dg.job
def ecommerce() -> None:
    ecommerce_models()


def add_run(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, **facts: Any) -> dg.DagsterRun:
    return instance.create_run_for_job(ecommerce, status=status, **({"tags": NOTED} | facts))


def going_on(instance: dg.DagsterInstance) -> str | None:
    run = resume.run_to_go_on_from(instance, "ecommerce")
    return run.run_id if run else None


def configured(**settings: object) -> dict[str, object]:
    return {"ops": {"ecommerce_models": {"config": settings}}}


@pytest.mark.parametrize("status", [FAILURE, CANCELED])
@pytest.mark.parametrize("config", [{}, configured(full_refresh=False), configured(full_refresh=True)])
def test_it_goes_on_from_the_last_run_if_that_failed(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus, config: dict[str, object]
) -> None:
    assert going_on(instance) is None
    add_run(instance, FAILURE)
    last = add_run(instance, status, run_config=config)
    assert going_on(instance) == last.run_id
    add_run(instance, SUCCESS)
    assert going_on(instance) is None


@pytest.mark.parametrize(
    "facts",
    [
        {"tags": {}},
        {"tags": NOTED | {resume.LANDED: "another file"}},
        {"tags": NOTED | {resume.BUILT: "other tables"}},
        {"tags": {resume.LANDED: "landed as now"}},
        {"tags": {resume.BUILT: "built as now"}},
        {"run_config": configured(seed=7)},
        {"op_selection": ["ecommerce_models"], "resolved_op_selection": {"ecommerce_models"}},
        # went on from another already, and failed again: its cause may be in what was kept
        {"parent_run_id": "2f3a", "root_run_id": "2f3a"},
    ],
)
def test_it_begins_at_the_beginning_if_anything_is_not_as_it_was(
    instance: dg.DagsterInstance, facts: dict[str, Any]
) -> None:
    if "parent_run_id" in facts:
        parent = add_run(instance, FAILURE)
        facts = {"parent_run_id": parent.run_id, "root_run_id": parent.run_id}
    add_run(instance, FAILURE, **facts)
    assert going_on(instance) is None


def test_it_begins_at_the_beginning_while_another_is_going_on(instance: dg.DagsterInstance) -> None:
    add_run(instance, FAILURE)
    add_run(instance, STARTED)
    assert going_on(instance) is None


@pytest.mark.parametrize("changed", ["landed", "built"])
def test_what_goes_on_sees_again_once_nobody_else_builds_that_all_still_stands(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    failed = add_run(instance, FAILURE)
    tags = resume.tags_to_go_on(failed)
    family = {"tags": tags, "root_run_id": failed.run_id}
    goes_on = add_run(instance, STARTED, parent_run_id=failed.run_id, **family)
    by_hand = add_run(instance, STARTED, parent_run_id=goes_on.run_id, **family)
    resume.refuse_if_changed_meanwhile(goes_on, "ecommerce")
    monkeypatch.setattr(resume, changed, lambda domain: "by another")
    for run in (None, by_hand, add_run(instance, STARTED)):
        resume.refuse_if_changed_meanwhile(run, "ecommerce")
    with pytest.raises(UserError, match="something has changed"):
        resume.refuse_if_changed_meanwhile(goes_on, "ecommerce")


def test_another_target_has_tables_of_its_own(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    add_run(instance, FAILURE)
    monkeypatch.setenv("DBT_TARGET", "dev")
    assert going_on(instance) is None


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("dbt_project/models/marts/one.sql", True),
        ("dbt_project/macros/one.sql", True),
        ("seeds/one.csv", True),
        ("ml/ecommerce/one.py", True),
        ("warehouse/sql/one.sql", True),
        ("uv.lock", True),
        ("docs/one.md", False),
        ("dbt_project/target/one.sql", False),
    ],
)
def test_what_computes_is_known_again_by_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, counts: bool
) -> None:
    monkeypatch.setattr(project, "CHECKOUT", tmp_path)
    for folder in ("dbt_project", "profiles", "seeds"):
        monkeypatch.setattr(project, folder.upper(), tmp_path / folder)
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("one")
    before = project.code_fingerprint()
    assert project.code_fingerprint() == before
    file.write_text("two")
    assert (project.code_fingerprint() != before) is counts
