"""How fast does the shop's simulator write, and in how much memory?

    python benchmarks/simulate_ecommerce.py [--events N] [--users N] [--months N] [--repeats N]

Each repeat runs the simulator in a process of its own, then the peer, turn by turn, so that a busy machine slows both.
Printed and written to benchmarks/results/simulate_ecommerce.json; medians over the repeats:

- simulator: everything from drawing customers to the manifest; rows/s, MB/s of CSV before compression, peak memory;
- peer: pandas `DataFrame.to_csv` with gzip at the same level, for the first PEER_ROW_COUNT of the same rows, already in
  memory. The peer only writes; the simulator also makes the rows up. ratio = simulator / peer in rows/s.
"""

import argparse
import gzip
import json
import multiprocessing
import os
import re
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from ingestion.ecommerce.simulator import NO_DIRT, simulate

RESULT_PATH = Path(__file__).parent / "results" / "simulate_ecommerce.json"
PEER_ROW_COUNT = 500_000
GZIP_LEVEL = 1
SEED = 42


@dataclass(frozen=True)
class Size:
    """What is simulated."""

    user_count: int
    event_count: int
    month_count: int


@dataclass(frozen=True)
class Run:
    """One run of the simulator, measured from inside its process."""

    seconds: float
    peak_memory_megabytes: float


def run_simulator(out: Path, size: Size) -> Run:
    """Simulate without dirt, so that the peer can be given the same rows as a frame."""
    simulation = simulate(out, seed=SEED, **asdict(size), dirt=NO_DIRT)
    # Not ru_maxrss, which a child inherits from the process that started it.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak_kilobytes = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak_kilobytes is not None
    return Run(simulation.seconds, int(peak_kilobytes[1]) / 1_000)


def run_in_new_process(out: Path, size: Size) -> Run:
    """Measure in a fresh process, whose memory is the simulator's alone."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run_simulator, out, size).result()


def run_peer(frame: pd.DataFrame, path: Path) -> float:
    """Seconds that pandas needs to write the frame."""
    started_at = time.perf_counter()
    frame.to_csv(path, index=False, float_format="%.2f", compression={"method": "gzip", "compresslevel": GZIP_LEVEL})
    return time.perf_counter() - started_at


def csv_megabytes(folder: Path) -> float:
    """Size of all files before compression."""
    byte_count = 0
    for path in folder.glob("*.csv.gz"):
        with gzip.open(path) as stream:
            while block := stream.read(1 << 20):
                byte_count += len(block)
    return byte_count / 1e6


def measure(size: Size, repeat_count: int) -> dict[str, object]:
    """All numbers of the table."""
    runs, peer_seconds = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out = folder / "simulated"
        for _ in range(repeat_count):
            runs.append(run_in_new_process(out, size))
            # Months come in order, so the first file is the first simulated.
            frame = pd.read_csv(out / "2019-Oct.csv.gz", nrows=PEER_ROW_COUNT)
            peer_seconds.append(run_peer(frame, folder / "peer.csv.gz"))
        megabytes = csv_megabytes(out)
        peer_row_count = len(frame)
    seconds = statistics.median(run.seconds for run in runs)
    rows_per_second = size.event_count / seconds
    peer_rows_per_second = peer_row_count / statistics.median(peer_seconds)
    return {
        **asdict(size),
        "repeat_count": repeat_count,
        "cpu_count": os.cpu_count(),
        "seconds": round(seconds, 3),
        "rows_per_second": round(rows_per_second),
        "csv_megabytes_per_second": round(megabytes / seconds, 1),
        "peak_memory_megabytes": round(max(run.peak_memory_megabytes for run in runs)),
        "peer": f"pandas {pd.__version__} to_csv, gzip level {GZIP_LEVEL}, {peer_row_count:,} of the same rows",
        "peer_rows_per_second": round(peer_rows_per_second),
        "ratio": round(rows_per_second / peer_rows_per_second, 1),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--months", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    result = measure(Size(arguments.users, arguments.events, arguments.months), arguments.repeats)
    for name, value in result.items():
        print(f"{name:28}{value:>14,}" if isinstance(value, int | float) else f"{name:28}{value}")
    RESULT_PATH.parent.mkdir(parents=True, exist_ok=True)
    RESULT_PATH.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
