"""The shop's simulator against a slow, independent reading of its files; the oracle here shares no code with it."""

import csv
import dataclasses
import datetime
import gzip
import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ingestion.ecommerce.simulation import blocks, manifest
from ingestion.ecommerce.simulator import NO_DIRT, Dirt, Simulation, simulate

REAL_SAMPLE = Path(__file__).parents[4] / "../shared/data/rees46/2019-Oct.sample.csv"
HEADER = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"
MONTH_OF_FILE = {
    "2019-Oct.csv.gz": "2019-10",
    "2019-Nov.csv.gz": "2019-11",
    "2019-Dec.csv.gz": "2019-12",
    "2020-Jan.csv.gz": "2020-01",
    "2020-Feb.csv.gz": "2020-02",
    "2020-Mar.csv.gz": "2020-03",
    "2020-Apr.csv.gz": "2020-04",
}
TYPE_NAMES = {"Occasional Spender", "Window Shopper", "Loyal Customer", "Heavy Cart User", "Top Spender"}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
WHOLE_LINE = re.compile(
    r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC,(view|cart|remove_from_cart|remove|purchase),\d{7,8},\d{19},"
    rf"[a-z_]*(\.[a-z_]+)*,[^,\"]*,\d+\.\d\d,\d{{8,9}},{UUID.pattern}"
)


@dataclass
class Counted:
    """What a reader of the files finds, kind by kind, by requirements E3, E4 and E18."""

    kinds: Counter[str] = field(default_factory=Counter)
    valid_keys: set[tuple[str, str, str, str]] = field(default_factory=set)
    events_of_user: Counter[str] = field(default_factory=Counter)
    purchases_of_user: Counter[str] = field(default_factory=Counter)
    cents_of_user: Counter[str] = field(default_factory=Counter)
    category_ids_of_product: dict[str, set[str]] = field(default_factory=dict)
    short_removes: int = 0
    row_count: int = 0


def read_lines(path: Path) -> list[bytes]:
    content = gzip.decompress(path.read_bytes())
    assert content.endswith(b"\n")
    assert b"\0" not in content
    assert b'"' not in content
    assert b"\r" not in content
    lines = content.removesuffix(b"\n").split(b"\n")
    assert lines[0].decode() == HEADER
    return lines[1:]


def fault_of(line: bytes, year_and_month: str) -> str | None:
    """The first thing that makes a line unfit, or None."""
    try:
        fields = next(csv.reader([line.decode("utf-8")]))
    except UnicodeDecodeError:
        return "invalid_utf8"
    if len(fields) != 9:
        return "cut_short" if len(fields) < 9 else "extra_field"
    event_time, event_type, product, category, code, _, price, user, session = fields
    try:
        datetime.datetime.strptime(event_time, "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=datetime.UTC)
    except ValueError:
        return "impossible_date"
    is_removal = event_type in ("remove_from_cart", "remove")
    for name, text in (("null_user", user), ("null_product", product), ("null_session", session)):
        if not text:
            return name
    try:
        int(product), int(user), int(category or 0), float(price or ("0" if is_removal else "none"))
    except ValueError:
        return "text_for_number"
    if not UUID.fullmatch(session):
        return "invalid_uuid"
    if not event_time.startswith(year_and_month):
        return "foreign_date"
    if price.startswith("-"):
        return "negative_price"
    if event_type == "purchase" and float(price) == 0:
        return "zero_price_purchase"
    if not category.strip() and not code.strip():
        return "missing_category"
    return None


def count_files(paths: tuple[Path, ...]) -> Counted:
    counted = Counted()
    first_line_of_key: dict[tuple[str, str, str, str], bytes] = {}
    for path in paths:
        month = MONTH_OF_FILE[path.name]
        last_time = ""
        for line in read_lines(path):
            counted.row_count += 1
            fault = fault_of(line, month)
            if fault:
                counted.kinds[fault] += 1
                continue
            event_time, event_type, product, category, code, brand, price, user, _ = line.decode().split(",")
            assert event_time >= last_time
            last_time = event_time
            key = (event_time, user, product, event_type)
            if key in first_line_of_key:
                counted.kinds["exact_duplicate" if first_line_of_key[key] == line else "repriced_duplicate"] += 1
                continue
            first_line_of_key[key] = line
            counted.kinds["null_price_removal"] += not price
            counted.kinds["zero_price_view"] += event_type == "view" and float(price) == 0
            counted.kinds["untidy_text"] += code + brand != "".join((code + brand).lower().split())
            counted.short_removes += event_type == "remove"
            counted.events_of_user[user] += 1
            counted.category_ids_of_product.setdefault(product, set()).add(category)
            if event_type == "purchase":
                counted.purchases_of_user[user] += 1
                counted.cents_of_user[user] += round(float(price) * 100)
    counted.valid_keys = set(first_line_of_key)
    return counted


def assert_manifest_is_true(simulation: Simulation) -> None:
    manifest = json.loads(simulation.manifest_path.read_text())
    counted = count_files(simulation.files)
    expected = manifest["expected"]
    assert {kind: counted.kinds[kind] for kind in expected["planted"]} == expected["planted"]
    assert set(counted.kinds) <= set(expected["planted"])
    assert counted.row_count == expected["rows_written"] == simulation.row_count
    assert len(counted.valid_keys) == expected["rows_valid"]
    assert sum(1 for count in counted.events_of_user.values() if count) == expected["users_valid"]
    assert sum(counted.purchases_of_user.values()) == expected["purchases_valid"]
    assert sum(counted.cents_of_user.values()) == round(expected["revenue_eur"] * 100)
    assert counted.short_removes == expected["removes_spelt_short"]
    moved = {int(product) for product, categories in counted.category_ids_of_product.items() if len(categories) > 1}
    assert sorted(moved) == expected["products_changing_category"]["seen_ids"]
    assert expected["rows_written"] == sum(
        expected[part] for part in ("rows_valid", "rows_duplicate", "rows_broken_line", "rows_broken_rule")
    )
    for raw_id, truth in manifest["users"].items():
        assert truth["type"] in TYPE_NAMES
        assert truth["events_valid"] == counted.events_of_user[raw_id]
        assert truth["purchases_valid"] == counted.purchases_of_user[raw_id]
        assert round(truth["spent_eur"] * 100) == counted.cents_of_user[raw_id]


def valid_frame(simulation: Simulation) -> pd.DataFrame:
    """All rows of a simulation without dirt."""
    frame = pd.concat([pd.read_csv(path) for path in simulation.files], ignore_index=True)
    frame["event_at"] = pd.to_datetime(frame["event_time"], format="%Y-%m-%d %H:%M:%S UTC")
    return frame


def planted_types(simulation: Simulation) -> "pd.Series[str]":
    users = json.loads(simulation.manifest_path.read_text())["users"]
    return pd.Series({int(raw_id): truth["type"] for raw_id, truth in users.items()})


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    return simulate(tmp_path_factory.mktemp("dirty"), seed=7, user_count=6_000, event_count=120_000, month_count=3)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    out = tmp_path_factory.mktemp("clean")
    return simulate(out, seed=11, user_count=4_000, event_count=200_000, month_count=3, dirt=NO_DIRT)


@pytest.fixture(scope="module")
def clean_events(clean: Simulation) -> pd.DataFrame:
    return valid_frame(clean)


def test_manifest_tells_what_a_slow_reader_finds(dirty: Simulation) -> None:
    assert_manifest_is_true(dirty)


def test_every_kind_of_dirt_is_planted_and_rare(dirty: Simulation) -> None:
    expected = json.loads(dirty.manifest_path.read_text())["expected"]
    assert all(count > 0 for count in expected["planted"].values())
    wrong_ratio = 1 - expected["rows_valid"] / expected["rows_written"]
    assert 0.010 < wrong_ratio < 0.015


@pytest.mark.parametrize(
    ("user_count", "event_count", "month_count"),
    [(1, 1, 1), (1, 2, 7), (20, 20, 3), (20, 100, 1), (50, 1_000, 7), (1, 20_000, 1)],
)
def test_manifest_is_true_at_small_and_odd_sizes(
    tmp_path: Path, user_count: int, event_count: int, month_count: int
) -> None:
    simulation = simulate(tmp_path, seed=5, user_count=user_count, event_count=event_count, month_count=month_count)
    assert simulation.row_count == event_count
    assert_manifest_is_true(simulation)


def test_files_are_sorted_and_true_across_many_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Blocks so small that most sessions run through several: their later events must wait.
    monkeypatch.setattr(blocks, "BLOCK_EVENT_COUNT", 50)
    monkeypatch.setattr(manifest, "USER_BLOCK_SIZE", 50)
    assert_manifest_is_true(simulate(tmp_path, seed=3, user_count=300, event_count=20_000, month_count=2))


def test_manifest_is_true_when_half_the_rows_are_wrong(tmp_path: Path) -> None:
    rates = dict.fromkeys((kind.name for kind in dataclasses.fields(Dirt)), 0.03)
    dirt = Dirt(**(rates | {"zero_price_purchase": 0.4, "null_price_removal": 1.0}))
    simulation = simulate(tmp_path, seed=5, user_count=200, event_count=10_000, month_count=2, dirt=dirt)
    assert_manifest_is_true(simulation)


def test_manifest_counts_and_hashes_each_file(dirty: Simulation) -> None:
    manifest = json.loads(dirty.manifest_path.read_text())
    assert manifest["seed"] == 7
    assert manifest["parameters"]["dirt"] == dataclasses.asdict(Dirt())
    assert [entry["period"] for entry in manifest["files"]] == ["2019-10", "2019-11", "2019-12"]
    assert [entry["name"] for entry in manifest["files"]] == [path.name for path in dirty.files]
    for entry, path, row_count in zip(manifest["files"], dirty.files, dirty.row_counts, strict=True):
        counted = count_files((path,))
        assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert entry["byte_count"] == path.stat().st_size
        assert entry["rows_written"] == counted.row_count == row_count
        assert entry["rows_valid"] == len(counted.valid_keys)
        assert entry["planted"] == {kind: counted.kinds[kind] for kind in entry["planted"]}


def test_files_are_named_by_month_across_the_year(tmp_path: Path) -> None:
    simulation = simulate(
        tmp_path, seed=1, user_count=5, event_count=50, month_count=4, start_month=datetime.date(2019, 11, 17)
    )
    names = ["2019-Nov.csv.gz", "2019-Dec.csv.gz", "2020-Jan.csv.gz", "2020-Feb.csv.gz"]
    assert [path.name for path in simulation.files] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, "manifest.json"])


def test_same_arguments_give_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    def contents(folder: str, seed: int) -> dict[str, bytes]:
        simulate(tmp_path / folder, seed=seed, user_count=3_000, event_count=90_000, month_count=2)
        return {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}

    first = contents("first", 1)
    assert contents("again", 1) == first
    other = contents("other", 2)
    assert all(other[name] != first[name] for name in first)
    gzip_time = first["2019-Oct.csv.gz"][4:8]
    assert gzip_time == b"\0\0\0\0"


def test_progress_grows_to_the_number_of_rows(tmp_path: Path) -> None:
    seen: list[int] = []
    simulate(tmp_path, seed=1, user_count=500, event_count=200_000, month_count=1, on_progress=seen.append)
    assert seen == sorted(seen)
    assert len(seen) > 2
    assert seen[-1] == 200_000


def test_an_interrupted_simulation_leaves_no_half_file_and_no_manifest(tmp_path: Path) -> None:
    simulate(tmp_path, seed=1, user_count=5, event_count=50, month_count=1)
    (tmp_path / "2019-Oct.csv.gz").unlink()

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path, seed=1, user_count=5, event_count=50, month_count=1, on_progress=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"user_count": 0}, "number of users"),
        ({"user_count": -3}, "number of users"),
        ({"event_count": 9}, "too few for 10 users"),
        ({"event_count": 0}, "too few"),
        ({"month_count": 0}, "number of months"),
        ({"month_count": 1_000}, "number of months"),
        ({"event_count": 10_000_000}, "too many for 10 users"),
        ({"seed": -1}, "seed"),
        ({"dirt": Dirt(null_user=-0.1)}, "between 0 and 1"),
        ({"dirt": Dirt(null_user=0.6)}, "exceed"),
    ],
)
def test_nonsense_arguments_are_refused_before_anything_is_written(
    tmp_path: Path, changed: dict[str, Any], sentence: str
) -> None:
    arguments: dict[str, Any] = {"seed": 1, "user_count": 10, "event_count": 100, "month_count": 1}
    with pytest.raises(ValueError, match=sentence):
        simulate(tmp_path / "out", **(arguments | changed))
    assert not (tmp_path / "out").exists()


def test_clean_lines_have_the_real_shape(clean: Simulation) -> None:
    lines = read_lines(clean.files[0])
    assert all(WHOLE_LINE.fullmatch(line.decode()) for line in lines)


def test_real_lines_have_the_same_shape(clean: Simulation) -> None:
    if not REAL_SAMPLE.parents[1].exists():
        pytest.skip("the real data is not beside this checkout")
    header, *real = REAL_SAMPLE.read_text().splitlines()
    assert header == HEADER
    # The sample's last line is cut.
    assert all(WHOLE_LINE.fullmatch(line) for line in real[:-1])
    simulated = read_lines(clean.files[0])
    assert np.mean([len(line) for line in simulated]) == pytest.approx(np.mean([len(line) for line in real]), rel=0.1)


def test_users_come_in_sessions_more_than_thirty_minutes_apart(clean: Simulation, clean_events: pd.DataFrame) -> None:
    events = clean_events.sort_values(["user_id", "event_at"], kind="stable")
    gap_seconds = events.groupby("user_id")["event_at"].diff().dt.total_seconds()
    is_same_session = events["user_session"] == events["user_session"].shift()
    within, between = gap_seconds[is_same_session], gap_seconds[~is_same_session].dropna()
    assert within.min() >= 1
    assert within.median() < 120
    assert 1_740 <= within.max() < 1_800
    assert between.min() > 1_800
    assert between.median() > 86_400
    session_count = json.loads(clean.manifest_path.read_text())["expected"]["sessions_planted"]
    assert events["user_session"].nunique() == session_count == len(between) + events["user_id"].nunique()


def test_sessions_run_across_midnight_and_month_ends(clean_events: pd.DataFrame) -> None:
    sessions = clean_events.groupby("user_session")["event_at"].agg(["min", "max"])
    assert (sessions["min"].dt.date != sessions["max"].dt.date).sum() > 20
    assert (sessions["min"].dt.month != sessions["max"].dt.month).any()


def test_the_shop_has_nights_and_weekends(clean_events: pd.DataFrame) -> None:
    by_hour = clean_events["event_at"].dt.hour.value_counts(normalize=True)
    assert by_hour[[2, 3, 4]].mean() < 0.4 * by_hour[[18, 19, 20]].mean()
    by_day = clean_events.groupby(clean_events["event_at"].dt.date).size()
    is_weekend = pd.to_datetime(by_day.index.to_series()).dt.day_of_week >= 5
    assert by_day[is_weekend].mean() > 1.1 * by_day[~is_weekend].mean()


def test_products_are_viewed_then_carted_then_bought_or_removed(clean_events: pd.DataFrame) -> None:
    first_seen = clean_events.drop_duplicates(["user_session", "product_id"])
    assert (first_seen["event_type"] == "view").mean() > 0.95
    counts = clean_events["event_type"].value_counts(normalize=True)
    assert counts["view"] > 0.8 > 0.2 > counts["cart"] > counts["purchase"] > counts["remove_from_cart"] > 0
    removals = clean_events[clean_events["event_type"].isin(["remove_from_cart", "remove"])]
    assert 0.2 < (removals["event_type"] == "remove").mean() < 0.4
    carted = set(
        clean_events.loc[clean_events["event_type"] == "cart", ["user_session", "product_id"]].itertuples(
            index=False, name=None
        )
    )
    removed = set(removals[["user_session", "product_id"]].itertuples(index=False, name=None))
    assert removed <= carted


def test_products_keep_brand_and_category_and_few_are_popular(clean: Simulation, clean_events: pd.DataFrame) -> None:
    products = clean_events.groupby("product_id")
    assert (products["brand"].nunique(dropna=False) == 1).all()
    moved = products["category_id"].nunique() > 1
    assert 0 < moved.mean() < 0.01
    views_per_product = products.size().sort_values(ascending=False)
    assert views_per_product.head(len(views_per_product) // 10).sum() > 0.3 * len(clean_events)
    assert 0.05 < clean_events["brand"].isna().mean() < 0.3
    assert 0.1 < clean_events["category_code"].isna().mean() < 0.6
    price_range = products["price"].max() / products["price"].min()
    assert 1.05 < price_range[products.size() > 50].median() < 1.5


def user_features(events: pd.DataFrame) -> pd.DataFrame:
    counts = events.pivot_table(index="user_id", columns="event_type", values="price", aggfunc="size", fill_value=0)
    users = events.groupby("user_id")
    features = counts.assign(
        events=users.size(),
        sessions=users["user_session"].nunique(),
        categories=users["category_id"].nunique(),
        mean_price=users["price"].mean(),
        spent=events["price"].where(events["event_type"] == "purchase", 0).groupby(events["user_id"]).sum(),
        days=(users["event_at"].max() - users["event_at"].min()).dt.total_seconds(),
    )
    ratios = counts.div(features["events"], axis=0).add_suffix("_ratio")
    return features.join(ratios)


def test_customer_types_overlap_but_can_be_told(clean: Simulation, clean_events: pd.DataFrame) -> None:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import adjusted_rand_score

    features = user_features(clean_events)
    features = features[features["events"] >= 20]
    types = planted_types(clean)[features.index].to_numpy()
    is_training = np.arange(len(features)) % 2 == 0
    forest = RandomForestClassifier(60, min_samples_leaf=3, random_state=0)
    forest.fit(features[is_training], types[is_training])
    guessed, true = forest.predict(features[~is_training]), types[~is_training]
    assert 0.78 < np.mean(guessed == true) < 0.95
    assert 0.5 < adjusted_rand_score(true, guessed) < 0.92


def test_types_have_their_shares_and_top_spenders_spend(clean: Simulation, clean_events: pd.DataFrame) -> None:
    manifest = json.loads(clean.manifest_path.read_text())
    truth = pd.DataFrame(manifest["customer_types"]).T
    assert set(truth.index) == TYPE_NAMES
    assert truth["user_count"].to_dict() == pytest.approx(
        {
            "Occasional Spender": 1_520,
            "Window Shopper": 1_200,
            "Loyal Customer": 600,
            "Heavy Cart User": 400,
            "Top Spender": 280,
        },
        abs=1,
    )
    assert truth["spent_eur"]["Top Spender"] > 0.25 * truth["spent_eur"].sum()
    mean_price = clean_events.groupby(clean_events["user_id"].map(planted_types(clean)))["price"].mean()
    assert mean_price.idxmax() == "Top Spender"
