"""The shop's Dagster graph, without a server: its steps and edges, and what makes it run by itself."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from bucket_server import BUCKET, bucket_server

from ingestion.source import source_named

STEPS = {
    "raw_ecommerce__events",
    "ecommerce_models",
    "ml_ecommerce__customer_segments",
    "ecommerce_marts",
    "ecommerce__ecommerce__customer_segments_is_published",
}
RAW = dg.AssetKey(["raw_ecommerce", "events"])
ML = dg.AssetKey(["ml_ecommerce", "customer_segments"])
FEATURES = dg.AssetKey(["intermediate", "int_ecommerce__user_features"])
SEGMENTS = dg.AssetKey(["ecommerce", "ecommerce__customer_segments"])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        home = tmp_path_factory.mktemp("home")
        monkeypatch.setenv("AGORA_HOME", str(home))
        yield home


@pytest.fixture(scope="module")
def repository(home: Path) -> dg.RepositoryDefinition:
    # imported here: the definitions are made of the dbt manifest, which lies in AGORA_HOME
    from orchestration.definitions import defs

    return defs().get_repository_def()


@pytest.fixture(scope="module")
def job(repository: dg.RepositoryDefinition) -> dg.JobDefinition:
    return repository.get_job("ecommerce")


@pytest.fixture(scope="module")
def manifest(repository: dg.RepositoryDefinition) -> dict[str, Any]:
    from orchestration.project import manifest

    return json.loads(manifest().read_text())  # type: ignore[no-any-return]


# --- the graph --------------------------------------------------------------------------------------------------


def test_the_job_has_these_steps_and_the_marts_are_one_of_them(job: dg.JobDefinition) -> None:
    assert {node.name for node in job.nodes} == STEPS
    assert job.executor_def.name == "in_process"


def test_steps_run_from_raw_through_dbt_and_ml_to_the_marts(job: dg.JobDefinition) -> None:
    needs = {
        invocation.name: {output.node for inputs in given.values() for output in inputs.get_node_dependencies()}
        for invocation, given in job.dependencies.items()
    }
    assert needs["raw_ecommerce__events"] == set()
    assert needs["ecommerce_models"] == {"raw_ecommerce__events"}
    assert needs["ml_ecommerce__customer_segments"] == {"ecommerce_models"}
    assert needs["ecommerce_marts"] == {"ecommerce_models", "ml_ecommerce__customer_segments"}
    assert needs["ecommerce__ecommerce__customer_segments_is_published"] == {"ecommerce_marts"}


def test_assets_are_connected_by_their_keys_alone(
    repository: dg.RepositoryDefinition, manifest: dict[str, Any]
) -> None:
    graph = repository.asset_graph
    assert {RAW, FEATURES} <= graph.get_ancestor_asset_keys(ML)
    assert {RAW, FEATURES, ML} <= graph.get_ancestor_asset_keys(SEGMENTS)
    marts = [
        node for node in manifest["nodes"].values() if node["resource_type"] == "model" and node["fqn"][1] == "marts"
    ]
    assert len(marts) >= 6
    for mart in marts:
        ancestors = graph.get_ancestor_asset_keys(dg.AssetKey(["ecommerce", mart["name"]]))
        # the names of the segments come from a seed, everything else from what was delivered
        assert RAW in ancestors or mart["name"] == "dim_ecommerce__segments", mart["name"]
    built = set(graph.materializable_asset_keys)
    models = {node["unique_id"] for node in manifest["nodes"].values() if node["resource_type"] in ("model", "seed")}
    assert len(built) == len(models) + 2  # raw and ml
    assert {graph.get(key).group_name for key in built} == {"ecommerce"}


def test_tests_of_dbt_are_asset_checks(repository: dg.RepositoryDefinition, manifest: dict[str, Any]) -> None:
    checks = {key.name: key.asset_key for key in repository.asset_graph.asset_check_keys}
    tests = {
        node["name"]
        for node in manifest["nodes"].values()
        # a test on a source belongs to whoever writes the source
        if node["resource_type"] == "test" and not node["name"].startswith("source_")
    }
    assert {"assert_every_landed_row_is_accounted_for", "unique_dim_ecommerce__users_user_id"} <= tests
    assert set(checks) == tests | {"every_file_landed", "is_fitted", "is_published"}
    assert checks["every_file_landed"] == RAW
    assert checks["is_fitted"] == ML
    assert checks["is_published"] == SEGMENTS
    assert checks["assert_every_user_has_a_segment"] == SEGMENTS


# --- what makes it run ------------------------------------------------------------------------------------------


def test_every_step_is_tried_three_times_again_from_five_minutes_on(job: dg.JobDefinition) -> None:
    policy = job.op_retry_policy
    assert policy
    assert (policy.max_retries, policy.delay, policy.backoff) == (3, 300, dg.Backoff.EXPONENTIAL)
    assert [policy.calculate_delay(attempt) for attempt in (1, 2, 3)] == [300, 900, 2100]


def test_it_runs_every_night_at_two(repository: dg.RepositoryDefinition) -> None:
    schedule = repository.get_schedule_def("ecommerce_nightly")
    assert schedule.job_name == "ecommerce"
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 2 * * *", "UTC")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING


def test_what_should_be_fresh_is_watched_by_the_limits_of_its_source(repository: dg.RepositoryDefinition) -> None:
    for key in (RAW, ML):
        policy = repository.asset_graph.get(key).freshness_policy
        assert isinstance(policy, dg.FreshnessPolicy)
        assert policy.warn_window.to_timedelta() == source_named("ecommerce.events").late_after
        assert policy.fail_window.to_timedelta() == source_named("ecommerce.events").stale_after


def test_what_people_are_told_is_looked_for_while_dagster_is_up(repository: dg.RepositoryDefinition) -> None:
    sensor = repository.get_sensor_def("watch")
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    assert not sensor.has_jobs
    with dg.instance_for_test() as instance:
        data = sensor.evaluate_tick(dg.build_sensor_context(instance=instance))
    assert not data.run_requests


class Ticks:
    """The sensor's ticks, one after the other, each with the cursor that the one before it left."""

    def __init__(self, sensor: dg.SensorDefinition) -> None:
        self.sensor = sensor
        self.cursor: str | None = None
        self.skipped = ""

    def next(self) -> list[str]:
        """The keys of the runs that a tick asks for."""
        context = dg.build_sensor_context(cursor=self.cursor)
        data = self.sensor.evaluate_tick(context)
        self.cursor = data.cursor
        self.skipped = data.skip_message or ""
        return [str(request.run_key) for request in data.run_requests or []]


@pytest.fixture
def ticks(repository: dg.RepositoryDefinition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ticks:
    monkeypatch.setenv("AGORA_HOME", str(tmp_path))
    sensor = repository.get_sensor_def("ecommerce_new_files")
    assert sensor.job_name == "ecommerce"
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    return Ticks(sensor)


def test_a_new_file_starts_one_run_once_it_lies_still(ticks: Ticks, tmp_path: Path) -> None:
    assert ticks.next() == []
    folder = tmp_path / "drop" / "ecommerce"
    growing = folder / "2019-Oct.csv"
    growing.write_text("half")
    assert ticks.next() == []
    growing.write_text("half and")
    assert ticks.next() == []
    growing.write_text("half and half")
    assert ticks.next() == []
    (first,) = ticks.next()
    assert [ticks.next(), ticks.next()] == [[], []]

    growing.write_text("changed, as it were")
    assert ticks.next() == []
    (second,) = ticks.next()
    assert second != first
    (folder / "2019-Nov.csv.gz").write_bytes(b"")
    assert ticks.next() == []
    (third,) = ticks.next()
    assert len({first, second, third}) == 3
    assert ticks.next() == []


def test_files_of_other_names_and_folders_start_nothing(ticks: Ticks, tmp_path: Path) -> None:
    folder = tmp_path / "drop" / "ecommerce"
    (folder / "2019-Oct.csv").mkdir(parents=True)
    (folder / "notes.txt").write_text("not ours")
    (folder / "2019-Oct.csv.part").write_text("not yet")
    assert [ticks.next(), ticks.next(), ticks.next()] == [[], [], []]


def test_a_bucket_is_watched_like_a_folder(ticks: Ticks, monkeypatch: pytest.MonkeyPatch) -> None:
    with bucket_server(monkeypatch) as bucket:
        monkeypatch.setenv("AGORA_DROP_ECOMMERCE", "s3://shop/logs")
        assert [ticks.next(), ticks.next()] == [[], []]
        bucket.put_object(Bucket=BUCKET, Key="logs/2019-Oct.csv", Body=b"new")
        bucket.put_object(Bucket=BUCKET, Key="logs/notes.txt", Body=b"not ours")
        assert ticks.next() == []
        (first,) = ticks.next()
        assert ticks.next() == []
        bucket.put_object(Bucket=BUCKET, Key="logs/2019-Oct.csv", Body=b"changed")
        assert ticks.next() == []
        (second,) = ticks.next()
        assert second != first
    # a bucket out of reach starts nothing, and nothing anew when it is back
    assert ticks.next() == []
    assert "the server cannot be reached" in ticks.skipped
    monkeypatch.setenv("AGORA_DROP_ECOMMERCE", "s3:///")
    assert ticks.next() == []
    assert "names a bucket" in ticks.skipped
