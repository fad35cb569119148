"""Customer segmentation: from one row of features per user to one named segment per user.

Lives here: imputation, log1p → standardise → PCA → KMeans, the names of the segments and the reasons for them.
Does not live here: reading or writing tables, run ids, versions and clocks (orchestration/defs/ecommerce), the features
themselves (int_ecommerce__user_features), the choice of K.

Source: the Amazing report as kept in REQUIREMENTS E8 (standardise → PCA k=10 → KMeans k-means++), E10 (fit once on all
users; names from centroids, never from the label index) and E11 (proba = softmax of the negated distance, reasons).
"""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd

# Counts and durations have long right tails, and twice as many events is the same step for the busy as for the quiet:
# log1p before standardising, or the clusters sort people by how busy they are.
LOG_FEATURES: tuple[str, ...] = (
    "frequency_per_month",
    "category_count",
    "event_count",
    "view_count",
    "cart_count",
    "removal_count",
    "purchase_count",
    "session_count",
    "active_day_count",
    "brand_count",
    "purchased_category_count",
    "events_per_session",
    "average_session_minutes",
)
# Amounts stay in euros although their tails are as long: the tail is the top spenders, and under log1p they fall in
# with everyone who ever bought. Days are bounded by the observed time, most ratios by 1.
LINEAR_FEATURES: tuple[str, ...] = (
    "recency_days",
    "monetary_eur",
    "engagement_ratio",
    "viewed_value_eur",
    "carted_value_eur",
    "average_basket_eur",
    "average_viewed_price_eur",
    "average_purchase_price_eur",
    "max_purchase_price_eur",
    "price_stddev_eur",
    "weekend_ratio",
    "night_ratio",
    "conversion_ratio",
    "cart_ratio",
    "cart_completion_ratio",
    "removal_ratio",
    "purchase_session_ratio",
    "tenure_days",
    "inactivity_days",
)
FEATURES: tuple[str, ...] = LINEAR_FEATURES + LOG_FEATURES

# Null where there is nothing to divide by. Zero says what happened: nothing was bought, carted or viewed.
NULL_MEANS_ZERO: tuple[str, ...] = (
    "frequency_per_month",
    "engagement_ratio",
    "average_basket_eur",
    "average_viewed_price_eur",
    "average_purchase_price_eur",
    "max_purchase_price_eur",
    "price_stddev_eur",
    "conversion_ratio",
    "cart_ratio",
    "cart_completion_ratio",
    "removal_ratio",
)

# What each name means, as feature → weight on centroids standardised across clusters. Only the direction and the
# relative size of the weights count: every profile is scaled to length 1 before it is scored. A name compares a cluster
# with the other clusters: where nobody fills carts, someone is still called the heaviest cart user.
PROFILES: dict[str, dict[str, float]] = {
    # spends the most, on the dearest goods
    "Top Spender": {"monetary_eur": 2, "average_basket_eur": 1, "max_purchase_price_eur": 1},
    # buys often and lately, comes back on many days
    "Loyal Customer": {"purchase_count": 1, "active_day_count": 1, "purchase_session_ratio": 1, "recency_days": -1},
    # fills carts and empties them again, finishes few
    "Heavy Cart User": {"cart_ratio": 1, "removal_count": 1, "cart_count": 1, "cart_completion_ratio": -1},
    # looks a great deal, hardly buys
    "Window Shopper": {"view_count": 1, "conversion_ratio": -1, "cart_ratio": -1, "recency_days": 1},
    # comes rarely
    "Occasional Spender": {"event_count": -1, "active_day_count": -1, "session_count": -1},
    # K = 4 only (E9, E10), in place of Top Spender: much at once. Heavy cart users then have no segment of their own
    "Big Basket Buyer": {"average_basket_eur": 2, "monetary_eur": 1, "max_purchase_price_eur": 1},
}
NAMES_BY_CLUSTER_COUNT: dict[int, tuple[str, ...]] = {
    4: ("Big Basket Buyer", "Loyal Customer", "Window Shopper", "Occasional Spender"),
    5: ("Top Spender", "Loyal Customer", "Heavy Cart User", "Window Shopper", "Occasional Spender"),
}

# k-means++ restarts: the best of ten, because one start in a few ends in a poor optimum.
RESTART_COUNT = 10
SILHOUETTE_SAMPLE_SIZE = 5_000
REASON_COUNT = 3


class TooFewUsersError(ValueError):
    """Too few users, or too few that differ, to form the segments: nothing is wrong, but more events are needed."""


@dataclass(frozen=True)
class Segmentation:
    """One fit of the segmentation.

    members: one row per user in order of user_id: user_id (int64), cluster_label (int64), segment_name, proba (0 to 1:
        softmax of the negated distances to all centroids, the own cluster's part), distance (Euclidean, to the own
        centroid, in PCA space).
    centroids: one row per cluster (index cluster_label): segment_name, user_count, revenue_ratio (share of all
        monetary_eur, 0 when nobody bought), then the mean of every feature in its own unit, nulls filled as in
        `impute_features`.
    reasons: cluster_label → what sets the cluster apart from everyone, see `segment_reasons`.
    explained_variance_ratio: share (0 to 1) of the standardised variance that the components keep.
    inertia: sum of squared distances to the own centroid, in PCA space.
    silhouette_ratio: -1 to 1, on a seeded sample of at most 5,000 users; None where it is undefined.
    iteration_count: Lloyd iterations of the best of the `RESTART_COUNT` starts.
    """

    members: pd.DataFrame
    centroids: pd.DataFrame
    reasons: dict[int, str]
    feature_names: tuple[str, ...]
    component_count: int
    explained_variance_ratio: float
    inertia: float
    silhouette_ratio: float | None
    iteration_count: int


def fit_segments(
    features: pd.DataFrame,
    *,
    cluster_count: int = 5,
    component_count: int = 10,
    seed: int,
    log_features: Collection[str] = LOG_FEATURES,
) -> Segmentation:
    """Segment all users at once: impute → log1p → standardise → PCA → KMeans → names.

    The report standardises the features as they are. Here log1p of `LOG_FEATURES` comes first, because the segments
    then agree better with planted customer types; benchmarks/segmentation_agreement.py measures both.

    features: one row per user, user_id and `FEATURES`, any order; other columns are ignored.
    cluster_count: 4 or 5, the counts that have names.
    component_count: wanted PCA components; fewer features or users give fewer.
    seed: of k-means++ and of the silhouette sample.
    log_features: those that take log1p; none is the report's own pipeline.

    Deterministic: the same rows in any order and the same seed give the same bits on one machine. Rows are sorted by
    user_id, and one thread computes, since sums of several threads end in no fixed order.

    Raises ValueError on missing columns, null or repeated user_id, infinite or negative values, nulls where no null can
    be; TooFewUsersError when there are fewer (different) users than clusters.
    """
    if cluster_count not in NAMES_BY_CLUSTER_COUNT:
        raise ValueError(f"There are no names for {cluster_count} segments: choose cluster_count 4 or 5.")
    if component_count < 1:
        raise ValueError(f"component_count is {component_count}: choose at least 1.")
    imputed = impute_features(features)
    if len(imputed) < cluster_count:
        raise TooFewUsersError(
            f"{len(imputed)} users cannot form {cluster_count} segments: load more events before segmenting."
        )

    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1), warnings.catch_warnings():
        # fewer distinct users than clusters: said below in our own words
        warnings.simplefilter("ignore", ConvergenceWarning)
        standardised = StandardScaler(copy=False).fit_transform(_to_model_scale(imputed, log_features))
        pca = PCA(min(component_count, *standardised.shape), svd_solver="covariance_eigh")
        with np.errstate(invalid="ignore"):  # no variance at all: identical users, refused below
            projected = pca.fit_transform(standardised)
        kmeans = KMeans(cluster_count, init="k-means++", n_init=RESTART_COUNT, random_state=seed, copy_x=False)
        labels = kmeans.fit_predict(projected).astype(np.int64)
        found_count = len(np.unique(labels))
        if found_count < cluster_count:
            raise TooFewUsersError(
                f"The {len(imputed)} users show only {found_count} different behaviours, too few for {cluster_count} "
                "segments: load more events before segmenting."
            )
        own_distance, own_proba = _own_distance_and_proba(projected, kmeans.cluster_centers_, labels)
        silhouette_ratio = _silhouette(projected, labels, seed)

    centroids = _centroids(imputed, labels)
    names = name_segments(centroids)
    centroids.insert(0, "segment_name", pd.Series(names))
    members = pd.DataFrame(
        {
            "user_id": imputed.index.to_numpy(),
            "cluster_label": labels,
            "segment_name": pd.Series(labels).map(names),
            "proba": own_proba,
            "distance": own_distance,
        }
    )
    centroids_standardised = pd.DataFrame(
        [standardised[labels == label].mean(axis=0) for label in centroids.index],
        index=centroids.index,
        columns=list(FEATURES),
    )
    return Segmentation(
        members=members,
        centroids=centroids,
        reasons=segment_reasons(centroids_standardised),
        feature_names=FEATURES,
        component_count=int(pca.n_components_),
        explained_variance_ratio=float(pca.explained_variance_ratio_.sum()),
        inertia=float(kmeans.inertia_),
        silhouette_ratio=silhouette_ratio,
        iteration_count=int(kmeans.n_iter_),
    )


def impute_features(features: pd.DataFrame) -> pd.DataFrame:
    """Return `FEATURES` as float64, indexed and sorted by user_id, without nulls; the input is left alone.

    - recency_days null means "never bought in the observed time". It becomes one day more than the longest recency,
      tenure or inactivity of anyone: farther back than any purchase that could have been seen, without inventing a
      distance (such as 9999) that would outweigh every other feature.
    - `NULL_MEANS_ZERO` null means there was nothing to count or divide by: 0.
    - Anywhere else a null is a fault upstream and is refused.

    Raises ValueError, see `fit_segments`.
    """
    missing = [name for name in ("user_id", *FEATURES) if name not in features.columns]
    if missing:
        raise ValueError(f"The user features lack the column(s) {', '.join(missing)}: rebuild the feature model.")
    if features["user_id"].isna().any():
        raise ValueError("The user features hold a null user_id: expected one row per known user.")
    if not pd.api.types.is_integer_dtype(features["user_id"]):
        raise ValueError(f"user_id is {features['user_id'].dtype}: expected whole numbers, floats would merge users.")
    user_ids = features["user_id"].to_numpy(dtype=np.int64)
    if len(np.unique(user_ids)) < len(user_ids):
        raise ValueError("The user features repeat a user_id: expected one row per user.")

    order = np.argsort(user_ids)
    columns = {name: features[name].to_numpy(dtype=np.float64, na_value=np.nan)[order] for name in FEATURES}
    for name, values in columns.items():
        if np.isinf(values).any():
            raise ValueError(f"The feature {name} holds an infinite value: check its division in the feature model.")
        if (values < 0).any():
            raise ValueError(f"The feature {name} holds a negative value: check it in the feature model.")

    spans = np.concatenate([columns[name] for name in ("recency_days", "tenure_days", "inactivity_days")])
    never_bought_days = np.nanmax(spans) + 1 if np.isfinite(spans).any() else 0.0
    fill_values = {"recency_days": never_bought_days} | dict.fromkeys(NULL_MEANS_ZERO, 0.0)
    for name, values in columns.items():
        is_null = np.isnan(values)
        if not is_null.any():
            continue
        if name not in fill_values:
            raise ValueError(f"The feature {name} holds a null, which it never should: check the feature model.")
        columns[name] = np.where(is_null, fill_values[name], values)
    return pd.DataFrame(columns, index=pd.Index(user_ids[order], name="user_id"))


def name_segments(centroids: pd.DataFrame) -> dict[int, str]:
    """Give every cluster one of the names of `NAMES_BY_CLUSTER_COUNT`, each name once, by what its centroid looks like.

    Centroids are standardised across clusters; a cluster's score for a name is the weighted sum of the features in that
    name's `PROFILES` entry; the assignment with the highest total score wins (Kuhn 1955, the Hungarian method). Labels
    and their order play no part.

    centroids: index cluster_label, columns: the profile features in their own units; other columns are ignored.
    Returns cluster_label → name. Raises ValueError unless there are 4 or 5 clusters.
    """
    from scipy.optimize import linear_sum_assignment

    if len(centroids) not in NAMES_BY_CLUSTER_COUNT:
        raise ValueError(f"There are no names for {len(centroids)} segments: expected 4 or 5 centroids.")
    names = NAMES_BY_CLUSTER_COUNT[len(centroids)]
    profiles = pd.DataFrame({name: PROFILES[name] for name in names}).fillna(0.0)
    profiles /= np.sqrt((profiles**2).sum())
    # sorted by content, so that even a tie does not depend on the labels
    known = centroids[list(profiles.index)].astype("float64").sort_values(list(profiles.index))
    spread = known.std(ddof=0)
    standardised = (known - known.mean()) / spread.where(spread > 0, 1.0)
    scores = standardised @ profiles
    rows, columns = linear_sum_assignment(scores.to_numpy(), maximize=True)
    return {int(known.index[row]): names[column] for row, column in zip(rows, columns, strict=True)}


def segment_reasons(centroids_standardised: pd.DataFrame) -> dict[int, str]:
    """Say in which three features each cluster differs most from everyone: "monetary_eur +2.1 sd, …" (E11).

    centroids_standardised: index cluster_label, one column per feature: the members' mean distance from the mean of all
        users, in standard deviations of all users, on the scale the model sees (log1p where it takes log1p).
    Returns cluster_label → text, the largest difference first.
    """
    reasons = {}
    for label, row in centroids_standardised.iterrows():
        strongest = row.abs().sort_values(ascending=False, kind="stable").index[:REASON_COUNT]
        texts = [f"{name} {row[name]:+.1f} sd".replace("-", "\N{MINUS SIGN}") for name in strongest]
        reasons[int(str(label))] = ", ".join(texts)
    return reasons


def _to_model_scale(imputed: pd.DataFrame, log_features: Collection[str]) -> np.ndarray:
    matrix = np.empty(imputed.shape)
    for position, name in enumerate(FEATURES):
        values = imputed[name].to_numpy()
        matrix[:, position] = np.log1p(values) if name in log_features else values
    return matrix


def _own_distance_and_proba(
    points: np.ndarray, centers: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    # one centre at a time: no array of users by clusters by components
    distances = np.stack([np.sqrt(((points - center) ** 2).sum(axis=1)) for center in centers], axis=1)
    own = distances[np.arange(len(labels)), labels]
    # softmax of the negated distances, own cluster; the nearest centre is the own one, so no exponent is above 0
    proba = 1.0 / np.exp(own[:, np.newaxis] - distances).sum(axis=1)
    return own, proba


def _silhouette(points: np.ndarray, labels: np.ndarray, seed: int) -> float | None:
    from sklearn.metrics import silhouette_score

    if len(labels) > SILHOUETTE_SAMPLE_SIZE:
        sample = np.random.default_rng(seed).choice(len(labels), SILHOUETTE_SAMPLE_SIZE, replace=False)
        points, labels = points[sample], labels[sample]
    if not 2 <= len(np.unique(labels)) < len(labels):
        return None
    return float(silhouette_score(points, labels))


def _centroids(imputed: pd.DataFrame, labels: np.ndarray) -> pd.DataFrame:
    groups = imputed.groupby(pd.Series(labels, index=imputed.index, name="cluster_label"))
    centroids = groups.mean()
    revenue_eur = groups["monetary_eur"].sum()
    total_eur = float(revenue_eur.sum())
    centroids.insert(0, "user_count", groups.size())
    centroids.insert(1, "revenue_ratio", revenue_eur / total_eur if total_eur > 0 else 0.0)
    return centroids
