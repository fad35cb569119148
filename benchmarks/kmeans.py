"""KMeans of all users: ours against scikit-learn's KMeans(n_init=10) and KMeans(n_init=1), on the same points.

    make bench-kmeans                  200,000 users × 9 features, 3 seeds
    ROWS=5800000 make bench-kmeans     the full size, 1 seed
    KINDS=mixed SEEDS=10 …             fewer kinds of points, more seeds

A line for each kind of points and seed, printed and, with all figures, written to benchmarks/results/kmeans.json:
inertia (sum of squared distances to the nearest centre, computed alike for all), seconds, CPU seconds and peak memory.
"/ 10" is ours divided by scikit-learn's with n_init=10, "/ 1" with n_init=1: 1 is as good, less is better. Each fit
runs in a process of its own and loads the points from a file, so that peaks can be compared; importing and loading are
not timed, but the points and the libraries are in the peak.

The kinds: overlapping Gaussian blobs, twelve of them for five clusters; lognormal features, with long tails and no
clusters at all; counts that are mostly 0, so that most users repeat another; and mixed, as features of users are: days,
counts, money that most did not spend, ratios. All standardised. The seeds played no part in development.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROWS = int(os.environ.get("ROWS", "200000"))
FIRST_SEED = 3001
SEEDS = range(FIRST_SEED, FIRST_SEED + int(os.environ.get("SEEDS", "3" if ROWS <= 500_000 else "1")))
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


def mixed(rng: np.random.Generator) -> Callable[[int], np.ndarray]:
    rates = rng.uniform(0.2, 3, 4)

    def block(size: int) -> np.ndarray:
        counts = rng.poisson(rng.exponential(1, (size, 1)) * rates)
        # many have the longest recency
        recency_days = np.minimum(rng.exponential(40, size), 90)
        tenure_days = rng.integers(0, 150, size)
        money = counts[:, 0] * np.exp(rng.normal(3, 1, size))
        price = np.exp(rng.normal(3, 0.8, size))
        ratio = counts[:, 1] / np.maximum(counts[:, 2], 1)
        return np.column_stack([recency_days, tenure_days, np.log1p(counts), money, price, ratio])

    return block


KINDS = {"blobs": blobs, "lognormal": lognormal, "repeats": repeats, "mixed": mixed}
CHOSEN_KINDS = os.environ.get("KINDS", ",".join(KINDS)).split(",")


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


def best_of_10(points: np.ndarray, seed: int) -> np.ndarray:
    return scikit_learn(points, seed, start_count=10)


def one_start(points: np.ndarray, seed: int) -> np.ndarray:
    return scikit_learn(points, seed, start_count=1)


def scikit_learn(points: np.ndarray, seed: int, start_count: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    return KMeans(CLUSTER_COUNT, n_init=start_count, random_state=seed).fit(points).cluster_centers_


METHODS = {"ours": ours, "KMeans(n_init=10)": best_of_10, "KMeans(n_init=1)": one_start}


def inertia_of(points: np.ndarray, centers: np.ndarray) -> float:
    total = 0.0
    for start in range(0, len(points), BLOCK_ROWS):
        block = points[start : start + BLOCK_ROWS]
        total += float(np.min([((block - center) ** 2).sum(axis=1) for center in centers], axis=0).sum())
    return total


def measure(path: Path, method: str, seed: int) -> dict[str, float]:
    """One method on the points of a file; run in a process of its own."""
    import sklearn.cluster  # noqa: F401 (imported before the clock starts)

    import ml.ecommerce.kmeans  # noqa: F401 (likewise)

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


def compare(kind: str, seed: int) -> dict[str, dict[str, float]]:
    """Every method's figures on the same points."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "points.npy"
        tell(f"{kind}, seed {seed}: making the points")
        in_own_process("make", kind, ROWS, seed, path)
        figures = {}
        for method in METHODS:
            tell(f"{kind}, seed {seed}: {method}")
            figures[method] = json.loads(in_own_process("measure", path, method, seed))
        return figures


def tell(progress: str) -> None:
    """The full size takes minutes: say what it is at, beside the table."""
    print(f"{time.strftime('%H:%M:%S')} {progress}", file=sys.stderr, flush=True)


def print_head() -> None:
    megabytes = ROWS * FEATURE_COUNT * 8 / 2**20
    print(f"{ROWS:,} users × {FEATURE_COUNT} features ({megabytes:,.0f} MB), {CLUSTER_COUNT} clusters")
    print(f"{'':<16}{'inertia':>18}{'seconds':>24}{'CPU seconds':>24}{'peak MB':>24}")
    print(f"{'kind':<10}{'seed':>6}{'/ 10':>9}{'/ 1':>9}" + f"{'ours':>10}{'/ 10':>7}{'/ 1':>7}" * 3, flush=True)


def print_line(kind: str, seed: int, figures: dict[str, dict[str, float]]) -> None:
    own, ten, one = (figures[method] for method in METHODS)
    line = f"{kind:<10}{seed:>6}{own['inertia'] / ten['inertia']:>9.5f}{own['inertia'] / one['inertia']:>9.5f}"
    for name in ("seconds", "cpu_seconds", "peak_megabytes"):
        line += f"{own[name]:>10,.{0 if name == 'peak_megabytes' else 2}f}"
        line += f"{own[name] / ten[name]:>7.2f}{own[name] / one[name]:>7.2f}"
    print(line, flush=True)


def main() -> None:
    """The table; with arguments, one step in a process of its own."""
    match sys.argv[1:]:
        case ["make", kind, count, seed, path]:
            np.save(path, points_of(kind, int(count), int(seed)))
        case ["measure", path, method, seed]:
            print(json.dumps(measure(Path(path), method, int(seed))))
        case _:
            print_head()
            fits = []
            for kind in CHOSEN_KINDS:
                for seed in SEEDS:
                    figures = compare(kind, seed)
                    print_line(kind, seed, figures)
                    fits.append({"kind": kind, "seed": seed, **figures})
            worse = sum(fit["ours"]["inertia"] > fit["KMeans(n_init=10)"]["inertia"] * (1 + 1e-4) for fit in fits)
            print(f"inertia more than 0.01 % above KMeans(n_init=10): {worse} of {len(fits)}")
            RESULT.parent.mkdir(exist_ok=True)
            RESULT.write_text(json.dumps({"rows": ROWS, "fits": fits}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
