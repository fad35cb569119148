"""KMeans of millions of points: many starts on a small sample, the best on larger ones, a few steps on all points.

scikit-learn looks for the optimum on the samples; the steps on all points are numpy by blocks, which is as fast and,
unlike scikit-learn's, gives the same bits on any number of threads. Knows nothing of users, features or segments.

Source: Lloyd (1982); k-means++, Arthur and Vassilvitskii (2007); the samples are lightweight coresets, Bachem, Lucic
and Krause (2018): far points are drawn more often and weigh less, or a sample of a long tail would miss its clusters.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from ml.ecommerce.blocks import map_blocks

# Measured where optima are many and close (long tails, many repeats): more starts on fewer points found better ones, in
# less time, than fewer starts on more points. They need only find an optimum; which is the best, a larger sample says.
START_COUNT = 200
START_SAMPLE_SIZE = 5_000
FINALIST_COUNT = 12
FINALIST_SAMPLE_SIZE = 200_000
# candidates within this share of each other's inertia have found the same optimum, or one not worth a second look
SAME_OPTIMUM_RATIO = 1e-5
STEP_COUNT = 10
# a step that moves the centres by less, squared and in mean variances, is the last
TOLERANCE_RATIO = 1e-6


@dataclass(frozen=True)
class Clusters:
    """A partition of n points of d dimensions into k clusters.

    centers: (k, d). labels: (n,) int8, of the nearest centre, in a tie the first; where fewer than k points differ,
    some label has no point. inertia: sum of squared distances to the own centre. step_count: Lloyd steps on all points.
    """

    centers: np.ndarray
    labels: np.ndarray
    inertia: float
    step_count: int


def fit_clusters(points: np.ndarray, *, cluster_count: int, seed: int, thread_count: int | None = None) -> Clusters:
    """Find `cluster_count` clusters with as little inertia as can be had.

    1. `START_COUNT` runs of k-means++ and Lloyd on a sample of `START_SAMPLE_SIZE` points.
    2. Their inertia is computed on a sample of `FINALIST_SAMPLE_SIZE`: the small one ranks close optima by luck. The
       best `FINALIST_COUNT` that differ go on with Lloyd there.
    3. The one with the least inertia on all points takes at most `STEP_COUNT` Lloyd steps on all points.

    A sample no smaller than the points is the points themselves, so a small set gets all its starts in full.

    points: (n, d) float64, n at least cluster_count, finite, in an order that is the same each time; centred, or
        nearly, since squares of large means would eat the digits of small distances. Left alone.
    cluster_count: at most 127.
    seed: of the samples and the starts.
    thread_count: of the steps on all points; None is one per core. The result does not depend on it.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(seed)
    with threadpool_limits(limits=1), warnings.catch_warnings():
        # fewer distinct points than clusters: the labels say so
        warnings.simplefilter("ignore", ConvergenceWarning)
        squared_distances = _squared_distances_to_mean(points, thread_count)
        chances = _chances(squared_distances)
        sample, weights = _sample(points, chances, START_SAMPLE_SIZE, rng)
        starts = [
            KMeans(cluster_count, n_init=1, random_state=int(start_seed))
            .fit(sample, sample_weight=weights)
            .cluster_centers_
            for start_seed in rng.integers(2**31, size=START_COUNT)
        ]
        sample, weights = _sample(points, chances, FINALIST_SAMPLE_SIZE, rng)
        finalists = [
            KMeans(cluster_count, init=centers, n_init=1, tol=TOLERANCE_RATIO)
            .fit(sample, sample_weight=weights)
            .cluster_centers_
            for centers in _best_that_differ(starts, _inertias(sample, weights, starts, thread_count))
        ]
        best = finalists[int(_inertias(points, None, finalists, thread_count).argmin())]
        tolerance = TOLERANCE_RATIO * float(squared_distances.mean()) / points.shape[1]
        centers, step_count = _steps(points, best, tolerance, thread_count)
        labels, own_squared_distances = _assign(points, centers, thread_count)
    return Clusters(centers, labels, float(own_squared_distances.sum()), step_count)


def _squared_distances_to_mean(points: np.ndarray, thread_count: int | None) -> np.ndarray:
    sums = map_blocks(lambda rows: points[rows].sum(axis=0), len(points), thread_count=thread_count)
    mean = np.sum(sums, axis=0) / len(points)
    squared_distances = np.empty(len(points))

    def compute(rows: slice) -> None:
        squared_distances[rows] = ((points[rows] - mean) ** 2).sum(axis=1)

    map_blocks(compute, len(points), thread_count=thread_count)
    return squared_distances


def _chances(squared_distances: np.ndarray) -> np.ndarray:
    """Each point's chance in a draw: half of it equal, half by the point's part in the variance (Bachem et al.)."""
    total = float(squared_distances.sum())
    equal = np.full(len(squared_distances), 1 / len(squared_distances))
    return equal if total == 0 else (equal + squared_distances / total) / 2


def _sample(
    points: np.ndarray, chances: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """About `size` points and the weights under which they stand for all; all points without weights, if no more."""
    if len(points) <= size:
        return points, None
    cumulated = np.cumsum(chances)
    # one draw in each of `size` equal parts of the chances: less left to luck than draws from the whole
    draws = (np.arange(size) + rng.random(size)) * (cumulated[-1] / size)
    rows, counts = np.unique(np.minimum(np.searchsorted(cumulated, draws), len(points) - 1), return_counts=True)
    return points[rows], counts / (size * chances[rows])


def _inertias(
    points: np.ndarray, weights: np.ndarray | None, candidates: list[np.ndarray], thread_count: int | None
) -> np.ndarray:
    """The inertia of the points around each candidate's centres, in one pass over the points."""

    def compute(rows: slice) -> np.ndarray:
        block = points[rows]
        squared_distances = np.stack([_compared_distances(block, centers).min(axis=0) for centers in candidates])
        squared_distances += (block**2).sum(axis=1)
        block_weights = np.ones(len(block)) if weights is None else weights[rows]
        block_inertias: np.ndarray = squared_distances @ block_weights
        return block_inertias

    sums = map_blocks(compute, len(points), thread_count=thread_count)
    return sum(sums, start=np.zeros(len(candidates)))


def _best_that_differ(candidates: list[np.ndarray], inertias: np.ndarray) -> list[np.ndarray]:
    chosen: list[int] = []
    for number in np.argsort(inertias, kind="stable"):
        if not chosen or inertias[number] > inertias[chosen[-1]] * (1 + SAME_OPTIMUM_RATIO):
            chosen.append(int(number))
    return [candidates[number] for number in chosen[:FINALIST_COUNT]]


def _steps(
    points: np.ndarray, centers: np.ndarray, tolerance: float, thread_count: int | None
) -> tuple[np.ndarray, int]:
    """Lloyd's steps on all points: the centres they end in, and how many there were."""
    step_count, shift = 0, np.inf
    while shift > tolerance and step_count < STEP_COUNT:
        moved = _step(points, centers, thread_count)
        shift = float(((moved - centers) ** 2).sum())
        centers = moved
        step_count += 1
    return centers, step_count


def _step(points: np.ndarray, centers: np.ndarray, thread_count: int | None) -> np.ndarray:
    """The means of the points nearest to each centre."""
    cluster_count, dimension_count = centers.shape
    numbers = np.arange(cluster_count, dtype=np.int8)[:, np.newaxis]

    def sums_and_counts(rows: slice) -> tuple[np.ndarray, np.ndarray]:
        is_member = (numbers == _nearest(points[rows], centers)).astype(np.float64)
        return is_member @ points[rows], is_member.sum(axis=1)

    sums, counts = np.zeros((cluster_count, dimension_count)), np.zeros(cluster_count)
    for block_sums, block_counts in map_blocks(sums_and_counts, len(points), thread_count=thread_count):
        sums += block_sums
        counts += block_counts
    moved = sums / np.maximum(counts, 1)[:, np.newaxis]
    is_empty = counts == 0
    if is_empty.any():
        # as in scikit-learn: a centre without points goes to the point that is farthest from its own
        _, squared_distances = _assign(points, centers, thread_count)
        moved[is_empty] = points[np.argsort(-squared_distances, kind="stable")[: is_empty.sum()]]
    return moved


def _assign(points: np.ndarray, centers: np.ndarray, thread_count: int | None) -> tuple[np.ndarray, np.ndarray]:
    """For each point the label of the nearest centre, int8, and the squared distance to it."""
    labels = np.empty(len(points), dtype=np.int8)
    squared_distances = np.empty(len(points))

    def compute(rows: slice) -> None:
        labels[rows] = _nearest(points[rows], centers)
        squared_distances[rows] = ((points[rows] - centers[labels[rows]]) ** 2).sum(axis=1)

    map_blocks(compute, len(points), thread_count=thread_count)
    return labels, squared_distances


def _nearest(block: np.ndarray, centers: np.ndarray) -> np.ndarray:
    distances = _compared_distances(block, centers)
    labels = np.zeros(len(block), dtype=np.int8)
    least = distances[0]
    for label in range(1, len(centers)):
        labels[distances[label] < least] = label
        least = np.minimum(least, distances[label])
    return labels


def _compared_distances(block: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """(k, rows): |x − c|² without |x|², which is the same for all centres."""
    distances: np.ndarray = (centers * -2) @ block.T
    distances += (centers**2).sum(axis=1)[:, np.newaxis]
    return distances
