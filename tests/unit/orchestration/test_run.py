"""What a command tells of its run while it goes on. Without a warehouse."""

import threading
from collections import defaultdict

import dagster as dg
import pytest
from dagster._utils.error import SerializableErrorInfo

from orchestration import run

PATIENCE_SECONDS = 60
told: defaultdict[str, threading.Event] = defaultdict(threading.Event)


@dg.op
def land() -> int:
    assert told["land"].wait(PATIENCE_SECONDS)
    return 1


@dg.op
def build(landed: int) -> None:
    assert told["build"].wait(PATIENCE_SECONDS)


@dg.job
def ecommerce() -> None:
    build(land())


@pytest.fixture(autouse=True)
def nothing_told() -> None:
    told.clear()


def test_each_step_of_this_command_is_told_as_it_begins() -> None:
    heard = []

    def on_step(name: str) -> None:
        heard.append(name)
        told[name].set()

    with dg.instance_for_test() as instance:
        instance.create_run_for_job(ecommerce, tags={run.COMMAND: "theirs"})
        with run._steps_told(instance, "ours", on_step):
            assert ecommerce.execute_in_process(instance=instance, tags={run.COMMAND: "ours"}).success
    assert heard == ["land", "build"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_run_goes_on_when_nobody_reads_its_screen() -> None:
    def on_step(name: str) -> None:
        for each in ("land", "build"):
            told[each].set()
        raise BrokenPipeError

    with dg.instance_for_test() as instance, run._steps_told(instance, "ours", on_step):
        assert ecommerce.execute_in_process(instance=instance, tags={run.COMMAND: "ours"}).success
    assert told["land"].is_set()


@pytest.mark.parametrize(
    "said",
    [
        "could not extend file: No space left on device",
        "could not extend file: wrote only 4096 of 8192 bytes at block 458\n  HINT:  Check free disk space.",
    ],
)
def test_a_full_disk_is_told_in_a_sentence(said: str) -> None:
    error = SerializableErrorInfo(f"DagsterDbtCliRuntimeError: … Errors parsed from dbt logs:\n\n{said}", [], None)
    assert run._sentence(error) == "the disk of the database is full: make room and run again"
