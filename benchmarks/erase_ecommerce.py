"""What erasure costs: seconds to erase people from a built warehouse, and what the suppression list costs the door.

    make bench-erase-ecommerce            1,000,000 events; ROWS=2000000 make bench-erase-ecommerce for more

Everything happens in a throw-away warehouse. The peers: a plain DELETE of the same people from the raw table alone,
rolled back, for the erasure; the same file through the same door without a list, for the landing.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS = int(os.environ.get("ROWS", "1000000"))
SEED = 12
PEOPLE = (1, 100)
LIST_LENGTH = 100_000
RESULT = Path(__file__).parent / "results" / "erase_ecommerce.json"


def main() -> None:
    directory = Path(tempfile.mkdtemp(prefix="agora-", dir="/tmp"))
    directory.chmod(0o711)
    for name in [name for name in os.environ if name.startswith(("PG", "AGORA_"))]:
        del os.environ[name]
    os.environ["AGORA_HOME"] = str(directory / "home")
    from warehouse import embedded, settings

    try:
        report = measure(directory / "files")
    finally:
        embedded.destroy(settings.home())
        shutil.rmtree(directory, ignore_errors=True)
    for name, value in report.items():
        print(f"{name.replace('_', ' '):<60}{value:>12,}")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=2) + "\n")


def measure(files: Path) -> dict[str, float]:
    from governance.erasure import erase, sweep
    from ingestion.ecommerce.simulator import simulate
    from ingestion.loader import load
    from ingestion.source import source_named
    from ingestion.suppression import suppress
    from warehouse.bootstrap import ensure_up
    from warehouse.connections import connect

    simulation = simulate(files, seed=SEED, user_count=max(ROWS // 10, 1000), event_count=ROWS, month_count=1)
    people = list(json.loads((files / "manifest.json").read_text())["users"])
    ensure_up()
    source = source_named("ecommerce.events")
    load(source, list(simulation.files))
    subprocess.run([Path(sys.executable).parent / "agora", "run", "ecommerce"], check=True, capture_output=True)
    report: dict[str, float] = {"rows": ROWS}
    for count in PEOPLE:
        raw_ids, people = people[:count], people[count:]
        deleted = seconds_to_delete_from_raw(raw_ids)
        erased = seconds_of(lambda ids=raw_ids: erase("ecommerce", ids, on_notice=print))
        report[f"seconds_to_erase_{count}"] = round(erased, 3)
        report[f"seconds_to_delete_{count}_from_raw_alone"] = round(deleted, 3)
        report[f"ratio_for_{count}"] = round(erased / deleted, 1)
    report["seconds_to_sweep"] = round(seconds_of(lambda: sweep("ecommerce")), 3)
    # the list that stands is of 101 people: next to nothing
    first, second = another_file(files, "a"), another_file(files, "b")
    without = seconds_of(lambda: load(source, [first]))
    with connect("steward") as connection:
        suppress(connection, "ecommerce", range(10**15, 10**15 + LIST_LENGTH))
    with_list = seconds_of(lambda: load(source, [second]))
    report["landing_rows_per_second_with_short_list"] = round(ROWS / without)
    report[f"landing_rows_per_second_with_list_of_{LIST_LENGTH}"] = round(ROWS / with_list)
    report["ratio_of_landing"] = round(without / with_list, 3)
    return report


def another_file(files: Path, part: str) -> Path:
    """A file of as many events of other people, of a name of its own."""
    from ingestion.ecommerce.simulator import simulate

    folder = files / part
    seed = SEED + ord(part)
    (file,) = simulate(folder, seed=seed, user_count=max(ROWS // 10, 1000), event_count=ROWS, month_count=1).files
    return file.rename(folder / f"2019-Oct.{part}.csv.gz")


def seconds_to_delete_from_raw(raw_ids: list[str]) -> float:
    from ingestion.keys import pseudonyms
    from warehouse.connections import connect

    user_ids = [user_id for _, user_id in pseudonyms("ecommerce", raw_ids)]
    with connect("steward") as connection:
        started = time.perf_counter()
        connection.execute("delete from raw_ecommerce.events where user_id = any(%s)", (user_ids,))
        seconds = time.perf_counter() - started
        connection.rollback()
    return seconds


def seconds_of(work) -> float:  # type: ignore[no-untyped-def]
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
