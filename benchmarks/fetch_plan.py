"""What a million events take: bytes on disk per row, at rest and at the worst moment, and seconds to build.

    make bench-fetch-plan            2,000,000 simulated events; ROWS=10000000 make bench-fetch-plan for more

Everything happens in a throw-away warehouse, by the commands a user gives. `agora fetch-plan` scales these figures.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROWS = int(os.environ.get("ROWS", "2000000"))
SEED = 11
MONTHS = 2
AGORA = Path(sys.executable).parent / "agora"
RESULT = Path(__file__).parent / "results" / "fetch_plan.json"
SIZES = """
    select
        case when nspname like 'raw%' then 'raw' when nspname = 'ecommerce' then 'marts' else 'built' end,
        sum(pg_total_relation_size(pg_class.oid))
    from pg_class inner join pg_namespace on pg_namespace.oid = relnamespace
    where relkind in ('r', 'm') and nspname not like 'pg\\_%' and nspname <> 'information_schema'
    group by 1
"""


def main() -> None:
    directory = Path(tempfile.mkdtemp(prefix="agora-", dir="/tmp"))
    directory.chmod(0o711)
    for name in [name for name in os.environ if name.startswith(("PG", "AGORA_", "DBT_"))]:
        del os.environ[name]
    os.environ["AGORA_HOME"] = str(directory / "home")
    from warehouse import embedded, settings

    try:
        measure(directory / "files")
    finally:
        embedded.destroy(settings.home())
        shutil.rmtree(directory, ignore_errors=True)


def measure(files: Path) -> None:
    from warehouse import embedded, settings
    from warehouse.bootstrap import ensure_up
    from warehouse.connections import connect

    agora("simulate", "ecommerce", "--out", files, "--seed", SEED, "--users", ROWS // 10, "--events", ROWS)
    delivered = sum(file.stat().st_size for file in files.glob("*.csv.gz"))
    ensure_up()
    server = embedded.running(settings.home())
    assert server
    empty = bytes_in(server.data_directory)
    land_seconds = agora("load", "ecommerce.events", files)
    peak = [0]
    is_over = threading.Event()
    watcher = threading.Thread(target=watch, args=(server.data_directory, peak, is_over))
    watcher.start()
    run_seconds = agora("run", "ecommerce")
    # a second one builds the next generation of marts beside the one that readers see
    agora("run", "ecommerce")
    is_over.set()
    watcher.join()
    with connect() as connection:
        sizes = {part: int(size) for part, size in connection.execute(SIZES).fetchall()}
    report = {
        "rows": ROWS,
        "delivered_bytes_per_row": round(delivered / ROWS, 1),
        **{f"{part}_bytes_per_row": round(size / ROWS, 1) for part, size in sorted(sizes.items())},
        "at_rest_bytes_per_row": round(sum(sizes.values()) / ROWS, 1),
        "peak_bytes_per_row": round((peak[0] - empty) / ROWS, 1),
        "land_seconds_per_million_rows": round(land_seconds / ROWS * 1e6, 2),
        "run_seconds_per_million_rows": round(run_seconds / ROWS * 1e6, 2),
    }
    for name, value in report.items():
        print(f"{name:32} {value:>14,}")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=2) + "\n")


def agora(*arguments: object) -> float:
    """Run a command to its end; the seconds it took."""
    started = time.perf_counter()
    subprocess.run([str(AGORA), *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def watch(directory: Path, peak: list[int], is_over: threading.Event) -> None:
    """Keep the most bytes that ever lay in the directory: tables, the next generation, sorts."""
    while not is_over.wait(0.5):
        peak[0] = max(peak[0], bytes_in(directory))


def bytes_in(directory: Path) -> int:
    """Without the write-ahead log, which has a limit of its own (max_wal_size)."""
    total = 0
    for folder, folders, names in os.walk(directory):
        if "pg_wal" in folders:
            folders.remove("pg_wal")
        for name in names:
            try:
                total += os.stat(os.path.join(folder, name)).st_blocks * 512  # noqa: PTH116, PTH118 ten times a Path's speed
            except FileNotFoundError:
                continue
    return total


if __name__ == "__main__":
    main()
