"""Rows per second through the door: checked, pseudonymised, landed — against COPY of the same bytes unchecked.

    make bench-land-ecommerce            1,000,000 rows; ROWS=2000000 make bench-land-ecommerce for more

Everything happens in a throw-away warehouse. The peer is Postgres' own COPY (psycopg, isal) into a table of text
columns: it checks nothing, hides nobody and counts as the floor for this file on this machine.
"""

import json
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path

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
    from ingestion.loader import load
    from ingestion.source import source_named
    from warehouse.bootstrap import ensure_up

    users = max(ROWS // 10, 1)
    # without dirt: one broken line stops the peer
    simulation = simulate(files, seed=SEED, user_count=users, event_count=ROWS, month_count=1, dirt=NO_DIRT)
    ensure_up()
    started = time.perf_counter()
    (result,) = load(source_named("ecommerce.events"), list(simulation.files))
    door_seconds = time.perf_counter() - started
    copied, copy_seconds = copy_unchecked(simulation.files[0])
    assert result.rows_read == ROWS, result
    assert copied == ROWS, copied
    report = {
        "rows": ROWS,
        "door_rows_per_second": round(ROWS / door_seconds),
        "copy_rows_per_second": round(ROWS / copy_seconds),
        "ratio_to_copy": round(copy_seconds / door_seconds, 3),
        "rows_landed": result.rows_landed,
        "rows_quarantined": result.rows_quarantined,
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(f"{'landing with checks, pseudonyms, quarantine':<48}{report['door_rows_per_second']:>12,} rows/s")
    print(f"{'COPY of the same file into text, unchecked':<48}{report['copy_rows_per_second']:>12,} rows/s")
    print(f"{'ratio':<48}{report['ratio_to_copy']:>12} ×")
    print(f"{'peak memory of the client':<48}{report['peak_memory_mb']:>12,} MB")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=2) + "\n")


def copy_unchecked(path: Path) -> tuple[int, float]:
    """Copy the file's bytes into a table of text columns; return rows and seconds."""
    from isal import igzip

    from warehouse.connections import connect

    with igzip.open(path, "rb") as lines:
        columns = lines.readline().decode().strip().split(",")
    with connect() as connection:
        connection.execute(f"create temporary table peer ({', '.join(f'{name} text' for name in columns)})")
        started = time.perf_counter()
        with igzip.open(path, "rb") as source, connection.cursor() as cursor:
            with cursor.copy("copy peer from stdin (format csv, header)") as copy:
                while block := source.read(1 << 20):
                    copy.write(block)
            connection.commit()
            return cursor.rowcount, time.perf_counter() - started


if __name__ == "__main__":
    main()
