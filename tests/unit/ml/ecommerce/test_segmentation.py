"""The segmentation against planted groups, hand-made centroids and a plain scikit-learn pipeline."""

from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ml.ecommerce.segmentation import (
    FEATURES,
    LINEAR_FEATURES,
    LOG_FEATURES,
    NAMES_BY_CLUSTER_COUNT,
    NULL_MEANS_ZERO,
    fit_segments,
    impute_features,
    name_segments,
    segment_reasons,
)


@dataclass(frozen=True)
class Archetype:
    sessions: float
    views_per_session: float
    carts_per_view: float
    purchases_per_cart: float
    removals_per_cart: float
    price_eur: float


ARCHETYPES = {
    "Top Spender": Archetype(12, 9, 0.25, 0.75, 0.10, 900),
    "Loyal Customer": Archetype(25, 4, 0.30, 0.80, 0.08, 60),
    "Heavy Cart User": Archetype(8, 7, 0.90, 0.08, 0.70, 90),
    "Window Shopper": Archetype(6, 14, 0.004, 0.0, 0.0, 70),
    "Occasional Spender": Archetype(1.5, 3, 0.35, 0.90, 0.05, 50),
}


def planted_users(
    users_per_type: int, *, seed: int, noise: float = 0.06, types: tuple[str, ...] = tuple(ARCHETYPES)
) -> tuple[pd.DataFrame, pd.Series]:
    """Users scattered around each archetype: features with nulls as the feature model leaves them, and their type."""
    rng = np.random.default_rng(seed)
    planted = np.repeat(types, users_per_type)

    def around(attribute: str) -> np.ndarray:
        center = np.array([getattr(ARCHETYPES[name], attribute) for name in planted])
        return center * rng.lognormal(0, noise, len(planted))

    sessions, price = around("sessions"), around("price_eur")
    views = sessions * around("views_per_session")
    carts = views * around("carts_per_view")
    purchases = carts * around("purchases_per_cart")
    removals = carts * around("removals_per_cart")
    bought = purchases > 0
    events = views + carts + purchases + removals
    tenure = np.minimum(sessions * 2.0, 58) * rng.uniform(0.95, 1, len(planted))
    features = pd.DataFrame(
        {
            "user_id": rng.choice(np.arange(-(10**9), 10**9, 9973), len(planted), replace=False),
            "first_seen_at": pd.Timestamp("2019-10-01", tz="UTC"),
            "recency_days": np.where(bought, 60 - tenure, np.nan),
            "frequency_per_month": np.where(bought, purchases / 2, np.nan),
            "monetary_eur": purchases * price,
            "category_count": views / 3,
            "engagement_ratio": (carts + purchases) / views,
            "event_count": events,
            "view_count": views,
            "cart_count": carts,
            "removal_count": removals,
            "purchase_count": purchases,
            "session_count": sessions,
            "active_day_count": sessions * 0.9,
            "brand_count": views / 4,
            "purchased_category_count": purchases / 2,
            "viewed_value_eur": views * price,
            "carted_value_eur": carts * price,
            "average_basket_eur": np.where(bought, price * 1.5, np.nan),
            "average_viewed_price_eur": price,
            "average_purchase_price_eur": np.where(bought, price, np.nan),
            "max_purchase_price_eur": np.where(bought, price * 2, np.nan),
            "price_stddev_eur": price / 4,
            "weekend_ratio": rng.uniform(0.27, 0.3, len(planted)),
            "night_ratio": rng.uniform(0.05, 0.08, len(planted)),
            "conversion_ratio": purchases / views,
            "cart_ratio": carts / views,
            "cart_completion_ratio": np.where(carts > 0, purchases / carts, np.nan),
            "removal_ratio": np.where(carts > 0, removals / carts, np.nan),
            "purchase_session_ratio": np.minimum(purchases / sessions, 1) * 0.8,
            "events_per_session": events / sessions,
            "average_session_minutes": events / sessions * 2,
            "tenure_days": tenure,
            "inactivity_days": 60 - tenure,
        }
    )
    return features, pd.Series(planted, index=features["user_id"])


@pytest.fixture(scope="module")
def planted() -> tuple[pd.DataFrame, pd.Series]:
    return planted_users(120, seed=7)


def test_planted_groups_are_found_and_named(planted):
    features, types = planted
    members = fit_segments(features, seed=42).members.set_index("user_id")
    assert adjusted_rand_score(types.loc[members.index], members["cluster_label"]) > 0.99
    assert (members["segment_name"] == types.loc[members.index]).mean() > 0.99


def test_four_planted_groups_are_found_and_named():
    kept = ("Top Spender", "Loyal Customer", "Window Shopper", "Occasional Spender")
    features, types = planted_users(100, seed=8, types=kept)
    members = fit_segments(features, cluster_count=4, seed=42).members.set_index("user_id")
    expected = types.loc[members.index].replace("Top Spender", "Big Basket Buyer")
    assert (members["segment_name"] == expected).mean() > 0.99


def test_same_seed_and_shuffled_rows_give_the_same_bits(planted):
    features, _ = planted
    first = fit_segments(features, seed=3)
    for again in (fit_segments(features, seed=3), fit_segments(features.sample(frac=1, random_state=1), seed=3)):
        pd.testing.assert_frame_equal(first.members, again.members, check_exact=True)
        pd.testing.assert_frame_equal(first.centroids, again.centroids, check_exact=True)
        assert first.reasons == again.reasons
        assert (first.inertia, first.silhouette_ratio, first.explained_variance_ratio, first.iteration_count) == (
            again.inertia,
            again.silhouette_ratio,
            again.explained_variance_ratio,
            again.iteration_count,
        )


def test_the_input_is_left_alone(planted):
    features, _ = planted
    before = features.copy()
    fit_segments(features, seed=1)
    pd.testing.assert_frame_equal(features, before)


def test_agrees_with_a_plain_sklearn_pipeline(planted):
    features, _ = planted
    result = fit_segments(features, component_count=6, seed=5)

    ordered = features.sort_values("user_id")
    never_bought = max(ordered[name].max() for name in ("recency_days", "tenure_days", "inactivity_days")) + 1
    plain = ordered[list(FEATURES)].fillna({"recency_days": never_bought}).fillna(0.0)
    plain[list(LOG_FEATURES)] = np.log1p(plain[list(LOG_FEATURES)])
    pipeline = make_pipeline(StandardScaler(), PCA(6, svd_solver="full"), KMeans(5, n_init=10, random_state=5))
    labels = pipeline.fit_predict(plain.to_numpy())
    distances = pipeline.transform(plain.to_numpy())

    assert adjusted_rand_score(labels, result.members["cluster_label"]) == 1.0
    np.testing.assert_allclose(result.members["distance"], distances.min(axis=1), rtol=1e-6)
    assert result.inertia == pytest.approx(pipeline[-1].inertia_)
    assert result.explained_variance_ratio == pytest.approx(pipeline[1].explained_variance_ratio_.sum())
    assert result.component_count == 6
    assert result.silhouette_ratio == pytest.approx(silhouette_score(pipeline[:-1].transform(plain.to_numpy()), labels))

    weights = np.exp(-distances)
    np.testing.assert_allclose(result.members["proba"], (weights / weights.sum(axis=1, keepdims=True)).max(axis=1))


def test_proba_by_hand():
    # five users, five clusters: everyone sits on their own centroid, so the own distance is 0 and
    # proba = 1 / (1 + sum of exp(-distance to the four others)), computed here from the standardised features
    features, _ = planted_users(1, seed=2, noise=0)
    result = fit_segments(features, seed=1)
    plain = impute_features(features)
    plain[list(LOG_FEATURES)] = np.log1p(plain[list(LOG_FEATURES)])
    points = ((plain - plain.mean()) / plain.std(ddof=0)).fillna(0.0).to_numpy()
    for position, (_, user) in enumerate(result.members.iterrows()):
        others = np.delete(points, position, axis=0)
        expected = 1 / (1 + sum(np.exp(-np.linalg.norm(points[position] - other)) for other in others))
        assert user["distance"] == pytest.approx(0, abs=1e-6)
        assert user["proba"] == pytest.approx(expected, rel=1e-6)


def test_proba_is_the_largest_share_and_stays_finite_far_away(planted):
    features, _ = planted
    far = features.copy()
    far.loc[0, "monetary_eur"] = 1e12
    for frame in (features, far):
        members = fit_segments(frame, seed=42).members
        assert members["proba"].between(1 / 5, 1).all()
        assert np.isfinite(members["distance"]).all()


def test_centroids_are_means_in_feature_units(planted):
    features, _ = planted
    result = fit_segments(features, seed=42)
    assert tuple(result.centroids.columns) == ("segment_name", "user_count", "revenue_ratio", *FEATURES)
    assert result.centroids["user_count"].sum() == len(features)
    assert result.centroids["revenue_ratio"].sum() == pytest.approx(1)
    by_label = features.merge(result.members, on="user_id").groupby("cluster_label")
    pd.testing.assert_series_equal(result.centroids["view_count"], by_label["view_count"].mean())
    expected_share = by_label["monetary_eur"].sum() / features["monetary_eur"].sum()
    np.testing.assert_allclose(result.centroids["revenue_ratio"], expected_share)
    names = result.members.drop_duplicates("cluster_label").set_index("cluster_label")["segment_name"]
    assert result.centroids["segment_name"].to_dict() == names.to_dict()


def test_without_revenue_every_share_is_zero(planted):
    features, _ = planted
    result = fit_segments(features.assign(monetary_eur=0.0), seed=42)
    assert (result.centroids["revenue_ratio"] == 0).all()


def test_feature_lists_do_not_overlap():
    assert len(set(FEATURES)) == len(FEATURES) == len(LINEAR_FEATURES) + len(LOG_FEATURES) == 32
    assert set(NULL_MEANS_ZERO) < set(FEATURES)


# --- names and reasons ------------------------------------------------------------------------------------------------


def hand_made_centroids() -> pd.DataFrame:
    """One typical user per name, label = position; far simpler than any fit."""
    features, _ = planted_users(1, seed=0, noise=0)
    return features.fillna({"recency_days": 61}).fillna(0.0)[list(FEATURES)]


def test_names_of_hand_made_centroids():
    assert name_segments(hand_made_centroids()) == dict(enumerate(ARCHETYPES))


@pytest.mark.parametrize("order", [[4, 3, 2, 1, 0], [2, 0, 4, 1, 3], [1, 2, 3, 4, 0]])
def test_names_follow_the_centroid_not_the_label(order):
    centroids = hand_made_centroids()
    relabelled = centroids.iloc[order].set_axis(range(5))
    assert name_segments(relabelled) == {label: list(ARCHETYPES)[row] for label, row in enumerate(order)}


def test_names_are_given_once_each_even_to_equal_centroids():
    equal = pd.DataFrame(1.0, index=range(5), columns=list(FEATURES))
    assert sorted(name_segments(equal).values()) == sorted(NAMES_BY_CLUSTER_COUNT[5])


def test_names_exist_for_four_and_five_only():
    with pytest.raises(ValueError, match="no names for 3 segments"):
        name_segments(hand_made_centroids().head(3))


def test_reasons_name_the_three_largest_differences():
    standardised = pd.DataFrame(
        {"monetary_eur": [2.14, 0.0], "cart_ratio": [-0.42, 0.1], "view_count": [0.2, -3.0], "night_ratio": [0.7, 0.0]},
        index=[3, 0],
    )
    assert segment_reasons(standardised) == {
        3: "monetary_eur +2.1 sd, night_ratio +0.7 sd, cart_ratio \N{MINUS SIGN}0.4 sd",
        0: "view_count \N{MINUS SIGN}3.0 sd, cart_ratio +0.1 sd, monetary_eur +0.0 sd",
    }


def test_a_fit_gives_reasons_for_every_cluster(planted):
    features, _ = planted
    result = fit_segments(features, seed=42)
    assert set(result.reasons) == set(result.centroids.index)
    top = result.centroids.index[result.centroids["segment_name"] == "Top Spender"][0]
    assert "_eur +" in result.reasons[top]


# --- imputation -------------------------------------------------------------------------------------------------------


def test_imputation(planted):
    features, _ = planted
    imputed = impute_features(features)
    assert list(imputed.columns) == list(FEATURES)
    assert imputed.index.is_monotonic_increasing
    assert not imputed.isna().any().any()
    raw = features.set_index("user_id").sort_index()
    longest = raw[["recency_days", "tenure_days", "inactivity_days"]].max().max()
    assert (imputed.loc[raw["recency_days"].isna(), "recency_days"] == longest + 1).all()
    for name in NULL_MEANS_ZERO:
        assert (imputed.loc[raw[name].isna(), name] == 0).all()
    known = raw["recency_days"].notna()
    pd.testing.assert_series_equal(imputed.loc[known, "recency_days"], raw.loc[known, "recency_days"])


def test_imputation_takes_what_a_database_driver_hands_over(planted):
    features, _ = planted
    nullable = features.convert_dtypes()
    objects = features.astype({"monetary_eur": object, "recency_days": object}).replace({np.nan: None})
    decimals = features.assign(monetary_eur=[Decimal(str(value)) for value in features["monetary_eur"]])
    expected = impute_features(features)
    pd.testing.assert_frame_equal(impute_features(nullable), expected)
    pd.testing.assert_frame_equal(impute_features(decimals), expected)
    pd.testing.assert_frame_equal(impute_features(objects), expected)


# --- edges ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user_count", [5, 6])
def test_very_few_users(user_count):
    features, _ = planted_users(2, seed=4)
    one_of_each_type_first = features.iloc[[0, 2, 4, 6, 8, 1]]
    result = fit_segments(one_of_each_type_first.head(user_count), seed=1)
    assert len(result.members) == user_count
    assert result.component_count == user_count
    assert set(result.members["segment_name"]) == set(NAMES_BY_CLUSTER_COUNT[5])
    # five users in five clusters have no silhouette, six in five have one
    assert (result.silhouette_ratio is None) == (user_count == 5)


def test_fewer_users_than_clusters():
    features, _ = planted_users(1, seed=4)
    with pytest.raises(ValueError, match=r"4 users cannot form 5 segments: load more events"):
        fit_segments(features.head(4), seed=1)
    with pytest.raises(ValueError, match=r"0 users cannot form 5 segments"):
        fit_segments(features.head(0), seed=1)


@pytest.mark.filterwarnings("error")
def test_users_who_all_behave_alike():
    features, _ = planted_users(1, seed=4)
    alike = pd.concat([features.head(1)] * 20).assign(user_id=range(20))
    with pytest.raises(ValueError, match="20 users show only 1 different behaviours, too few for 5 segments"):
        fit_segments(alike, seed=1)


@pytest.mark.filterwarnings("error")
def test_constant_features_do_no_harm(planted):
    features, types = planted
    members = fit_segments(features.assign(night_ratio=0.25, price_stddev_eur=np.nan), seed=42).members
    members = members.set_index("user_id")
    assert adjusted_rand_score(types.loc[members.index], members["cluster_label"]) > 0.99


@pytest.mark.parametrize("cluster_count", [1, 3, 6])
def test_cluster_counts_without_names(planted, cluster_count):
    with pytest.raises(ValueError, match="choose cluster_count 4 or 5"):
        fit_segments(planted[0], cluster_count=cluster_count, seed=1)


def test_component_count(planted):
    assert fit_segments(planted[0], component_count=99, seed=1).component_count == len(FEATURES)
    with pytest.raises(ValueError, match="component_count is 0"):
        fit_segments(planted[0], component_count=0, seed=1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"monetary_eur": np.inf}, "monetary_eur holds an infinite value"),
        ({"view_count": -1.0}, "view_count holds a negative value"),
        ({"event_count": np.nan}, "event_count holds a null"),
        ({"user_id": 5}, "repeat a user_id"),
        ({"user_id": 0.5}, "expected whole numbers"),
        ({"user_id": None}, "null user_id"),
    ],
)
def test_damaged_features_are_refused(planted, damage, message):
    features, _ = planted
    with pytest.raises(ValueError, match=message):
        fit_segments(features.assign(**damage), seed=1)


def test_missing_columns_are_named(planted):
    features, _ = planted
    with pytest.raises(ValueError, match="lack the column\\(s\\) monetary_eur, cart_ratio"):
        fit_segments(features.drop(columns=["cart_ratio", "monetary_eur"]), seed=1)
