"""How well do the segments agree with the customer types that the simulator planted?

    python benchmarks/segmentation_agreement.py [SEED ...]      (default: 1001 … 1020)

For each seed: simulate a shop, compute the user features, segment, compare. Printed and written to
benchmarks/results/segmentation_agreement.json:

- segments: adjusted Rand index (ARI; Hubert & Arabie 1985) of planted types and clusters, and names: the share of users
  whose segment_name is their planted type;
- without log1p: the same with the report's own pipeline (E8), which goes straight to standardising;
- peer: a supervised classifier on the same features, each user predicted by a forest that never saw them (5 folds). It
  has the answers that KMeans has not, so it marks what the features allow, and ratio = segments / peer.

The features are computed here once more in plain pandas, independent of dbt: it runs without a database, and
int_ecommerce__user_features may be checked against it.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import gzip
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from ingestion.ecommerce.simulator import simulate
from ml.ecommerce.segmentation import fit_segments, impute_features

RESULT_PATH = Path(__file__).parent / "results" / "segmentation_agreement.json"
MODEL_SEED = 42
DAYS_PER_MONTH = 30.4375
EVENT_TYPES = ("view", "cart", "remove_from_cart", "purchase")


def read_events(folder: Path) -> pd.DataFrame:
    """All rows of a folder's month files that the door lets in, in order of period, file name and row; text → types."""
    paths = sorted(folder.glob("*.csv.gz"), key=lambda path: (pd.to_datetime(path.name[:8], format="%Y-%b"), path.name))
    return pd.concat([_read_month(path) for path in paths], ignore_index=True)


def _read_month(path: Path) -> pd.DataFrame:
    with gzip.open(path, "rt", encoding="utf-8", errors="replace", newline="") as lines:
        header, *rows = csv.reader(lines)
    texts = pd.DataFrame([row for row in rows if len(row) == len(header)], columns=header, dtype=str)
    event_time = pd.to_datetime(texts["event_time"], format="%Y-%m-%d %H:%M:%S UTC", errors="coerce", utc=True)
    events = pd.DataFrame(
        {
            "event_time": event_time,
            "event_type": texts["event_type"].replace("remove", "remove_from_cart"),
            "product_id": texts["product_id"],
            "category_id": texts["category_id"],
            "category_code": texts["category_code"].str.strip().str.lower(),
            "brand": texts["brand"].str.strip().str.lower(),
            "price_eur": pd.to_numeric(texts["price"], errors="coerce"),
            "raw_user_id": texts["user_id"],
        }
    )
    return events[
        (event_time.dt.strftime("%Y-%b") == path.name[:8])
        & events["event_type"].isin(EVENT_TYPES)
        & texts["product_id"].str.fullmatch(r"\d{1,19}")
        & texts["user_id"].str.fullmatch(r"\d{1,19}")
        & texts["category_id"].str.fullmatch(r"\d{0,19}")
        & texts["user_session"].str.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
        & (events["price_eur"].notna() | (texts["price"] == ""))
        & ~(texts["brand"] + texts["category_code"]).str.contains("\N{REPLACEMENT CHARACTER}")
    ]


def clean_events(events: pd.DataFrame) -> pd.DataFrame:
    """Business rules (E3, E18), then the first of each (event_time, user, product, type) (E4), then minutes (E6)."""
    is_purchase = events["event_type"] == "purchase"
    is_removal = events["event_type"] == "remove_from_cart"
    is_rejected = (
        ((events["category_id"] == "") & (events["category_code"] == ""))
        | (events["price_eur"].isna() & ~is_removal)
        | (events["price_eur"] < 0)
        | (is_purchase & (events["price_eur"] == 0))
    )
    kept = events[~is_rejected].drop_duplicates(["event_time", "raw_user_id", "product_id", "event_type"], keep="first")
    return kept.assign(
        event_at=kept["event_time"].dt.floor("min"),
        event_date=kept["event_time"].dt.floor("D"),
        price_eur=kept["price_eur"].fillna(0.0),
        category=kept["category_id"].where(kept["category_id"] != "", kept["category_code"]),
        brand=kept["brand"].where(~kept["brand"].isin(["", "unknown"])),
    ).drop(columns="event_time")


def sessions_of(events: pd.DataFrame) -> pd.DataFrame:
    """One row per session: raw_user_id, started_at, minutes, has_purchase. More than 30 minutes of silence end one."""
    ordered = events.sort_values(["raw_user_id", "event_at"])
    gap = ordered.groupby("raw_user_id")["event_at"].diff()
    session_number = (gap.isna() | (gap > pd.Timedelta(minutes=30))).cumsum().rename("session_number")
    grouped = ordered.assign(is_purchase=ordered["event_type"] == "purchase").groupby(["raw_user_id", session_number])
    sessions = grouped.agg(
        started_at=("event_at", "min"), ended_at=("event_at", "max"), has_purchase=("is_purchase", "any")
    ).reset_index()
    sessions["minutes"] = (sessions["ended_at"] - sessions["started_at"]).dt.total_seconds() / 60
    sessions["started_date"] = sessions["started_at"].dt.floor("D")
    return sessions


def user_features(events: pd.DataFrame, as_of: pd.Timestamp) -> pd.DataFrame:
    """The features of int_ecommerce__user_features by raw_user_id (index), from clean events.

    as_of: the latest minute in the log, from which ages count; a row that breaks a business rule shows it as well.
    """
    sessions = sessions_of(events)
    by_user = events.groupby("raw_user_id")
    by_session_user = sessions.groupby("raw_user_id")
    by_user_of_type = {name: events[events["event_type"] == name].groupby("raw_user_id") for name in EVENT_TYPES}
    users = by_user["event_at"].agg(first_seen_at="min", last_seen_at="max")

    def per_user(values: pd.Series) -> pd.Series:
        return values.reindex(users.index, fill_value=0)

    purchases = by_user_of_type["purchase"]
    views, carts = per_user(by_user_of_type["view"].size()), per_user(by_user_of_type["cart"].size())
    removals, purchase_count = per_user(by_user_of_type["remove_from_cart"].size()), per_user(purchases.size())
    event_count, session_count = by_user.size(), by_session_user.size()
    monetary = per_user(purchases["price_eur"].sum())
    viewed_value = per_user(by_user_of_type["view"]["price_eur"].sum())
    purchase_sessions = by_session_user["has_purchase"].sum()
    tenure_days = (as_of - users["first_seen_at"]).dt.total_seconds() / 86400
    hour = events["event_at"].dt.hour
    some_purchases = purchase_count.where(purchase_count > 0)
    some_views, some_carts = views.where(views > 0), carts.where(carts > 0)

    features: pd.DataFrame = users.assign(
        last_purchase_at=purchases["event_at"].max(),
        recency_days=lambda users: (as_of - users["last_purchase_at"]).dt.days,
        frequency_per_month=some_purchases / np.maximum(tenure_days / DAYS_PER_MONTH, 1),
        monetary_eur=monetary,
        category_count=by_user["category"].nunique(),
        engagement_ratio=(carts + purchase_count) / some_views,
        event_count=event_count,
        view_count=views,
        cart_count=carts,
        removal_count=removals,
        purchase_count=purchase_count,
        session_count=session_count,
        active_day_count=by_session_user["started_date"].nunique(),
        brand_count=by_user["brand"].nunique(),
        purchased_category_count=per_user(purchases["category"].nunique()),
        viewed_value_eur=viewed_value,
        carted_value_eur=per_user(by_user_of_type["cart"]["price_eur"].sum()),
        average_basket_eur=monetary / purchase_sessions.where(purchase_sessions > 0),
        average_viewed_price_eur=viewed_value / some_views,
        average_purchase_price_eur=monetary / some_purchases,
        max_purchase_price_eur=purchases["price_eur"].max(),
        price_stddev_eur=by_user["price_eur"].std(),
        weekend_ratio=(events["event_date"].dt.day_of_week >= 5).groupby(events["raw_user_id"]).mean(),
        night_ratio=((hour >= 22) | (hour < 6)).groupby(events["raw_user_id"]).mean(),
        conversion_ratio=purchase_count / some_views,
        cart_ratio=carts / some_views,
        cart_completion_ratio=purchase_count / some_carts,
        removal_ratio=removals / some_carts,
        purchase_session_ratio=purchase_sessions / session_count,
        events_per_session=event_count / session_count,
        average_session_minutes=by_session_user["minutes"].mean(),
        tenure_days=tenure_days,
        inactivity_days=(as_of - users["last_seen_at"]).dt.total_seconds() / 86400,
    )
    return features


@dataclass(frozen=True)
class Agreement:
    """One seed's figures; ARI: 1 = the planted types, 0 = chance."""

    seed: int
    user_count: int
    ari: float
    name_accuracy: float
    ari_without_log: float
    name_accuracy_without_log: float
    peer_ari: float
    peer_accuracy: float
    seconds: float

    @property
    def ratio(self) -> float:
        return self.ari / self.peer_ari


def measure(seed: int, *, user_count: int, event_count: int, month_count: int) -> Agreement:
    """Simulate, compute features, segment with and without log1p, train the peer; all on the users of one seed."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulate(folder, seed=seed, user_count=user_count, event_count=event_count, month_count=month_count)
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        landed_events = read_events(folder)
    events = clean_events(landed_events)
    if len(events) != manifest["expected"]["rows_valid"]:
        raise RuntimeError(
            f"Seed {seed}: {len(events)} clean events where the manifest says {manifest['expected']['rows_valid']}: "
            "the cleaning here and the simulator disagree."
        )

    features = user_features(events, as_of=landed_events["event_time"].max().floor("min"))
    # ids of its own order, as pseudonyms are: the raw ids might tell something
    user_ids = np.random.default_rng(seed).permutation(len(features)).astype(np.int64)
    features = features.assign(user_id=user_ids).sort_values("user_id")
    planted = np.array([manifest["users"][raw_user_id]["type"] for raw_user_id in features.index])

    members = fit_segments(features, seed=MODEL_SEED).members
    plain_members = fit_segments(features, seed=MODEL_SEED, log_features=()).members
    forest = RandomForestClassifier(200, min_samples_leaf=3, n_jobs=1, random_state=MODEL_SEED)
    folds = StratifiedKFold(5, shuffle=True, random_state=MODEL_SEED)
    guessed = cross_val_predict(forest, impute_features(features).to_numpy(), planted, cv=folds)
    return Agreement(
        seed=seed,
        user_count=len(features),
        ari=adjusted_rand_score(planted, members["cluster_label"]),
        name_accuracy=float((members["segment_name"].to_numpy() == planted).mean()),
        ari_without_log=adjusted_rand_score(planted, plain_members["cluster_label"]),
        name_accuracy_without_log=float((plain_members["segment_name"].to_numpy() == planted).mean()),
        peer_ari=adjusted_rand_score(planted, guessed),
        peer_accuracy=float((guessed == planted).mean()),
        seconds=time.perf_counter() - started,
    )


def summary_of(agreements: list[Agreement]) -> dict[str, dict[str, float]]:
    """Median, smallest and largest of each figure over the seeds."""
    figures = [field.name for field in dataclasses.fields(Agreement) if field.name not in ("seed", "user_count")]
    values = {name: [getattr(agreement, name) for agreement in agreements] for name in (*figures, "ratio")}
    return {
        name: {"median": statistics.median(found), "min": min(found), "max": max(found)}
        for name, found in values.items()
    }


COLUMNS = {
    "ari": "ARI",
    "name_accuracy": "names",
    "ari_without_log": "ARI no log",
    "name_accuracy_without_log": "names no log",
    "peer_ari": "peer ARI",
    "peer_accuracy": "peer names",
    "ratio": "ARI / peer",
    "seconds": "seconds",
}


def main() -> None:
    """Run the seeds, print a line for each, then median, min and max; write the JSON."""
    parser = argparse.ArgumentParser(description="Agreement of the customer segments with planted customer types.")
    parser.add_argument("seeds", nargs="*", type=int, default=list(range(1001, 1021)), metavar="SEED")
    parser.add_argument("--users", type=int, default=3_000)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--months", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULT_PATH)
    arguments = parser.parse_args()
    sizes = {"user_count": arguments.users, "event_count": arguments.events, "month_count": arguments.months}

    print(" ".join(["seed".rjust(6), *(title.rjust(12) for title in COLUMNS.values())]))
    agreements = []
    for seed in arguments.seeds:
        agreement = measure(seed, **sizes)
        agreements.append(agreement)
        print(" ".join([str(seed).rjust(6), *(f"{getattr(agreement, name):12.3f}" for name in COLUMNS)]), flush=True)
    summary = summary_of(agreements)
    for statistic in ("median", "min", "max"):
        print(" ".join([statistic.rjust(6), *(f"{summary[name][statistic]:12.3f}" for name in COLUMNS)]))

    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    seeds = [dataclasses.asdict(agreement) | {"ratio": agreement.ratio} for agreement in agreements]
    result = {"parameters": sizes | {"model_seed": MODEL_SEED}, "summary": summary, "seeds": seeds}
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
