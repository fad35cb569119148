"""The shop's customer segments: reads the features, fits, writes members and the record of the run."""

import json
import time
from collections.abc import Iterator

import dagster as dg

from orchestration.defs.ecommerce.raw import FRESH
from orchestration.results import clear_segmentation, write_segmentation
from warehouse.connections import connect
from warehouse.frames import read_frame

SHOWN = ["user_count", "revenue_ratio", "monetary_eur", "view_count", "cart_count", "purchase_count"]
INPUT = "intermediate.int_ecommerce__user_features"


class Fit(dg.Config):
    cluster_count: int = 5
    component_count: int = 10
    seed: int = 42


SEGMENTS = dg.AssetKey(["ml_ecommerce", "customer_segments"])


@dg.asset(
    key=SEGMENTS,
    deps=[dg.AssetKey(["intermediate", "int_ecommerce__user_features"])],
    group_name="ecommerce",
    kinds={"scikitlearn", "postgres"},
    freshness_policy=FRESH,
    check_specs=[dg.AssetCheckSpec("is_fitted", asset=SEGMENTS, description="There were users enough to segment.")],
    required_resource_keys={"ecommerce_run_lock"},
)
def customer_segments(
    context: dg.AssetExecutionContext, config: Fit
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """One row per user: standardise → PCA → KMeans, fitted once on all users; names from centroid rules."""
    from ml.ecommerce.segmentation import FEATURES, TooFewUsersError, fit_segments

    started = time.monotonic()
    # as the model computes: without a second column for the nulls of each whole number
    columns = ", ".join(f"cast({name} as double precision) as {name}" for name in FEATURES)
    with connect("ml") as connection:
        [(as_of,)] = connection.execute(f"select max(as_of_at) from {INPUT}").fetchall()  # noqa: S608 constants of ours
        features = read_frame(connection, f"select user_id, {columns} from {INPUT}")  # noqa: S608 likewise
    features = features.sort_values("user_id", ignore_index=True)
    try:
        segmentation = fit_segments(
            features, cluster_count=config.cluster_count, component_count=config.component_count, seed=config.seed
        )
    except TooFewUsersError as error:
        # no segments rather than old ones: those who were undone must not stay in them
        with connect("ml") as connection:
            clear_segmentation(connection)
        yield dg.MaterializeResult(metadata={"dagster/row_count": 0})
        yield dg.AssetCheckResult(passed=False, metadata={"reason": str(error)})
        return
    with connect("ml") as connection:
        model_version = write_segmentation(
            connection,
            segmentation,
            run_id=context.run_id,
            seed=config.seed,
            as_of=as_of,
            seconds=time.monotonic() - started,
        )
    yield dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(segmentation.members),
            "model_version": model_version,
            "silhouette_ratio": segmentation.silhouette_ratio,
            "explained_variance_ratio": segmentation.explained_variance_ratio,
            "inertia": segmentation.inertia,
            "segments": dg.MetadataValue.json(
                json.loads(segmentation.centroids.set_index("segment_name")[SHOWN].to_json(orient="index"))
            ),
        }
    )
    yield dg.AssetCheckResult(passed=True)
