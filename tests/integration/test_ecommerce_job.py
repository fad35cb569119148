"""The shop's job from end to end, by the command line, against truths from outside: the simulator's manifest, the
features computed once more in pandas, hand arithmetic, and a second warehouse that took the same files in other order.

One warehouse lives through all of it in two stages (the fixtures `first` and `final`), while the second one is built
beside it. The tests of a stage look at it before the next stage begins: keep their order.
"""

import csv
import gzip
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from support import (
    CHECKOUT,
    KEY,
    agora,
    agora_sql,
    finish,
    independent_features,
    one,
    rows_of,
    start,
    wait_for_a_waiter,
    write_events,
)

from warehouse.connections import connect
from warehouse.frames import read_frame

pytestmark = pytest.mark.once

SEED, USERS, EVENTS, MONTHS = 604118, 400, 8000, 2
FIVE_SEGMENTS = {"Top Spender", "Loyal Customer", "Heavy Cart User", "Window Shopper", "Occasional Spender"}
MARTS = {
    "category_sales",
    "customer_segments",
    "dim_products",
    "dim_segments",
    "dim_users",
    "fct_purchases",
    "segment_profiles",
}
NEWCOMER = "999999999"
LATE_SESSIONS = ("11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222")

Fields: TypeAlias = list[str]


@dataclass(frozen=True)
class Shop:
    """The simulated months, and the files that come late; each in a folder of its own.

    `taking_over` comes before October in the order of names, and so takes a purchase over; `late` comes after it,
    repeats what is known and adds a purchase and a new person; `changed` is its successor of the same name.
    """

    folder: Path
    manifest: dict[str, Any]
    independent: ModuleType

    @property
    def october(self) -> Path:
        return self.folder / "october" / "2019-Oct.csv.gz"

    @property
    def november(self) -> Path:
        return self.folder / "november" / "2019-Nov.csv.gz"

    @property
    def taking_over(self) -> Path:
        return self.folder / "taking_over" / "2019-Oct.a.csv.gz"

    @property
    def late(self) -> Path:
        return self.folder / "late" / f"2019-Oct-{self.day[-2:]}.csv.gz"

    @property
    def changed(self) -> Path:
        return self.folder / "changed" / self.late.name

    @cached_property
    def bought(self) -> Fields:
        """A clean purchase of October, and the only line with its key."""
        return next(line for line in self._clean_lines if line[1] == "purchase")

    @property
    def day(self) -> str:
        return self.bought[0][:10]

    @cached_property
    def seen_that_day(self) -> list[Fields]:
        return [line for line in self._clean_lines if line[1] == "view" and line[0].startswith(self.day)]

    @cached_property
    def _clean_lines(self) -> list[Fields]:
        with gzip.open(self.october, "rt", errors="replace", newline="") as text:
            lines = [line for line in list(csv.reader(text))[1:] if len(line) == 9]
        counts = Counter((*line[:3], line[7]) for line in lines)
        clean = self.independent.clean_events(self.independent.read_events(self.october.parent))
        keys = set(zip(clean["event_at"].dt.strftime("%Y-%m-%d %H:%M"), clean["event_type"], clean["product_id"],
                       clean["raw_user_id"], strict=True))  # fmt: skip
        return [
            line
            for line in lines
            if counts[(*line[:3], line[7])] == 1 and (line[0][:16], line[1], line[2], line[7]) in keys
        ]

    def landed(self, *files: Path) -> pd.DataFrame:
        """What the door lets in of these files, in the order in which the first wins."""
        return pd.concat([self.independent.read_events(file.parent) for file in files], ignore_index=True)

    def features(self, *files: Path) -> pd.DataFrame:
        landed = self.landed(*files)
        as_of = landed["event_time"].max().floor("min")
        return self.independent.user_features(self.independent.clean_events(landed), as_of)


def line(like: Fields, **changes: object) -> Fields:
    names = ("event_time", "event_type", "product_id", "category_id", "category_code", "brand", "price", "user_id",
             "user_session")  # fmt: skip
    return [str(changes.get(name, value)) for name, value in zip(names, like, strict=True)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("AGORA_KEY_ECOMMERCE", KEY)
        size = ("--users", USERS, "--events", EVENTS, "--months", MONTHS)
        agora("simulate", "ecommerce", "--out", folder, "--seed", SEED, *size)
        shop = Shop(folder, json.loads((folder / "manifest.json").read_text()), independent_features())
        for file in (shop.october, shop.november):
            file.parent.mkdir()
            (folder / file.name).rename(file)

        bought, seen = shop.bought, shop.seen_that_day
        write_events(shop.taking_over, [line(bought, price=round(float(bought[6]) + 100, 2))])
        new_purchase = line(bought, event_time=f"{shop.day} 23:59:58 UTC", user_session=LATE_SESSIONS[0])
        newcomer = line(bought, user_id=NEWCOMER, user_session=LATE_SESSIONS[1])
        nobody = line(bought, user_id="", event_time=f"{shop.day} 12:50:00 UTC")
        write_events(
            shop.late,
            [
                line(bought, price="1.00"),
                line(seen[0], price="2.00"),
                line(seen[1], price="3.00"),
                line(new_purchase, price="250.00"),
                line(new_purchase, price="251.00"),
                line(newcomer, event_time=f"{shop.day} 12:00:00 UTC", event_type="view", price="10.10"),
                line(newcomer, event_time=f"{shop.day} 12:45:00 UTC", price="10.10"),
                line(newcomer, event_time=f"{shop.day} 12:46:00 UTC", event_type="cart", price="-10.10"),
                nobody,
            ],
        )
        write_events(
            shop.changed,
            [
                line(bought, price="1.00"),
                line(new_purchase, price="300.00"),
                line(newcomer, event_time=f"{shop.day} 12:00:00 UTC", event_type="view", price="10.10"),
                nobody,
            ],
        )
        yield shop


# --- the second warehouse ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Other:
    """`agora checksum` of the second warehouse: of all final files, landed in another order and built once; after the
    late ones were undone; and after everything was rebuilt when no raw row was left."""

    final: str
    after_undo: str
    after_purge: str


@pytest.fixture(scope="module")
def other(shop: Shop, other_home: Path) -> Iterator[Future[Other]]:
    with ThreadPoolExecutor(1) as executor:
        yield executor.submit(build_other, shop, other_home)


def build_other(shop: Shop, home: Path) -> Other:
    for file in (shop.changed, shop.taking_over, shop.november, shop.october):
        # the raw rows of November will be past their time first
        landed_at = "2026-01-01T00:00:00+00:00" if file == shop.november else "2026-03-01T00:00:00+00:00"
        agora("load", "ecommerce.events", file, home=home, AGORA_NOW=landed_at)
    load_id = {
        row["file_name"]: row["load_id"] for row in agora_sql("select file_name, load_id from audit.loads", home=home)
    }
    agora("run", "ecommerce", home=home)
    final = agora("checksum", "ecommerce", home=home)

    agora("retention", "purge", "--as-of", "2026-05-01", home=home)
    still_in_raw = agora_sql("select count(distinct _load_id) as load_count from raw_ecommerce.events", home=home)
    assert still_in_raw == [{"load_count": "3"}]
    for file in (shop.changed, shop.taking_over):
        agora("undo", load_id[file.name], home=home)
    agora("run", "ecommerce", home=home)
    after_undo = agora("checksum", "ecommerce", home=home)

    agora("retention", "purge", "--as-of", "2026-07-01", home=home)
    assert agora_sql("select 1 as one from raw_ecommerce.events limit 1", home=home) == []
    agora("dbt", "build", "--full-refresh", "--exclude-resource-type", "unit_test", home=home)
    return Other(final, after_undo, agora("checksum", "ecommerce", home=home))


# --- stage 1: two runs at once on a new warehouse ---------------------------------------------------------------


@dataclass(frozen=True)
class First:
    """What was said and seen when October was loaded, November and a bad file lay in the drop folder, and two runs
    started at once: `checksums` after the one and after the other."""

    said_when_empty: str
    said: list[str]
    checksums: list[str]


@pytest.fixture(scope="module")
def first(warehouse: Path, shop: Shop, other: Future[Other]) -> First:
    said_when_empty = agora("run", "ecommerce")
    agora("load", "ecommerce.events", shop.october)
    drop = warehouse / "drop" / "ecommerce"
    (drop / shop.november.name).write_bytes(shop.november.read_bytes())
    (drop / "2019-Dec.csv").write_text("time;type;product\n1;2;3\n")

    running = [start("run", "ecommerce"), start("run", "ecommerce")]
    while all(run.poll() is None for run in running):
        time.sleep(0.05)
    checksums = [agora("checksum", "ecommerce")]
    said = [finish(run) for run in running]
    checksums.append(agora("checksum", "ecommerce"))
    (drop / "2019-Dec.csv").unlink()
    return First(said_when_empty, said, checksums)


@pytest.fixture(scope="module")
def user_ids(shop: Shop, first: First) -> dict[str, int]:
    """Pseudonym by delivered id, as a business would ask for it."""
    raw_ids = [*shop.manifest["users"], NEWCOMER]
    rows = list(csv.DictReader(agora("pseudonym", "ecommerce", stdin="\n".join(raw_ids)).splitlines()))
    assert [row["raw_id"] for row in rows] == raw_ids
    return {row["raw_id"]: int(row["user_id"]) for row in rows}


def test_a_run_of_nothing_says_what_to_do(first: First) -> None:
    assert first.said_when_empty == (
        "Nothing of ecommerce has been landed yet: agora load ecommerce.events PATH comes first.\n"
    )


def test_rows_read_are_landed_or_quarantined_for_the_reasons_planted(first: First, shop: Shop) -> None:
    for file in shop.manifest["files"]:
        planted = file["planted"]
        (read, landed, quarantined, suppressed), = rows_of(
            "select rows_read, rows_landed, rows_quarantined, rows_suppressed from audit.loads"
            " where file_name = %s and status = 'loaded'",
            file["name"],
        )  # fmt: skip
        assert read == file["rows_written"]
        assert read == landed + quarantined + suppressed
    planted = shop.manifest["expected"]["planted"]
    assert all(planted.values()), "the seed plants every kind of dirt"
    reasons: Counter[str] = Counter(dict(rows_of("select error_code, count(*) from quarantine.rows group by 1")))
    # 1e9 in place of a number is one kind of text
    reasons["not_a_number"] += reasons.pop("scientific_notation", 0)
    assert reasons == {
        "wrong_field_count": planted["cut_short"] + planted["extra_field"],
        "not_a_number": planted["text_for_number"],
        "invalid_uuid": planted["invalid_uuid"],
        "invalid_utf8": planted["invalid_utf8"],
        "invalid_timestamp": planted["impossible_date"],
        "empty_user_id": planted["null_user"],
        "empty_product_id": planted["null_product"],
        "empty_user_session": planted["null_session"],
        "outside_period": planted["foreign_date"],
    }


def test_landed_rows_are_clean_rejected_or_duplicates_as_planted(first: First, shop: Shop) -> None:
    expected = shop.manifest["expected"]
    assert dict(rows_of("select rejection_reason, count(*) from staging.rejected_ecommerce__events group by 1")) == {
        "negative_price": expected["planted"]["negative_price"],
        "no_category": expected["planted"]["missing_category"],
        "purchase_at_price_zero": expected["planted"]["zero_price_purchase"],
    }
    assert one("select count(*) from intermediate.int_ecommerce__duplicate_events") == expected["rows_duplicate"]
    assert one("select count(*) from intermediate.int_ecommerce__events") == expected["rows_valid"]


def test_clean_events_are_those_of_the_files_row_by_row(first: First, shop: Shop, user_ids: dict[str, int]) -> None:
    clean = shop.independent.clean_events(shop.landed(shop.october, shop.november))
    expected = Counter(
        zip(
            clean["event_at"], clean["raw_user_id"].map(user_ids), clean["product_id"].astype("int64"),
            clean["event_type"], (clean["price_eur"] * 100).round().astype("int64"), strict=True,
        )
    )  # fmt: skip
    found = Counter(
        rows_of(
            "select event_at, user_id, product_id, event_type, (price_eur * 100)::bigint"
            " from intermediate.int_ecommerce__events"
        )
    )
    assert found == expected


def test_features_of_users_equal_an_independent_computation(first: First, shop: Shop, user_ids: dict[str, int]) -> None:
    assert_users_are(shop.features(shop.october, shop.november), user_ids)
    users = published_users()
    never_bought = users[~users["has_purchased"].astype(bool)]
    assert 0 < len(never_bought) < len(users)
    assert never_bought[["recency_days", "frequency_per_month", "last_purchase_at"]].isna().all(axis=None)
    assert (never_bought["monetary_eur"] == 0).all()


def test_purchases_are_the_planted_ones(first: First, shop: Shop, user_ids: dict[str, int]) -> None:
    expected = shop.manifest["expected"]
    assert rows_of("select count(*), sum(price_eur)::float from ecommerce.fct_purchases", role="bi_reader") == [
        (expected["purchases_valid"], expected["revenue_eur"])
    ]
    by_user = dict(rows_of("select user_id, sum(price_eur)::float from ecommerce.fct_purchases group by 1"))
    planted = {user_ids[raw]: facts["spent_eur"] for raw, facts in shop.manifest["users"].items() if facts["spent_eur"]}
    assert by_user == pytest.approx(planted)


def test_products_whose_category_changed_are_flagged(first: First, shop: Shop) -> None:
    clean = shop.independent.clean_events(shop.landed(shop.october, shop.november))
    categories = clean.groupby(clean["product_id"].astype("int64"))["category"].nunique()
    flags = dict(rows_of("select product_id, has_category_changed from ecommerce.dim_products"))
    assert flags == (categories > 1).to_dict()
    assert any(flags.values())


def test_every_user_has_one_of_five_named_segments(first: First, shop: Shop) -> None:
    with (CHECKOUT / "seeds" / "ecommerce" / "ecommerce_segments.csv").open() as file:
        seed = {row["segment_name"]: int(row["segment_id"]) for row in csv.DictReader(file)}
    segments = rows_of("select user_id, segment_id, segment_name, proba, distance from ecommerce.customer_segments")
    assert len(segments) == len({user_id for user_id, *_ in segments}) == shop.manifest["expected"]["users_valid"]
    assert {name for _, _, name, _, _ in segments} == FIVE_SEGMENTS
    for _, segment_id, name, proba, distance in segments:
        assert seed[name] == segment_id
        assert 0 < proba <= 1
        assert distance >= 0
    # the nearest of five centroids is at least as probable as the average one
    assert min(proba for *_, proba, _ in segments) >= 0.2


def test_profiles_add_up_to_the_users_and_their_revenue(first: First) -> None:
    profiles = rows_of(
        "select segment_id, user_count, buyer_count, revenue_eur, revenue_share_ratio from ecommerce.segment_profiles"
    )
    by_hand = rows_of(
        "select segment_id, count(*), count(last_purchase_at), sum(monetary_eur),"
        " sum(monetary_eur)::float / (select sum(price_eur) from ecommerce.fct_purchases)::float"
        " from ecommerce.customer_segments inner join ecommerce.dim_users using (user_id) group by segment_id"
    )
    assert len(profiles) == 5
    assert {row[:4]: pytest.approx(row[4]) for row in by_hand} == {row[:4]: row[4] for row in profiles}


def test_the_fit_is_recorded(first: First, shop: Shop) -> None:
    runs = rows_of(
        "select run_id, model_version, seed, user_count, cluster_count, silhouette_ratio, cardinality(feature_names)"
        " from ml_ecommerce.customer_segments_runs order by created_at"
    )
    assert len(runs) == 2
    assert [run[1:5] for run in runs] == [
        (f"v1.0.{fit}", 42, shop.manifest["expected"]["users_valid"], 5) for fit in (1, 2)
    ]
    assert all(-1 <= silhouette <= 1 and features >= 31 for *_, silhouette, features in runs)
    assert {run_id for run_id, *_ in runs} == {record.run_id for record in dagster_runs()}
    assert rows_of("select distinct model_version from ecommerce.customer_segments") == [("v1.0.2",)]


def test_published_tables_have_keys_indexes_comments_and_grants(first: First) -> None:
    tables = {name for (name,) in rows_of("select tablename from pg_tables where schemaname = 'ecommerce'")}
    assert tables == MARTS
    keys = rows_of(
        "select conrelid::regclass::text, contype::text, confrelid::regclass::text from pg_constraint"
        " where connamespace = 'ecommerce'::regnamespace and contype in ('p', 'f')"
    )
    assert {table.removeprefix("ecommerce.") for table, kind, _ in keys if kind == "p"} == MARTS
    assert {
        (table.removeprefix("ecommerce."), target.removeprefix("ecommerce."))
        for table, kind, target in keys
        if kind == "f"
    } == {
        ("fct_purchases", "dim_users"),
        ("fct_purchases", "dim_products"),
        ("customer_segments", "dim_users"),
        ("customer_segments", "dim_segments"),
        ("segment_profiles", "dim_segments"),
    }
    indexes = [row[0] for row in rows_of("select indexdef from pg_indexes where tablename = 'customer_segments'")]
    assert any(index.endswith("(segment_id, updated_at)") and " ecommerce." in index for index in indexes)
    without_comment = rows_of(
        "select relname, attname from pg_class inner join pg_attribute on attrelid = pg_class.oid and attnum > 0"
        " where relnamespace = 'ecommerce'::regnamespace and relkind = 'r'"
        " and (col_description(pg_class.oid, attnum) is null or obj_description(pg_class.oid) not like 'One row%%')"
    )
    assert without_comment == []
    for table in MARTS:
        privileges = (
            "select bool_and(has_table_privilege('bi_reader', %s, privilege)) from unnest(%s::text[]) as privilege"
        )
        assert one(privileges, f"ecommerce.{table}", ["select", "references"])
        assert not one(privileges.replace("bool_and", "bool_or"), f"ecommerce.{table}", ["insert", "update", "delete"])


def test_the_catalog_enforces_what_contracts_say(first: First, warehouse: Path) -> None:
    manifest = json.loads((warehouse / "dbt" / "manifest.json").read_text())
    promised = {
        (node["schema"], node["alias"], column["name"], constraint["type"])
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model" and node["config"]["materialized"] in ("table", "incremental")
        for column in node["columns"].values()
        for constraint in column["constraints"]
    }
    held = rows_of(
        """
        select relnamespace::regnamespace::text, relname::text, attname::text,
               case contype
                   when 'n' then 'not_null'
                   when 'p' then 'primary_key'
                   when 'c' then 'check'
                   when 'f' then 'foreign_key'
               end
        from pg_constraint
        inner join pg_class on pg_class.oid = conrelid
        inner join pg_attribute on attrelid = conrelid and attnum = any(conkey)
        """
    )
    assert {kind for *_, kind in promised} == {"not_null", "primary_key", "check", "foreign_key"}
    assert promised <= set(held)


def test_readers_of_bi_read_marts_and_nothing_else(first: First) -> None:
    (row,) = agora_sql("select count(*) as users from ecommerce.customer_segments", role="bi_reader")
    assert int(row["users"]) > 0
    for table in (
        "raw_ecommerce.events",
        "staging.stg_ecommerce__events",
        "intermediate.int_ecommerce__events",
        "ml_ecommerce.customer_segments",
    ):
        said = agora("sql", "--role", "bi_reader", f"select * from {table}", expect=2)
        assert "permission denied for schema" in said
        assert "Traceback" not in said
    assert "read-only" in agora("sql", "--role", "bi_reader", "delete from ecommerce.dim_users", expect=2)


def test_the_second_run_found_nothing_to_do(first: First) -> None:
    one_run, both_runs = first.checksums
    assert one_run == both_runs
    assert len(one_run.splitlines()) == len(MARTS)
    assert one("select count(*) from audit.publications where domain = 'ecommerce'") == 2
    for table in ("events", "duplicate_events", "user_totals"):
        writers = one(f"select count(distinct xmin::text) from intermediate.int_ecommerce__{table}")
        assert writers == 1, f"{table} was written by one transaction, that of the first run"
    assert rows_of("select nspname from pg_namespace where nspname ~ '_next_'") == []
    for said in first.said:
        assert "Customer segments, by what they bring" in said
        assert "Traceback" not in said


def test_each_run_has_a_log_of_its_own(first: First, warehouse: Path) -> None:
    logs = list((warehouse / "logs").glob("run-ecommerce-*.log"))
    assert len(logs) == 2
    assert all("2019-Dec.csv, line 1" in log.read_text() for log in logs), "both were told of the file that was refused"


def dagster_runs() -> list[dg.DagsterRun]:
    """The runs that `make ui` shows, oldest first."""
    with dg.DagsterInstance.from_config(str(Path(os.environ["AGORA_HOME"]) / "dagster")) as instance:
        return [record.dagster_run for record in reversed(instance.get_run_records())]


def test_dagster_shows_the_runs_with_materialisations_and_checks(first: First, shop: Shop) -> None:
    runs = dagster_runs()
    assert [(run.job_name, run.status) for run in runs] == [("ecommerce", dg.DagsterRunStatus.SUCCESS)] * 2
    with dg.DagsterInstance.from_config(str(Path(os.environ["AGORA_HOME"]) / "dagster")) as instance:
        events = [event for event in instance.all_logs(runs[0].run_id) if event.dagster_event]
    materialisations = {
        event.dagster_event.asset_key.to_user_string(): event.dagster_event.step_materialization_data.materialization
        for event in events
        if event.dagster_event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION
    }
    assert {
        "raw_ecommerce/events",
        "intermediate/int_ecommerce__events",
        "intermediate/int_ecommerce__user_features",
        "ml_ecommerce/customer_segments",
        "ecommerce/dim_ecommerce__users",
        "ecommerce/ecommerce__customer_segments",
    } <= set(materialisations)
    row_counts = {
        key: materialisation.metadata["dagster/row_count"].value
        for key, materialisation in materialisations.items()
        if "dagster/row_count" in materialisation.metadata
    }
    expected = shop.manifest["expected"]
    assert row_counts["intermediate/int_ecommerce__events"] == expected["rows_valid"]
    assert row_counts["ml_ecommerce/customer_segments"] == expected["users_valid"]
    assert row_counts["raw_ecommerce/events"] == one("select sum(rows_landed)::int from audit.loads")

    checks = {
        event.dagster_event.asset_check_evaluation_data.check_name: event.dagster_event.asset_check_evaluation_data
        for event in events
        if event.dagster_event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION
    }
    assert {
        "is_published",
        "assert_every_landed_row_is_accounted_for",
        "assert_every_line_is_accounted_for",
        "assert_every_user_has_a_segment",
        "unique_dim_ecommerce__users_user_id",
    } <= set(checks)
    assert {name for name, check in checks.items() if not check.passed} == {"every_file_landed"}


def test_a_bad_file_in_the_drop_folder_fails_its_check_and_stops_nothing(first: First, shop: Shop) -> None:
    with dg.DagsterInstance.from_config(str(Path(os.environ["AGORA_HOME"]) / "dagster")) as instance:
        check = dg.AssetCheckKey(dg.AssetKey(["raw_ecommerce", "events"]), "every_file_landed")
        evaluations = instance.event_log_storage.get_asset_check_execution_history(check, limit=5)
    for evaluation in evaluations:
        event = evaluation.event.dagster_event
        (refused,) = event.asset_check_evaluation_data.metadata.values()
        assert not event.asset_check_evaluation_data.passed
        assert refused.value.startswith("2019-Dec.csv, line 1")
        assert "2019-Nov" not in refused.value
    assert len(evaluations) == 2
    assert rows_of("select file_name, status, count(*)::int from audit.loads group by 1, 2 order by 1, 2") == [
        ("2019-Dec.csv", "failed", 2),
        (shop.november.name, "loaded", 1),
        (shop.november.name, "skipped", 1),
        (shop.october.name, "loaded", 1),
    ]


# --- stage 2: late files, a run killed at work, a changed file ---------------------------------------------------


@dataclass(frozen=True)
class Final:
    """`agora checksum` of all final files; which transaction wrote which user and event, before the late files came and
    now; and what the loader said that met the remains of a killed run."""

    checksum: str
    users_before: dict[int, str]
    users: dict[int, str]
    events_before: dict[tuple[Any, ...], str]
    events: dict[tuple[Any, ...], str]
    said_by_loader: str


def writers_of_users() -> dict[int, str]:
    return dict(rows_of("select user_id, xmin::text || ctid::text from intermediate.int_ecommerce__user_totals"))


def writers_of_events() -> dict[tuple[Any, ...], str]:
    writers = (
        "select event_date, _load_id, _row_number, xmin::text || ctid::text from intermediate.int_ecommerce__events"
    )
    return {row[:3]: row[3] for row in rows_of(writers)}


@pytest.fixture(scope="module")
def final(first: First, shop: Shop) -> Final:
    users, events = writers_of_users(), writers_of_events()
    agora("load", "ecommerce.events", shop.late)
    with a_run_killed_at_work():
        # what replaces rows waits until dbt, which outlives the run that was killed, has ended
        load = start("load", "ecommerce.events", shop.changed)
        wait_for_a_waiter()
    said_by_loader = finish(load)
    agora("load", "ecommerce.events", shop.taking_over)
    agora("run", "ecommerce")
    checksum = agora("checksum", "ecommerce")
    return Final(checksum, users, writers_of_users(), events, writers_of_events(), said_by_loader)


@contextmanager
def a_run_killed_at_work() -> Iterator[None]:
    """Kill `agora run` when events are rewritten and totals are not; in the block, its dbt still waits for them."""
    built = (
        "select count(*) from audit.built_loads where model = 'intermediate.int_ecommerce__events'"
        " and load_id = (select max(load_id) from audit.loads where status = 'loaded')"
    )
    with connect() as connection:
        connection.execute("lock table intermediate.int_ecommerce__user_totals in access exclusive mode")
        run = start("run", "ecommerce")
        while one(built) == 0:
            assert run.poll() is None
            time.sleep(0.05)
        os.kill(run.pid, signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
        yield
    run.communicate()
    assert one("select count(*) from audit.publications where domain = 'ecommerce'") == 2, "readers saw nothing of it"


def test_what_is_published_is_what_the_files_say(final: Final, shop: Shop, user_ids: dict[str, int]) -> None:
    assert_users_are(shop.features(shop.taking_over, shop.october, shop.changed, shop.november), user_ids)
    expected = shop.manifest["expected"]
    # 100 more for the purchase taken over, 300 for the buyer's new one; the newcomer has not bought after all
    assert one("select sum(price_eur)::float from ecommerce.fct_purchases") == pytest.approx(
        expected["revenue_eur"] + 400
    )
    assert one("select count(*) from ecommerce.fct_purchases") == expected["purchases_valid"] + 1
    assert one("select count(*) from ecommerce.customer_segments") == expected["users_valid"] + 1
    # October's purchase that was taken over, and its repetition
    assert one("select count(*) from intermediate.int_ecommerce__duplicate_events") == expected["rows_duplicate"] + 2
    newcomer = "select has_purchased, recency_days, frequency_per_month from ecommerce.dim_users where user_id = %s"
    assert rows_of(newcomer, user_ids[NEWCOMER]) == [(False, None, None)]


def test_a_changed_file_takes_the_place_of_its_predecessor_once_builds_are_over(final: Final, shop: Shop) -> None:
    assert "waiting for the run of ecommerce to end" in final.said_by_loader
    assert "replaces load" in final.said_by_loader
    statuses = rows_of("select status from audit.loads where file_name = %s order by load_id", shop.late.name)
    assert statuses == [("superseded",), ("loaded",)]


def test_users_and_days_that_a_late_file_does_not_touch_are_not_recomputed(
    final: Final, shop: Shop, user_ids: dict[str, int]
) -> None:
    landed = shop.landed(shop.october, shop.november)
    that_day = landed[landed["event_time"].dt.strftime("%Y-%m-%d") == shop.day]
    there_that_day = {user_ids[raw_id] for raw_id in that_day["raw_user_id"]}
    touched = {user for user, writer in final.users.items() if final.users_before.get(user) != writer}
    assert {user_ids[shop.bought[7]], user_ids[NEWCOMER]} <= touched
    # nor are those of that day whose events stay as they were
    assert touched <= {user_ids[row[7]] for row in (shop.bought, *shop.seen_that_day[:2])} | {user_ids[NEWCOMER]}
    assert there_that_day - touched

    rewritten = {event for event, writer in final.events.items() if final.events_before.get(event) != writer}
    assert {str(day) for day, _, _ in rewritten} == {shop.day}
    assert len(final.events) - len(rewritten) > 0.9 * EVENTS


def test_another_order_of_files_built_at_once_and_unharmed_gives_the_same(final: Final, other: Future[Other]) -> None:
    assert final.checksum == other.result().final


def test_undoing_loads_gives_back_what_was(first: First, other: Future[Other]) -> None:
    assert other.result().after_undo == first.checksums[0]
    assert other.result().after_undo != other.result().final


def test_a_full_refresh_without_any_raw_rows_changes_nothing(first: First, other: Future[Other]) -> None:
    assert other.result().after_purge == first.checksums[0]


# --- comparing --------------------------------------------------------------------------------------------------


def published_users() -> pd.DataFrame:
    with connect("bi_reader") as connection:
        return read_frame(connection, "select * from ecommerce.dim_users").set_index("user_id").sort_index()


def assert_users_are(expected: pd.DataFrame, user_ids: dict[str, int]) -> None:
    """See that ecommerce.dim_users says what `expected` (by delivered id) says, column by column, nulls included."""
    found = published_users()
    expected = expected.set_index(expected.index.map(user_ids)).sort_index()
    assert list(found.index) == list(expected.index)
    assert set(found.columns) - {"has_purchased"} == set(expected.columns)
    assert (found["has_purchased"].astype(bool) == expected["last_purchase_at"].notna()).all()
    for name in expected.columns:
        ours, theirs = found[name], expected[name]
        assert (ours.isna() == theirs.isna()).all(), f"{name}: null for others"
        ours, theirs = ours.dropna(), theirs.dropna()
        if name.endswith("_at"):
            assert (ours == theirs).all(), name
        else:
            # prices are decimal here and binary there; deviations are kept to six digits
            tolerance = 1e-6 if name == "price_stddev_eur" else 1e-9
            np.testing.assert_allclose(
                ours.astype(float), theirs.astype(float), rtol=1e-9, atol=tolerance, err_msg=name
            )
