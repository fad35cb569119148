"""Writes what `ml` computed to the tables that dbt reads back. The only writer of the ``ml_`` schemas."""

import json
from datetime import datetime

import psycopg

from ml.ecommerce.segmentation import Segmentation
from warehouse.frames import write_frame
from warehouse.settings import now


def clear_segmentation(connection: psycopg.Connection) -> None:
    """Leave no user in a segment. Readers of the old members finish first, and a second writer waits."""
    connection.execute("truncate ml_ecommerce.customer_segments")


def write_segmentation(
    connection: psycopg.Connection,
    segmentation: Segmentation,
    *,
    run_id: str,
    seed: int,
    as_of: datetime,
    seconds: float,
) -> str:
    """Replace all members and add the run, in one transaction; return the model version (v1.0.N, N counts the fits)."""
    updated_at = now()
    with connection.transaction():
        clear_segmentation(connection)
        (fit_count,) = connection.execute("select count(*) from ml_ecommerce.customer_segments_runs").fetchone() or (0,)
        model_version = f"v1.0.{fit_count + 1}"
        names = segmentation.centroids["segment_name"]
        connection.execute(
            "insert into ml_ecommerce.customer_segments_runs values"
            " (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                run_id,
                model_version,
                seed,
                as_of,
                len(segmentation.members),
                len(segmentation.centroids),
                segmentation.component_count,
                segmentation.explained_variance_ratio,
                segmentation.inertia,
                segmentation.silhouette_ratio,
                segmentation.iteration_count,
                list(segmentation.feature_names),
                segmentation.centroids.set_index("segment_name").to_json(orient="index"),
                json.dumps({names[label]: reason for label, reason in segmentation.reasons.items()}),
                seconds,
                updated_at,
            ),
        )
        write_frame(
            connection,
            "ml_ecommerce.customer_segments",
            segmentation.members.assign(model_version=model_version, updated_at=updated_at),
        )
    return model_version
