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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

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
    history, last_day = write_files(directory / "files")
    agora("up")
    report: dict[str, Any] = {"rows": ROWS, "users": USERS, "cpu_count": os.cpu_count()}
    report["load"] = timed_load(history)
    report["full"] = timed_run()
    checks = agora("checksum", "ecommerce")
    if WITH_PEERS:
        report["peers"] = [peer(name, history, directory) for name in peer_names()]
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
    with measured() as measures:
        agora("load", "ecommerce.events", str(folder))
    rows, seconds = query(
        "select sum(rows_read), sum(seconds) from audit.loads where load_id > "
        f"{LAST_LOAD.pop() if LAST_LOAD else 0} and status = 'loaded'"
    )[0]
    LAST_LOAD.append(query("select max(load_id) from audit.loads")[0][0])
    return measures | {"rows": int(rows), "work_seconds": round(float(seconds), 2)}


LAST_LOAD: list[int] = []


def timed_run() -> dict[str, Any]:
    """One `agora run`, its work by stage: what is not work is starting Python, Dagster and dbt."""
    with measured() as measures:
        agora("run", "ecommerce")
    folder = Path(os.environ["AGORA_HOME"]) / "dbt"
    models = json.loads((folder / "ecommerce_models" / "run_results.json").read_text())
    marts = json.loads((folder / "ecommerce_marts" / "run_results.json").read_text())
    stages = {
        "clean and deduplicate": seconds_of(models, CLEANING),
        "features": seconds_of(models, FEATURES),
        "other models before the fit": seconds_of(models, None) - seconds_of(models, (*CLEANING, *FEATURES)),
        "tests before the fit": busy(models, is_test) - overlap(models),
        "fit the segments and write them": fit_seconds(),
        "marts, built and published": seconds_of(marts, None),
        "tests of the marts": busy(marts, is_test) - overlap(marts),
    }
    stages = {name: round(max(seconds, 0.0), 2) for name, seconds in stages.items()}
    return measures | {"stages": stages, "work_seconds": round(sum(stages.values()), 2)}


def is_test(result: dict[str, Any]) -> bool:
    return bool(result["unique_id"].startswith("test."))


def seconds_of(results: dict[str, Any], names: tuple[str, ...] | None) -> float:
    """Wall seconds in which any of these models was at work (all models without names)."""
    return busy(results, lambda r: not is_test(r) and (names is None or r["unique_id"].rpartition(".")[2] in names))


def overlap(results: dict[str, Any]) -> float:
    """Seconds in which tests ran beside models: counted as the models'."""
    return busy(results, is_test) + seconds_of(results, None) - busy(results, lambda _: True)


def busy(results: dict[str, Any], wanted: Any) -> float:
    """Length of the union of the spans in which the wanted nodes executed."""
    from datetime import datetime

    spans = sorted(
        (datetime.fromisoformat(timing["started_at"]), datetime.fromisoformat(timing["completed_at"]))
        for result in results["results"]
        if wanted(result)
        for timing in result["timing"]
        if timing["name"] == "execute"
    )
    total, reached = 0.0, None
    for start, end in spans:
        if reached is None or end > reached:
            total += (end - (start if reached is None else max(start, reached))).total_seconds()
            reached = end
    return total


def fit_seconds() -> float:
    import dagster as dg

    os.environ["DAGSTER_HOME"] = str(Path(os.environ["AGORA_HOME"]) / "dagster")
    with dg.DagsterInstance.get() as instance:
        run = instance.get_run_records(limit=1)[0].dagster_run
        (stats,) = instance.get_run_step_stats(run.run_id, ["ml_ecommerce__customer_segments"])
    assert stats.start_time is not None
    assert stats.end_time is not None
    return stats.end_time - stats.start_time


@contextlib.contextmanager
def measured() -> Iterator[dict[str, Any]]:
    """Wall seconds, and the peak of what commands and what the server's processes hold (shared memory counted once)."""
    measures: dict[str, Any] = {}
    peaks = {"commands_mb": 0.0, "server_mb": 0.0}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(1.0):
            peaks["commands_mb"] = max(peaks["commands_mb"], held_mb(psutil.Process()))
            server = server_process()
            if server:
                peaks["server_mb"] = max(peaks["server_mb"], held_mb(server) + proportional_mb(server))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    started = time.perf_counter()
    yield measures
    measures["wall_seconds"] = round(time.perf_counter() - started, 2)
    done.set()
    watcher.join()
    measures.update({kind: round(value) for kind, value in peaks.items()})


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


def peer_names() -> list[str]:
    from peers_ecommerce import PEERS

    return list(PEERS)


def peer(name: str, history: Path, directory: Path) -> dict[str, Any]:
    """Run one peer in a process of its own and compare each of its figures with ours."""
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
    rows = report["load"]["rows"]
    print(f"{rows:,} events of {report['users']:,} users, {report['cpu_count']} cores")
    print(f"{'stage':<44}{'seconds':>9}{'rows/s':>13}")
    work = report["load"]["work_seconds"] + report["full"]["work_seconds"]
    for name, seconds in {"land": report["load"]["work_seconds"], **report["full"]["stages"]}.items():
        print(f"{name:<44}{seconds:>9.1f}{rows / max(seconds, 0.01):>13,.0f}")
    wall = report["load"]["wall_seconds"] + report["full"]["wall_seconds"]
    print(f"{'work':<44}{work:>9.1f}{rows / work:>13,.0f}")
    print(f"{'wall, with starting Python, Dagster and dbt':<44}{wall:>9.1f}{rows / wall:>13,.0f}")
    for name in ("load", "full"):
        part = report[name]
        print(f"peak memory of {name}: commands {part['commands_mb']:,} MB, server {part['server_mb']:,} MB")
    to_features = report["load"]["work_seconds"] + sum(
        report["full"]["stages"][name] for name in ("clean and deduplicate", "features")
    )
    print(f"\n{'the same totals per user by':<44}{'seconds':>9}{'peak MB':>10}{'agora takes':>14}")
    print(f"{'agora: land, clean, deduplicate, features':<44}{to_features:>9.1f}{'':>10}{1:>13.1f}×")
    for one in report.get("peers", []):
        if "error" in one:
            print(f"{one['name']:<44}  {one['error'][:80]}")
        else:
            ratio = to_features / one["seconds"]
            print(f"{one['name']:<44}{one['seconds']:>9.1f}{one['peak_mb']:>10,}{ratio:>13.1f}×")
    full = report["load"]["work_seconds"] + report["full"]["work_seconds"]
    print(f"\n{'then':<44}{'seconds':>9}{'of the full build':>19}")
    for title, load, run in (("one more day", "day_load", "day"), ("a month dropped again", "month_load", "month")):
        until_features = report[load]["work_seconds"] + sum(
            report[run]["stages"][name] for name in ("clean and deduplicate", "features")
        )
        seconds = report[load]["work_seconds"] + report[run]["work_seconds"]
        what = f"{title}: {report[load]['rows']:,} rows"
        print(f"{what:<44}{seconds:>9.1f}{seconds / full:>18.1%}")
        print(f"{'   of it from file to features':<44}{until_features:>9.1f}{until_features / to_features:>18.1%}")
    print("a full rebuild afterwards gives the same checksums; every figure of every peer is ours")


if __name__ == "__main__":
    main()
