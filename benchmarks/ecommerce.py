"""The shop's whole way, csv.gz to published segments, stage by stage, beside DuckDB, Polars and pandas on those files.

    make bench-ecommerce                      2,000,000 events; ROWS=17000000 make bench-ecommerce for the report's size
    PEERS=no make bench-ecommerce             without the peers

Everything happens in a throw-away warehouse, by the commands a user would type. Then one more day arrives, then a month
is dropped again: what they cost beside the full build, and whether a full rebuild gives the same checksums. The peers
(`peers_ecommerce.py`) compute the totals per user from the same files; every one of their figures is compared.
"""

import contextlib
import dataclasses
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from peers_ecommerce import PEERS

ROWS = int(os.environ.get("ROWS", "2000000"))
USERS = max(ROWS * 15 // 100, 10)
SEED = 23
WITH_PEERS = os.environ.get("PEERS", "yes") != "no"
RESULT = Path(__file__).parent / "results" / "ecommerce.json"
AGORA = Path(sys.executable).parent / "agora"
# models of the first dbt step by what they do; the rest of the step is called "other models"
CLEANING = ("int_ecommerce__events", "int_ecommerce__duplicate_events", "rejected_ecommerce__events")
FEATURES = ("int_ecommerce__user_totals", "int_ecommerce__as_of", "int_ecommerce__user_features")
MONEY_TOLERANCE_EUR = 0.0051


def main() -> None:
    directory = Path(tempfile.mkdtemp(prefix="agora-", dir=os.environ.get("BENCH_DIR", "/tmp")))
    directory.chmod(0o711)
    for name in [name for name in os.environ if name.startswith(("PG", "AGORA_"))]:
        del os.environ[name]
    os.environ["AGORA_HOME"] = str(directory / "home")
    from warehouse import embedded, settings

    try:
        report = measure(directory)
        show(report)
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(report, indent=2) + "\n")
    finally:
        embedded.destroy(settings.home())
        shutil.rmtree(directory, ignore_errors=True)


def measure(directory: Path) -> dict[str, Any]:
    tell(f"write {ROWS:,} events")
    history, last_day = write_files(directory / "files")
    agora("up")
    report: dict[str, Any] = {"rows": ROWS, "users": USERS, "cpu_count": os.cpu_count()}
    report["load"] = timed_load(history)
    report["full"] = timed_run()
    checks = agora("checksum", "ecommerce")
    if WITH_PEERS:
        report["peers"] = [peer(name, history, directory) for name in PEERS]
    settled = newest_transaction()
    report["day_load"] = timed_load(last_day)
    report["day"] = timed_run() | {"users_recomputed": users_written_since(settled)}
    touched = touched_users(last_day)
    assert report["day"]["users_recomputed"] == touched, (report["day"], touched)
    report["day_load"]["users"] = touched
    with_day = agora("checksum", "ecommerce")
    assert with_day != checks
    report["month_load"] = timed_load(dropped_again(history))
    report["month"] = timed_run()
    before_rebuild = agora("checksum", "ecommerce")
    tell("rebuild everything")
    agora("run", "ecommerce", "--full-refresh")
    assert agora("checksum", "ecommerce") == before_rebuild, "a full rebuild gives other tables"
    report["rebuild_gives_the_same"] = True
    return report


def write_files(folder: Path) -> tuple[Path, Path]:
    """Seven months but for their last day, and that day: dirty as to rules and repeats, but readable for peers."""
    from ingestion.ecommerce.simulation.dirt import BROKEN_LINE_KINDS
    from ingestion.ecommerce.simulator import DEFAULT_DIRT, simulate

    unreadable = (*BROKEN_LINE_KINDS, "null_user", "null_product", "null_session", "foreign_date")
    dirt = dataclasses.replace(DEFAULT_DIRT, **dict.fromkeys(unreadable, 0.0))
    history, last_day = folder / "history", folder / "day"
    last_day.mkdir(parents=True)
    simulation = simulate(history, seed=SEED, user_count=USERS, event_count=ROWS, month_count=7, dirt=dirt)
    month = simulation.files[-1]
    day = b"2020-04-30"
    with gzip.open(month) as lines:
        header, *rows = lines.readlines()
    with gzip.open(last_day / "2020-Apr-30.csv.gz", "wb", compresslevel=1) as out:
        out.writelines([header, *(row for row in rows if row.startswith(day))])
    with gzip.open(month, "wb", compresslevel=1) as out:
        out.writelines([header, *(row for row in rows if not row.startswith(day))])
    return history, last_day


def dropped_again(history: Path) -> Path:
    """The first month once more, its last line gone: other bytes under the same name."""
    month = history / "2019-Oct.csv.gz"
    with gzip.open(month) as lines:
        rows = lines.readlines()
    again = history.parent / "again"
    again.mkdir()
    with gzip.open(again / month.name, "wb", compresslevel=1) as out:
        out.writelines(rows[:-1])
    return again


def timed_load(folder: Path) -> dict[str, Any]:
    tell(f"load {folder.name}")
    [(loaded_before,)] = query("select coalesce(max(load_id), 0) from audit.loads")
    with measured() as (measures, _):
        agora("load", "ecommerce.events", str(folder))
    [(rows, seconds)] = query(
        f"select sum(rows_read), sum(seconds) from audit.loads where load_id > {loaded_before} and status = 'loaded'"
    )
    return measures | {"rows": int(rows), "work_seconds": round(float(seconds), 2)}


def timed_run() -> dict[str, Any]:
    """One `agora run`, its work by stage: what is not work is starting Python, Dagster and dbt."""
    tell("run")
    with measured() as (measures, samples):
        agora("run", "ecommerce")
    folder = Path(os.environ["AGORA_HOME"]) / "dbt"
    models = json.loads((folder / "ecommerce_models" / "run_results.json").read_text())["results"]
    marts = json.loads((folder / "ecommerce_marts" / "run_results.json").read_text())["results"]
    others = [result for result in models if not is_test(result) and name_of(result) not in (*CLEANING, *FEATURES)]
    # what ran beside a stage before it is counted there
    spans_by_stage = {
        "clean and deduplicate": spans(result for result in models if name_of(result) in CLEANING),
        "features": spans(result for result in models if name_of(result) in FEATURES),
        "other models before the fit": spans(others),
        "tests before the fit": spans(result for result in models if is_test(result)),
        "fit the segments and write them": [fit_span()],
        "marts, built and published": spans(result for result in marts if not is_test(result)),
        "tests of the marts": spans(result for result in marts if is_test(result)),
    }
    stages, counted = {}, []
    for name, busy in spans_by_stage.items():
        seconds = length([*counted, *busy]) - length(counted)
        counted += busy
        stages[name] = {"seconds": round(seconds, 2), "peak_mb": peak_mb(samples, busy)}
    return measures | {"stages": stages, "work_seconds": round(length(counted), 2)}


Span = tuple[float, float]
# seconds since 1970, commands MB, server MB
Sample = tuple[float, float, float]


def is_test(result: dict[str, Any]) -> bool:
    return bool(result["unique_id"].startswith("test."))


def name_of(result: dict[str, Any]) -> str:
    return str(result["unique_id"].rpartition(".")[2])


def spans(results: Iterable[dict[str, Any]]) -> list[Span]:
    """When these nodes executed, in seconds since 1970."""
    return [
        (seconds_since_1970(timing["started_at"]), seconds_since_1970(timing["completed_at"]))
        for result in results
        for timing in result["timing"]
        if timing["name"] == "execute"
    ]


def seconds_since_1970(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def length(busy: Iterable[Span]) -> float:
    """Seconds covered by the spans, which may overlap."""
    total, reached = 0.0, 0.0
    for start, end in sorted(busy):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def peak_mb(samples: list[Sample], busy: list[Span]) -> int:
    """The most that commands and server held together in these spans; looked at once a second, so 0 for a blink."""
    held = [commands + server for at, commands, server in samples if any(start <= at <= end + 1 for start, end in busy)]
    return round(max(held, default=0))


def fit_span() -> Span:
    import dagster as dg

    os.environ["DAGSTER_HOME"] = str(Path(os.environ["AGORA_HOME"]) / "dagster")
    with dg.DagsterInstance.get() as instance:
        run = instance.get_run_records(limit=1)[0].dagster_run
        (stats,) = instance.get_run_step_stats(run.run_id, ["ml_ecommerce__customer_segments"])
    assert stats.start_time is not None
    assert stats.end_time is not None
    return stats.start_time, stats.end_time


@contextlib.contextmanager
def measured() -> Iterator[tuple[dict[str, Any], list[Sample]]]:
    """Wall seconds, and each second what commands and the server's processes hold (shared memory counted once)."""
    measures: dict[str, Any] = {}
    samples: list[Sample] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(1.0):
            server = server_process()
            server_mb = held_mb(server) + proportional_mb(server) if server else 0.0
            samples.append((time.time(), held_mb(psutil.Process()), server_mb))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    started = time.perf_counter()
    yield measures, samples
    measures["wall_seconds"] = round(time.perf_counter() - started, 2)
    done.set()
    watcher.join()
    measures["commands_mb"] = round(max((commands for _, commands, _ in samples), default=0))
    measures["server_mb"] = round(max((server for _, _, server in samples), default=0))


def held_mb(parent: psutil.Process) -> float:
    """Memory of all that descends from a process; what several share is counted once."""
    with contextlib.suppress(psutil.Error):
        return sum(proportional_mb(child) for child in parent.children(recursive=True))
    return 0.0


def proportional_mb(process: psutil.Process) -> float:
    with contextlib.suppress(OSError, ValueError, IndexError):
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        return int(rollup.partition("\nPss:")[2].split()[0]) / 1024
    return 0.0


def server_process() -> psutil.Process | None:
    pid_files = list(Path(os.environ["AGORA_HOME"]).rglob("postmaster.pid"))
    with contextlib.suppress(psutil.Error, IndexError, OSError):
        return psutil.Process(int(pid_files[0].read_text().split()[0]))
    return None


def tell(what: str) -> None:
    print(f"  {what} …", file=sys.stderr, flush=True)


def agora(*arguments: str) -> str:
    done = subprocess.run([AGORA, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (arguments, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


def query(statement: str) -> list[tuple[Any, ...]]:
    from warehouse.connections import connect

    with connect() as connection:
        return connection.execute(statement.encode()).fetchall()


def newest_transaction() -> int:
    return int(query("select max(xmin::text::bigint) from intermediate.int_ecommerce__user_totals")[0][0])


def users_written_since(transaction: int) -> int:
    return int(
        query(
            "select count(*) from intermediate.int_ecommerce__user_totals where xmin::text::bigint > "
            + str(transaction)
        )[0][0]
    )


def touched_users(folder: Path) -> int:
    """Users with a line in these files that the cleaning rules keep, counted from the files' landed rows."""
    loads = query(f"select load_id from audit.loads where file_name = '{next(folder.iterdir()).name}'")
    return int(
        query(
            "select count(distinct user_id) from staging.stg_ecommerce__events"
            f" where is_clean and _load_id = {loads[0][0]}"
        )[0][0]
    )


def peer(name: str, history: Path, directory: Path) -> dict[str, Any]:
    """Run one peer in a process of its own and compare each of its figures with ours."""
    tell(name)
    out = directory / f"{name}.parquet"
    command = [sys.executable, str(Path(__file__).parent / "peers_ecommerce.py"), name, str(history), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"name": name, "error": done.stderr.strip().splitlines()[-1] if done.stderr else str(done.returncode)}
    figures = json.loads(done.stdout.splitlines()[-1])
    users, different = compare(out)
    assert different == 0, f"{name}: {different} of {users} users differ"
    return {"name": name, **figures, "users_compared": users, "users_that_differ": different}


def compare(path: Path) -> tuple[int, int]:
    import duckdb

    from ingestion.keys import pseudonyms
    from warehouse.connections import connect
    from warehouse.frames import read_frame

    with connect() as connection:
        ours = read_frame(connection, "select * from intermediate.int_ecommerce__user_totals")
    theirs = duckdb.read_parquet(str(path)).df()
    theirs["user_id"] = [pseudonym for _, pseudonym in pseudonyms("ecommerce", map(str, theirs["user_id"]))]
    joined = ours.merge(theirs, on="user_id", how="outer", suffixes=("", "_peer"), indicator=True)
    different = joined["_merge"] != "both"
    for name in theirs.columns.drop("user_id"):
        one, other = joined[name].astype("float64"), joined[f"{name}_peer"].astype("float64")
        tolerance = MONEY_TOLERANCE_EUR if name.endswith("_eur") else 0.0
        different |= ((one - other).abs() > tolerance) | (one.isna() != other.isna())
    return len(joined), int(different.sum())


def show(report: dict[str, Any]) -> None:
    rows, load, full = report["load"]["rows"], report["load"], report["full"]
    print(f"{rows:,} events of {report['users']:,} users, {report['cpu_count']} cores")
    print(f"{'stage':<44}{'seconds':>9}{'rows/s':>13}{'peak MB':>10}")
    land = {"seconds": load["work_seconds"], "peak_mb": load["commands_mb"] + load["server_mb"]}
    for name, stage in {"land": land, **full["stages"]}.items():
        seconds = stage["seconds"]
        print(f"{name:<44}{seconds:>9.1f}{rows / max(seconds, 0.01):>13,.0f}{stage['peak_mb']:>10,}")
    work = load["work_seconds"] + full["work_seconds"]
    wall = load["wall_seconds"] + full["wall_seconds"]
    print(f"{'work':<44}{work:>9.1f}{rows / work:>13,.0f}")
    print(f"{'wall, with starting Python, Dagster and dbt':<44}{wall:>9.1f}{rows / wall:>13,.0f}")
    for name in ("load", "full"):
        part = report[name]
        print(f"peak memory of {name}: commands {part['commands_mb']:,} MB, server {part['server_mb']:,} MB")
    to_features = until_features(report, "load", "full")
    print(f"\n{'the same totals per user by':<44}{'seconds':>9}{'peak MB':>10}{'agora takes':>14}")
    print(f"{'agora: land, clean, deduplicate, features':<44}{to_features:>9.1f}{'':>10}{1:>13.1f}×")
    for one in report.get("peers", []):
        if "error" in one:
            print(f"{one['name']:<44}  {one['error'][:80]}")
        else:
            ratio = to_features / one["seconds"]
            print(f"{one['name']:<44}{one['seconds']:>9.1f}{one['peak_mb']:>10,}{ratio:>13.1f}×")
    print(f"\n{'then':<44}{'seconds':>9}{'of the full build':>19}")
    for title, loaded, run in (("one more day", "day_load", "day"), ("a month dropped again", "month_load", "month")):
        seconds = report[loaded]["work_seconds"] + report[run]["work_seconds"]
        what = f"{title}: {report[loaded]['rows']:,} rows"
        print(f"{what:<44}{seconds:>9.1f}{seconds / work:>18.1%}")
        of_it = until_features(report, loaded, run)
        print(f"{'   of it from file to features':<44}{of_it:>9.1f}{of_it / to_features:>18.1%}")
    print("a full rebuild afterwards gives the same checksums")
    if WITH_PEERS:
        print("every figure of every peer that ran is ours")


def until_features(report: dict[str, Any], load: str, run: str) -> float:
    stages = report[run]["stages"]
    return float(
        report[load]["work_seconds"] + stages["clean and deduplicate"]["seconds"] + stages["features"]["seconds"]
    )


if __name__ == "__main__":
    main()
