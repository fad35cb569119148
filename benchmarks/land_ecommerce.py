"""Rows per second through the door: checked, pseudonymised, landed — against COPY of the same bytes unchecked.

    make bench-land-ecommerce            1,000,000 rows; ROWS=2000000 make bench-land-ecommerce for more

Everything happens in a throw-away warehouse. Two ways through the door are measured, the compiled one for bulk loads
and the one line by line; both must land the same rows. The peer is Postgres' own COPY (psycopg, isal) into a table of
text columns: it checks nothing, hides nobody and counts as the floor for this file on this machine. CPU seconds are
told beside the clock's: on a machine with other work they say more.
"""

import json
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROWS = int(os.environ.get("ROWS", "1000000"))
SEED = 11
RESULT = Path(__file__).parent / "results" / "land_ecommerce.json"


def main() -> None:
    directory = Path(tempfile.mkdtemp(prefix="agora-", dir="/tmp"))
    directory.chmod(0o711)
    for name in [name for name in os.environ if name.startswith(("PG", "AGORA_"))]:
        del os.environ[name]
    os.environ["AGORA_HOME"] = str(directory / "home")
    from warehouse import embedded, settings

    try:
        measure(directory / "files")
    finally:
        embedded.destroy(settings.home())
        shutil.rmtree(directory, ignore_errors=True)


def measure(files: Path) -> None:
    from ingestion.ecommerce.simulator import NO_DIRT, simulate
    from warehouse.bootstrap import ensure_up

    users = max(ROWS // 10, 1)
    # without dirt: one broken line stops the peer
    simulation = simulate(files, seed=SEED, user_count=users, event_count=ROWS, month_count=1, dirt=NO_DIRT)
    simulate(files / "few", seed=SEED, user_count=100, event_count=1000, month_count=1, dirt=NO_DIRT)
    ensure_up()
    (path,) = simulation.files
    # compiles the door, if this checkout has not done so yet
    compiling = through_the_door(files / "few" / path.name, compiled=True)
    compiled = through_the_door(path, compiled=True)
    peak_memory_mb = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    by_line = through_the_door(path, compiled=False)
    assert compiled["landed"] == by_line["landed"]
    copied = copy_unchecked(path)
    report = {
        "rows": ROWS,
        "door_rows_per_second": round(ROWS / compiled["seconds"]),
        "copy_rows_per_second": round(ROWS / copied["seconds"]),
        "start_seconds": compiling["seconds"],
        "compiled": compiled,
        "line_by_line": by_line,
        "copy": copied,
        "ratio_to_copy": round(copied["seconds"] / compiled["seconds"], 3),
        "peak_memory_mb": peak_memory_mb,
    }
    print(f"{'':<48}{'rows/s':>12}{'wall s':>9}{'client CPU s':>14}{'server CPU s':>14}")
    for name, one in [
        ("landing, compiled door (bulk loads)", compiled),
        ("landing, line by line (small loads)", by_line),
        ("COPY of the same file into text, unchecked", copied),
    ]:
        print(
            f"{name:<48}{round(ROWS / one['seconds']):>12,}{one['seconds']:>9.2f}"
            f"{one['client_cpu_seconds']:>14.2f}{one['server_cpu_seconds']:>14.2f}"
        )
    print(f"{'ratio of the compiled door to COPY':<48}{report['ratio_to_copy']:>12} ×")
    print(f"{'peak memory of the client, compiled door':<48}{peak_memory_mb:>12,} MB")
    print(f"{'first load of the process, 1,000 rows':<48}{compiling['seconds']:>12.2f} s")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=2, default=str) + "\n")


def through_the_door(path: Path, *, compiled: bool) -> dict[str, Any]:
    """Land a file and take it back: seconds, CPU seconds, and rows and checksum of what had landed."""
    from ingestion import loader
    from ingestion.source import source_named
    from warehouse.connections import connect

    loader._is_worth_compiling = lambda _: compiled
    with measured() as figures:
        (result,) = loader.load(source_named("ecommerce.events"), [path])
    assert result.rows_read == result.rows_landed, result
    with connect() as connection:
        landed = connection.execute(
            "select count(*), sum(hashtextextended(row(event_time, event_type, product_id, category_id, category_code, "
            "brand, price, user_id, user_session, _row_number)::text, 0)::numeric) from raw_ecommerce.events"
        ).fetchone()
    loader.undo(result.load_id)
    return {**figures, "landed": landed}


def copy_unchecked(path: Path) -> dict[str, float]:
    """Copy the file's bytes into a table of text columns."""
    from isal import igzip

    from warehouse.connections import connect

    with igzip.open(path, "rb") as lines:
        columns = lines.readline().decode().strip().split(",")
    with connect() as connection:
        connection.execute(f"create temporary table peer ({', '.join(f'{name} text' for name in columns)})")
        connection.commit()
        with measured() as figures, igzip.open(path, "rb") as source, connection.cursor() as cursor:
            with cursor.copy("copy peer from stdin (format csv, header)") as copy:
                while block := source.read(1 << 20):
                    copy.write(block)
            connection.commit()
            assert cursor.rowcount == ROWS, cursor.rowcount
    return figures


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Seconds by the clock, and CPU seconds of this process and of the server, of what happens within."""
    figures: dict[str, float] = {}
    clock, client, server = time.perf_counter(), time.process_time(), server_cpu_seconds()
    yield figures
    figures["seconds"] = time.perf_counter() - clock
    figures["client_cpu_seconds"] = time.process_time() - client
    # until the postmaster has taken over the times of a connection that has just ended
    time.sleep(1)
    figures["server_cpu_seconds"] = server_cpu_seconds() - server


def server_cpu_seconds() -> float:
    """CPU seconds of the server's processes so far, those that have ended included."""
    from warehouse import embedded_processes, files, settings

    server = files.read_json(settings.home() / "server.json")
    assert server
    ticks = 0
    # the postmaster last: it takes over the times of those that end meanwhile
    for process in sorted(embedded_processes.server_processes(server["name"]), reverse=True):
        with suppress(FileNotFoundError):
            # after the name in brackets: utime, stime and those of children that have ended are fields 14 to 17
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
