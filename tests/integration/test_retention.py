"""Retention with a moved clock: what goes when, what stays, and that nothing counted changes when raw goes.

One warehouse is taken through two and a half years: keep the order of the tests.
"""

import gzip
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from support import KEY, agora, agora_sql, execute, one, rows_of, write_events

from governance import retention
from governance.erasure import erase
from governance.retention import Purge
from warehouse.connections import connect

pytestmark = pytest.mark.once

SEED, USERS, EVENTS = 88123, 500, 9000
LANDED = "2030-01-10T12:00:00+00:00"
LATER = "2030-06-10T12:00:00+00:00"
MODELS = (
    "staging.rejected_ecommerce__events",
    "intermediate.int_ecommerce__events",
    "intermediate.int_ecommerce__duplicate_events",
)
LATE_SESSION = "33333333-3333-4333-8333-333333333333"


@dataclass(frozen=True)
class Kept:
    """The marts of two months, and of the second alone, which is what is left when the first is past its time."""

    folder: Path
    of_november: str


@pytest.fixture(scope="module")
def kept(warehouse: Path, other_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    folder = tmp_path_factory.mktemp("retention")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("AGORA_KEY_ECOMMERCE", KEY)
        size = ("--users", USERS, "--events", EVENTS, "--months", 2)
        agora("simulate", "ecommerce", "--out", folder, "--seed", SEED, *size)
        agora("load", "ecommerce.events", folder / "2019-Nov.csv.gz", home=other_home)
        agora("run", "ecommerce", home=other_home)
        person = next(iter(json.loads((folder / "manifest.json").read_text())["users"]))
        agora("rgpd", "erase", "ecommerce", home=other_home, stdin=person)
        of_november = agora("checksum", "ecommerce", home=other_home)
        agora("load", "ecommerce.events", folder / "2019-Oct.csv.gz", AGORA_NOW=LANDED)
        agora("run", "ecommerce", AGORA_NOW=LANDED)
        agora("load", "ecommerce.events", folder / "2019-Nov.csv.gz", AGORA_NOW=LATER)
        yield Kept(folder, of_november)


def counts() -> dict[str, int]:
    return {
        "raw": one("select count(*) from raw_ecommerce.events"),
        "users": one("select count(*) from raw_ecommerce.users"),
        "quarantine": one("select count(*) from quarantine.rows"),
        "clean": one("select count(*) from intermediate.int_ecommerce__events"),
        "predictions": one("select count(*) from ml_ecommerce.customer_segments"),
    }


def purge(day: str) -> Purge:
    """What the job does, without starting Dagster each time."""
    moment = datetime.fromisoformat(day).replace(tzinfo=UTC)
    return retention.purge("ecommerce", moment, models=MODELS, on_notice=print)


def test_before_its_time_nothing_goes(kept: Kept) -> None:
    before = counts()
    purge("2030-02-09")
    assert counts() == before


def test_quarantined_lines_go_after_30_days(kept: Kept) -> None:
    before = counts()
    purge("2030-02-10")
    assert counts() == before | {"quarantine": one("select sum(rows_quarantined) from audit.loads where load_id = 2")}
    # what is no longer there is still accounted for
    assert one("select rows_quarantined from audit.loads where load_id = 1") > 0


def test_raw_rows_stay_until_they_are_90_days_old(kept: Kept) -> None:
    before = counts()
    purge("2030-04-10")
    assert counts() == before


def test_raw_rows_that_no_run_has_taken_in_stay_and_are_named(kept: Kept, warehouse: Path) -> None:
    # what a download that was cut leaves behind, long ago and just now
    old, new = (warehouse / "spool" / name for name in ("old.part", "new.part"))
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    # what a model that was renamed leaves behind
    execute("insert into audit.built_loads values ('intermediate.int_ecommerce__renamed', 1, 1)")
    before = counts()
    assert "Nothing is removed" in agora("retention", "purge", "--dry-run", "--as-of", "2030-09-30")
    assert counts() == before
    said = agora("retention", "purge", "--as-of", "2030-09-30")
    assert "not built yet: ecommerce loads 2. Next: agora run ecommerce" in said
    assert counts() == before | {"raw": one("select rows_landed from audit.loads where load_id = 2"), "quarantine": 0}
    assert (old.exists(), new.exists()) == (False, True)
    assert rows_of("select load_id from audit.loads where raw_purged_at is not null") == [(1,)]


def test_nothing_counted_changes_when_raw_goes(kept: Kept) -> None:
    agora("run", "ecommerce", AGORA_NOW=LATER)
    before, checksum = counts(), agora("checksum", "ecommerce")
    purge("2030-09-30")
    assert counts() == before | {"raw": 0}
    agora("run", "ecommerce", "--full-refresh", AGORA_NOW=LATER)
    assert agora("checksum", "ecommerce") == checksum
    assert counts() == before | {"raw": 0}


def test_purging_again_finds_nothing(kept: Kept) -> None:
    before = counts()
    assert purge("2030-09-30") == Purge("ecommerce", 0, 0, 0, 0, 0, 0, (), needs_run=False)
    assert counts() == before


def test_the_same_bytes_do_not_come_back_after_their_purge(kept: Kept) -> None:
    said = agora("load", "ecommerce.events", kept.folder / "2019-Oct.csv.gz")
    assert "skipped" in said
    assert one("select count(*) from raw_ecommerce.events") == 0


def test_a_late_file_with_a_key_whose_raw_row_is_gone_is_a_repeat_of_it(kept: Kept) -> None:
    checksum = agora("checksum", "ecommerce")
    with gzip.open(kept.folder / "2019-Oct.csv.gz", "rt", errors="replace") as text:
        bought = next(line.rstrip("\n").split(",") for line in text if ",purchase," in line and line.count(",") == 8)
    # its name comes first and it would win the tie, were both in raw
    file = write_events(kept.folder / "late" / "2019-Oct.a.csv.gz", [[*bought[:6], "1.23", bought[7], LATE_SESSION]])
    agora("load", "ecommerce.events", file, AGORA_NOW=LATER)
    agora("run", "ecommerce", AGORA_NOW=LATER)
    assert agora("checksum", "ecommerce") == checksum
    ((load_id,),) = rows_of("select load_id from audit.loads where file_name = %s", file.name)
    repeats = "select count(*) from intermediate.int_ecommerce__duplicate_events where _load_id = %s"
    assert one(repeats, load_id) == 1
    agora("undo", load_id)


def test_a_person_is_erased_when_raw_is_gone_and_a_killed_erasure_is_completed(kept: Kept) -> None:
    raw_id = next(iter(json.loads((kept.folder / "manifest.json").read_text())["users"]))
    with connect("transformer") as connection:
        # a copy must not be counted as a second landing
        connection.execute("create table intermediate.copy as select * from intermediate.int_ecommerce__events")
    landed, suppressed = rows_of("select sum(rows_landed), sum(rows_suppressed) from audit.loads")[0]
    # what stands when the command was killed before its run
    (receipt,) = erase("ecommerce", [raw_id], on_notice=print).receipts
    held = receipt.rows_by_table
    count = sum(held.get(model, 0) for model in MODELS)
    assert held["intermediate.copy"] == held["intermediate.int_ecommerce__events"] > 0
    assert rows_of("select sum(rows_landed), sum(rows_suppressed) from audit.loads") == [
        (landed - count, suppressed + count + held.get("quarantine.rows", 0))
    ]
    said = agora("rgpd", "erase", "ecommerce", stdin="1234567890123", AGORA_NOW=LATER)
    assert "Nothing is held on this person" in said
    assert "building, testing and publishing" in said
    assert one(
        "select count(*) from audit.erasures where erased_at < (select max(published_at) from audit.publications)"
    )
    execute("drop table intermediate.copy")


def test_what_was_built_goes_after_24_months_and_marts_are_those_of_the_rest(kept: Kept) -> None:
    agora("retention", "purge", "--as-of", "2032-01-11", AGORA_NOW=LATER)
    assert one("select count(*) from intermediate.int_ecommerce__events where _load_id = 1") == 0
    assert one("select count(*) from staging.rejected_ecommerce__events where _load_id = 1") == 0
    assert agora("checksum", "ecommerce") == kept.of_november
    users = "select count(*) from {} where user_id not in (select user_id from intermediate.int_ecommerce__events)"
    assert one(users.format("ecommerce.dim_users")) == 0
    assert one(users.format("ml_ecommerce.customer_segments")) == 0
    held = "select user_id from {} except select user_id from intermediate.int_ecommerce__events"
    assert rows_of(held.format("raw_ecommerce.users")) == []


def test_in_the_end_nothing_about_anybody_is_left(kept: Kept) -> None:
    agora("retention", "purge", "--as-of", "2036-01-01")
    assert set(counts().values()) == {0}
    for table in ("dim_users", "fct_purchases", "customer_segments"):
        assert one(f"select count(*) from ecommerce.{table}") == 0
    assert one("select count(*) from audit.loads") >= 2


def test_the_schedule_and_the_command_run_the_same_job(kept: Kept, warehouse: Path) -> None:
    from orchestration.definitions import defs

    repository = defs().get_repository_def()
    schedule = repository.get_schedule_def("retention_nightly")
    assert (schedule.job_name, schedule.cron_schedule) == ("retention", "0 1 * * *")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("DAGSTER_HOME", str(warehouse / "dagster"))
        with dg.DagsterInstance.get() as instance:
            records = instance.get_run_records(dg.RunsFilter(job_name="retention"))
            assert len(records) >= 3
            assert {record.dagster_run.status.value for record in records} == {"SUCCESS"}
            outcome = repository.get_job("retention").execute_in_process(instance=instance)
    (event,) = (event for event in outcome.all_events if event.is_successful_output)
    report = event.step_output_data.metadata["ecommerce"].data
    assert report["raw_rows"] == 0
    assert json.dumps(report)


def test_a_day_that_is_none_is_told_in_one_sentence(warehouse: Path) -> None:
    said = agora("retention", "purge", "--as-of", "soon", expect=2)
    assert said == "agora: --as-of soon is no date: write for instance --as-of 2026-01-31.\n"
    assert "give a day of this century" in agora("retention", "purge", "--dry-run", "--as-of", "0001-01-01", expect=2)


def test_loads_say_what_was_purged(kept: Kept) -> None:
    rows = agora_sql("select load_id from audit.loads where purged_at is not null order by load_id")
    assert [row["load_id"] for row in rows][:2] == ["1", "2"]
