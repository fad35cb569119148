"""KMeans of all users: ours against scikit-learn's, on the same points in the same run.

    make bench-kmeans            5,800,000 users × 9 features, some minutes; USERS=500000 make bench-kmeans for fewer

Two tables, printed and written to benchmarks/results/kmeans.json:

- at full size, for each kind of points: inertia (sum of squared distances to the nearest centre, computed alike for
  all), seconds, CPU seconds and peak memory of each method. Each runs in a process of its own and loads the points
  from a file, so that peaks can be compared; importing and loading are not timed, but the points are in the peak.
- on 200,000 users and 10 seeds: our inertia / that of scikit-learn's best of ten starts; 1 is as good, less is better.

The kinds: overlapping Gaussian blobs, twelve of them for five clusters; lognormal features, with long tails and no
clusters at all; counts that are mostly 0, so that most users repeat another. All standardised. The seeds played no part
in development.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

USERS = int(os.environ.get("USERS", "5800000"))
QUALITY_USERS = int(os.environ.get("QUALITY_USERS", "200000"))
SEEDS = range(3001, 3001 + int(os.environ.get("SEEDS", "10")))
FEATURE_COUNT = 9
CLUSTER_COUNT = 5
BLOCK_ROWS = 100_000
RESULT = Path(__file__).parent / "results" / "kmeans.json"


def blobs(rng: np.random.Generator) -> Callable[[int], np.ndarray]:
    centers = rng.normal(0, 1.5, (12, FEATURE_COUNT))
    deviations, shares = rng.uniform(0.5, 1.5, (12, 1)), rng.dirichlet(np.ones(12))

    def block(size: int) -> np.ndarray:
        labels = rng.choice(12, size, p=shares)
        return centers[labels] + rng.normal(0, 1, (size, FEATURE_COUNT)) * deviations[labels]

    return block


def lognormal(rng: np.random.Generator) -> Callable[[int], np.ndarray]:
    mixing = (rng.normal(0, 0.5, (FEATURE_COUNT, FEATURE_COUNT)) + np.eye(FEATURE_COUNT)).T
    mixing = mixing * rng.uniform(0.3, 1.2, FEATURE_COUNT)
    return lambda size: np.exp(rng.normal(0, 1, (size, FEATURE_COUNT)) @ mixing)


def repeats(rng: np.random.Generator) -> Callable[[int], np.ndarray]:
    def block(size: int) -> np.ndarray:
        return rng.negative_binomial(0.5, 0.3, (size, FEATURE_COUNT)) * (rng.random((size, FEATURE_COUNT)) < 0.4)

    return block


KINDS = {"blobs": blobs, "lognormal": lognormal, "repeats": repeats}


def points_of(kind: str, count: int, seed: int) -> np.ndarray:
    """(count, FEATURE_COUNT) standardised points, made by blocks."""
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    block = KINDS[kind](rng)
    points = np.empty((count, FEATURE_COUNT))
    for start in range(0, count, BLOCK_ROWS):
        points[start : start + BLOCK_ROWS] = block(min(BLOCK_ROWS, count - start))
    points -= points.mean(axis=0)
    points /= np.sqrt(np.einsum("ij,ij->j", points, points) / count)
    return points


def ours(points: np.ndarray, seed: int) -> np.ndarray:
    from ml.ecommerce.kmeans import fit_clusters

    return fit_clusters(points, cluster_count=CLUSTER_COUNT, seed=seed).centers


def sklearn_10(points: np.ndarray, seed: int) -> np.ndarray:
    return sklearn_of(points, seed, start_count=10)


def sklearn_1(points: np.ndarray, seed: int) -> np.ndarray:
    return sklearn_of(points, seed, start_count=1)


def sklearn_of(points: np.ndarray, seed: int, start_count: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    return KMeans(CLUSTER_COUNT, n_init=start_count, random_state=seed).fit(points).cluster_centers_


def minibatch(points: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.cluster import MiniBatchKMeans

    return MiniBatchKMeans(CLUSTER_COUNT, n_init=3, random_state=seed).fit(points).cluster_centers_


METHODS = {
    "ours": ours,
    "scikit-learn, best of 10": sklearn_10,
    "scikit-learn, 1 start": sklearn_1,
    "scikit-learn, mini batches": minibatch,
}


def inertia_of(points: np.ndarray, centers: np.ndarray) -> float:
    total = 0.0
    for start in range(0, len(points), BLOCK_ROWS):
        block = points[start : start + BLOCK_ROWS]
        total += float(np.min([((block - center) ** 2).sum(axis=1) for center in centers], axis=0).sum())
    return total


def measure(path: Path, method: str, seed: int) -> dict[str, float]:
    """One method on the points of a file; run in a process of its own."""
    import sklearn.cluster  # noqa: F401 (imported before the clock starts)

    import ml.ecommerce.kmeans  # noqa: F401

    points = np.load(path)
    started, cpu_started = time.perf_counter(), time.process_time()
    centers = METHODS[method](points, seed)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    peak_megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "inertia": inertia_of(points, centers),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "peak_megabytes": round(peak_megabytes),
    }


def in_own_process(*arguments: object) -> str:
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def full_size() -> dict[str, dict[str, dict[str, float]]]:
    report: dict[str, dict[str, dict[str, float]]] = {}
    print(
        f"{USERS:,} users × {FEATURE_COUNT} features, {CLUSTER_COUNT} clusters ({points_megabytes():,.0f} MB of points)"
    )
    print(f"{'':<12}{'':<28}{'inertia':>16}{'/ best of 10':>14}{'seconds':>9}{'CPU s':>8}{'peak MB':>9}")
    for kind in KINDS:
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/tmp")) as directory:
            path = Path(directory) / "points.npy"
            in_own_process("make", kind, USERS, SEEDS[0], path)
            report[kind] = {name: json.loads(in_own_process("measure", path, name, SEEDS[0])) for name in METHODS}
        for name, figures in report[kind].items():
            ratio = figures["inertia"] / report[kind]["scikit-learn, best of 10"]["inertia"]
            print(
                f"{kind:<12}{name:<28}{figures['inertia']:>16,.1f}{ratio:>14.5f}{figures['seconds']:>9.2f}"
                f"{figures['cpu_seconds']:>8.2f}{figures['peak_megabytes']:>9,.0f}",
                flush=True,
            )
    return report


def points_megabytes() -> float:
    return USERS * FEATURE_COUNT * 8 / 2**20


def quality() -> dict[str, list[float]]:
    print(f"\nOur inertia / scikit-learn's best of 10, {QUALITY_USERS:,} users, seeds {SEEDS[0]} to {SEEDS[-1]}")
    print(f"{'':<12}{'best':>10}{'median':>10}{'worst':>10}{'not worse':>12}")
    report = {}
    for kind in KINDS:
        ratios = []
        for seed in SEEDS:
            points = points_of(kind, QUALITY_USERS, seed)
            ratios.append(inertia_of(points, ours(points, seed)) / inertia_of(points, sklearn_10(points, seed)))
        report[kind] = ratios
        # scikit-learn stops a little before the optimum, and so do we: five digits are the same optimum
        count = sum(ratio <= 1.00001 for ratio in ratios)
        print(
            f"{kind:<12}{min(ratios):>10.5f}{statistics.median(ratios):>10.5f}{max(ratios):>10.5f}"
            f"{f'{count} of {len(ratios)}':>12}",
            flush=True,
        )
    return report


def main() -> None:
    """Both tables; with arguments, one step in a process of its own."""
    match sys.argv[1:]:
        case ["make", kind, count, seed, path]:
            np.save(path, points_of(kind, int(count), int(seed)))
        case ["measure", path, method, seed]:
            print(json.dumps(measure(Path(path), method, int(seed))))
        case _:
            report = {"users": USERS, "full_size": full_size(), "quality_users": QUALITY_USERS, "quality": quality()}
            RESULT.parent.mkdir(exist_ok=True)
            RESULT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
