"""Customer segmentation: from one row of features per user to one named segment per user.

Lives here: imputation, log1p → standardise → PCA → KMeans, the names of the segments and the reasons for them.
Does not live here: reading or writing tables, run ids, versions and clocks (orchestration/defs/ecommerce), the features
themselves (int_ecommerce__user_features), the choice of K.

Source: the Amazing report as kept in REQUIREMENTS E8 (standardise → PCA k=10 → KMeans k-means++), E10 (fit once on all
users; names from centroids, never from the label index) and E11 (proba = softmax of the negated distance, reasons).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ml.ecommerce.blocks import map_blocks
from ml.ecommerce.kmeans import Clusters, fit_clusters

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

SILHOUETTE_SAMPLE_SIZE = 5_000
REASON_COUNT = 3


class TooFewUsersError(ValueError):
    """Too few users, or too few that differ, to form the segments: nothing is wrong, but more events are needed."""


@dataclass(frozen=True)
class Segmentation:
    """One fit of the segmentation.

    members: one row per user in order of user_id: user_id (int64), cluster_label (int64), segment_name (category),
        proba (0 to 1: softmax of the negated distances to all centroids, the own cluster's part), distance (Euclidean,
        to the own centroid, in PCA space).
    centroids: one row per cluster (index cluster_label): segment_name, user_count, revenue_ratio (share of all
        monetary_eur, 0 when nobody bought), then the mean of every feature in its own unit, nulls filled as in
        `impute_features`.
    reasons: cluster_label → what sets the cluster apart from everyone, see `segment_reasons`.
    explained_variance_ratio: share (0 to 1) of the standardised variance that the components keep.
    inertia: sum of squared distances to the own centroid, in PCA space.
    silhouette_ratio: -1 to 1, on a seeded sample of at most 5,000 users; None where it is undefined.
    iteration_count: Lloyd steps on all users, after the search on samples (ml/ecommerce/kmeans.py).
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

    Deterministic: the same rows in any order and the same seed give the same bits on one machine, on any number of
    threads. Users are taken in order of user_id, by blocks (ml/ecommerce/blocks.py); rows that come in that order need
    no gathering and save time. Beside the features it needs about a third of their memory.

    Raises ValueError on missing columns, null or repeated user_id, infinite or negative values, nulls where no null can
    be; TooFewUsersError when there are fewer (different) users than clusters.
    """
    if cluster_count not in NAMES_BY_CLUSTER_COUNT:
        raise ValueError(f"There are no names for {cluster_count} segments: choose cluster_count 4 or 5.")
    if component_count < 1:
        raise ValueError(f"component_count is {component_count}: choose at least 1.")
    users = _Users.of(features, log_features)
    user_count = len(users.user_ids)
    if user_count < cluster_count:
        raise TooFewUsersError(
            f"{user_count} users cannot form {cluster_count} segments: load more events before segmenting."
        )

    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        scale = _scale(users)
        components, explained_variance_ratio = _components(scale, min(component_count, user_count, len(FEATURES)))
        points = _projected(users, scale, components)
        clusters = fit_clusters(points, cluster_count=cluster_count, seed=seed)
        found_count = len(np.unique(clusters.labels))
        if found_count < cluster_count:
            raise TooFewUsersError(
                f"The {user_count} users show only {found_count} different behaviours, too few for {cluster_count} "
                "segments: load more events before segmenting."
            )
        own_distance, own_proba = _own_distance_and_proba(points, clusters)
        silhouette_ratio = _silhouette(points, clusters.labels, seed)
        centroids, centroids_standardised = _centroids(users, scale, clusters.labels, cluster_count)

    names = name_segments(centroids)
    centroids.insert(0, "segment_name", pd.Series(names))
    members = pd.DataFrame(
        {
            "user_id": users.user_ids,
            "cluster_label": clusters.labels.astype(np.int64),
            "segment_name": pd.Categorical.from_codes(
                clusters.labels, pd.Index([names[label] for label in range(cluster_count)])
            ),
            "proba": own_proba,
            "distance": own_distance,
        },
        copy=False,
    )
    return Segmentation(
        members=members,
        centroids=centroids,
        reasons=segment_reasons(centroids_standardised),
        feature_names=FEATURES,
        component_count=len(components),
        explained_variance_ratio=explained_variance_ratio,
        inertia=clusters.inertia,
        silhouette_ratio=silhouette_ratio,
        iteration_count=clusters.step_count,
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
    users = _Users.of(features, ())
    values = users.in_own_units(slice(0, len(users.user_ids)))
    return pd.DataFrame(values.T, columns=list(FEATURES), index=pd.Index(users.user_ids, name="user_id"))


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


@dataclass(frozen=True)
class _Users:
    """All users' features as they were delivered, and what makes blocks of them fit for the model.

    A copy of millions of users on the model's scale would take more memory than all the rest, so a block is ordered,
    imputed and logged each time it is needed.

    user_ids: ascending. columns: one array per feature, in the order of the rows delivered. order: which row delivered
    comes when, None if they came in order. fill_values: by feature, what a null means.
    """

    user_ids: np.ndarray
    columns: list[np.ndarray]
    order: np.ndarray | None
    fill_values: dict[str, float]
    log_features: Collection[str]

    @classmethod
    def of(cls, features: pd.DataFrame, log_features: Collection[str]) -> _Users:
        missing = [name for name in ("user_id", *FEATURES) if name not in features.columns]
        if missing:
            raise ValueError(f"The user features lack the column(s) {', '.join(missing)}: rebuild the feature model.")
        if features["user_id"].isna().any():
            raise ValueError("The user features hold a null user_id: expected one row per known user.")
        if not pd.api.types.is_integer_dtype(features["user_id"]):
            raise ValueError(
                f"user_id is {features['user_id'].dtype}: expected whole numbers, floats would merge users."
            )
        delivered_ids = features["user_id"].to_numpy(dtype=np.int64)
        is_ordered = bool((delivered_ids[1:] >= delivered_ids[:-1]).all())
        order = None if is_ordered else np.argsort(delivered_ids)
        user_ids = delivered_ids if order is None else delivered_ids[order]
        if (user_ids[1:] == user_ids[:-1]).any():
            raise ValueError("The user features repeat a user_id: expected one row per user.")

        columns = [features[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in FEATURES]
        longest_days = -np.inf
        has_null = {}
        for name, values in zip(FEATURES, columns, strict=True):
            if np.isinf(values).any():
                raise ValueError(
                    f"The feature {name} holds an infinite value: check its division in the feature model."
                )
            if (values < 0).any():
                raise ValueError(f"The feature {name} holds a negative value: check it in the feature model.")
            if name in ("recency_days", "tenure_days", "inactivity_days"):
                longest_days = np.fmax.reduce(values, initial=longest_days)
            has_null[name] = bool(np.isnan(values).any())
        never_bought_days = float(longest_days) + 1 if np.isfinite(longest_days) else 0.0
        fill_values = {"recency_days": never_bought_days} | dict.fromkeys(NULL_MEANS_ZERO, 0.0)
        for name in FEATURES:
            if has_null[name] and name not in fill_values:
                raise ValueError(f"The feature {name} holds a null, which it never should: check the feature model.")
        return cls(user_ids, columns, order, fill_values, log_features)

    def in_own_units(self, rows: slice) -> np.ndarray:
        """The features of some users in order of user_id, nulls filled: (features, users) float64."""
        chosen = rows if self.order is None else self.order[rows]
        block = np.empty((len(FEATURES), len(self.user_ids[rows])))
        for values, name, column in zip(block, FEATURES, self.columns, strict=True):
            values[:] = column[chosen]
            if name in self.fill_values:
                values[np.isnan(values)] = self.fill_values[name]
        return block

    def on_model_scale(self, block: np.ndarray) -> np.ndarray:
        """A block in own units, with log1p where the model reads log1p; written over the block."""
        for values, name in zip(block, FEATURES, strict=True):
            if name in self.log_features:
                np.log1p(values, out=values)
        return block


@dataclass(frozen=True)
class _Scale:
    """Mean and population standard deviation of each feature on the model's scale, (features,); their correlations.

    A feature that is the same for everyone has deviation 1 and no correlation: standardised it is 0.
    """

    mean: np.ndarray
    deviation: np.ndarray
    correlation: np.ndarray


def _scale(users: _Users) -> _Scale:
    def moments(rows: slice) -> tuple[int, np.ndarray, np.ndarray]:
        block = users.on_model_scale(users.in_own_units(rows))
        mean = block.mean(axis=1)
        block -= mean[:, np.newaxis]
        return block.shape[1], mean, block @ block.T

    # Chan, Golub and LeVeque (1979): joining blocks that were each centred loses no digits
    count, mean, scatter = 0, np.zeros(len(FEATURES)), np.zeros((len(FEATURES), len(FEATURES)))
    for block_count, block_mean, block_scatter in map_blocks(moments, len(users.user_ids)):
        difference = block_mean - mean
        joined_count = count + block_count
        scatter += block_scatter + np.outer(difference, difference) * (count * block_count / joined_count)
        mean = mean + difference * (block_count / joined_count)
        count = joined_count
    covariance = scatter / count
    deviation = np.sqrt(np.diag(covariance))
    # what rounding leaves of a constant is no variance
    is_constant = deviation <= 1e-12 * np.abs(mean)
    covariance[is_constant, :] = 0.0
    covariance[:, is_constant] = 0.0
    deviation[is_constant] = 1.0
    return _Scale(mean, deviation, covariance / np.outer(deviation, deviation))


def _components(scale: _Scale, component_count: int) -> tuple[np.ndarray, float]:
    """The first principal components, (components, features), and the share of the variance they keep.

    From the correlations alone, as scikit-learn's covariance_eigh, which would hold all users at once.
    """
    variances, directions = np.linalg.eigh(scale.correlation)
    variances = np.maximum(variances[::-1], 0.0)
    components = directions.T[::-1][:component_count]
    # an eigenvector may point either way
    strongest = np.abs(components).argmax(axis=1)
    components = components * np.sign(components[np.arange(component_count), strongest])[:, np.newaxis]
    total = float(variances.sum())
    return components, float(variances[:component_count].sum()) / total if total > 0 else 0.0


def _projected(users: _Users, scale: _Scale, components: np.ndarray) -> np.ndarray:
    """All users standardised and in principal components: (users, components)."""
    points = np.empty((len(users.user_ids), len(components)))
    projection = components / scale.deviation

    def compute(rows: slice) -> None:
        block = users.on_model_scale(users.in_own_units(rows))
        block -= scale.mean[:, np.newaxis]
        points[rows] = (projection @ block).T

    map_blocks(compute, len(points))
    return points


def _own_distance_and_proba(points: np.ndarray, clusters: Clusters) -> tuple[np.ndarray, np.ndarray]:
    own_distance, own_proba = np.empty(len(points)), np.empty(len(points))

    def compute(rows: slice) -> None:
        block = points[rows]
        distances = np.stack([np.sqrt(((block - center) ** 2).sum(axis=1)) for center in clusters.centers])
        own = distances[clusters.labels[rows], np.arange(len(block))]
        own_distance[rows] = own
        # softmax of the negated distances, own cluster; the nearest centre is the own one, so no exponent is above 0
        own_proba[rows] = 1.0 / np.exp(own - distances).sum(axis=0)

    map_blocks(compute, len(points))
    return own_distance, own_proba


def _silhouette(points: np.ndarray, labels: np.ndarray, seed: int) -> float | None:
    from sklearn.metrics import silhouette_score

    if len(labels) > SILHOUETTE_SAMPLE_SIZE:
        sample = np.random.default_rng(seed).choice(len(labels), SILHOUETTE_SAMPLE_SIZE, replace=False)
        points, labels = points[sample], labels[sample]
    if not 2 <= len(np.unique(labels)) < len(labels):
        return None
    return float(silhouette_score(points, labels))


def _centroids(
    users: _Users, scale: _Scale, labels: np.ndarray, cluster_count: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The clusters' means, in own units with user_count and revenue_ratio, and standardised on the model's scale."""
    numbers = np.arange(cluster_count, dtype=np.int8)[:, np.newaxis]

    def sums(rows: slice) -> np.ndarray:
        is_member = (numbers == labels[rows]).astype(np.float64)
        block = users.in_own_units(rows)
        own_units = is_member @ block.T
        return np.stack([own_units, is_member @ users.on_model_scale(block).T])

    own_units, model_scale = sum(map_blocks(sums, len(labels)), start=np.zeros((2, cluster_count, len(FEATURES))))
    user_count = np.bincount(labels, minlength=cluster_count)
    index = pd.RangeIndex(cluster_count, name="cluster_label")
    centroids = pd.DataFrame(own_units / user_count[:, np.newaxis], index=index, columns=list(FEATURES))
    revenue_eur = own_units[:, FEATURES.index("monetary_eur")]
    total_eur = float(revenue_eur.sum())
    centroids.insert(0, "user_count", user_count)
    centroids.insert(1, "revenue_ratio", revenue_eur / total_eur if total_eur > 0 else 0.0)
    standardised = (model_scale / user_count[:, np.newaxis] - scale.mean) / scale.deviation
    return centroids, pd.DataFrame(standardised, index=index, columns=list(FEATURES))
