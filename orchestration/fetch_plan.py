"""`agora fetch-plan`: what a public data set needs on this machine. Nothing is fetched.

How fast files land is known from those that have landed, or measured in a throw-away warehouse with simulated events;
all else is scaled from figures that are named.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from ingestion.ecommerce import rees46
from ingestion.ecommerce.simulator import simulate
from ingestion.ecommerce.source import EVENTS
from ingestion.loader import load
from warehouse import embedded, settings
from warehouse.connections import connect

# measured by the command it names, on two cores that were busy with other work: an idle machine builds faster
PER_ROW = rees46.PerRow(
    measured_rows=2_000_000,
    raw_bytes=167,
    built_bytes=204,
    marts_bytes=47,
    peak_bytes=466,
    build_seconds=84e-6,
)
MEASURED_BY = "make bench-fetch-plan"
# the embedded server's max_wal_size is at most that
WRITE_AHEAD_LOG_GIB = 8
LINE_BITS_PER_SECOND = 100_000_000
# smaller files say more of starting than of landing, and may not have come through the compiled door
TELLING_ROWS = 500_000
# enough text for the compiled door, which the real months come through
TRIAL_ROWS = 600_000


def print_rees46_plan() -> None:
    """Print the seven months' addresses, what they need in disk and time, and the commands to run next."""
    rows_per_second, known_from = _landing_speed()
    needed = rees46.need(rees46.MONTHS, PER_ROW, rows_per_second)
    click.echo("REES46's public log of a multi-category shop; it is theirs (rees46.com): name them where you use it.\n")
    for month in rees46.MONTHS:
        click.echo(f"{month.name}  {month.row_count:>11,} events  {month.size_gib:5.2f} GiB  {month.url}")
    click.echo(f"all       {needed.row_count:>11,} events  {needed.download_gib:5.2f} GiB")
    click.echo(f"\nDisk, scaled from {PER_ROW.measured_rows:,} simulated events ({MEASURED_BY}):")
    at_rest_gib = needed.raw_gib + needed.built_gib + needed.marts_gib
    for what, gib in (
        ("raw events", needed.raw_gib),
        ("cleaned, sessions, features", needed.built_gib),
        ("marts", needed.marts_gib),
        ("all of that, at rest", at_rest_gib),
        (f"at the worst moment of a build, with {WRITE_AHEAD_LOG_GIB} GiB of write-ahead log", _disk_gib(needed)),
        ("a download, one at a time, deleted once it has landed", needed.spool_gib),
    ):
        click.echo(f"  {gib:6.1f} GiB  {what}")
    click.echo(_free_disk(needed))
    click.echo("\nTime:")
    download_seconds = needed.download_gib * rees46.GIB * 8 / LINE_BITS_PER_SECOND
    click.echo(f"  {_duration(download_seconds):>8}  download, at {LINE_BITS_PER_SECOND // 10**6} Mbit/s; not measured")
    click.echo(f"  {_duration(needed.land_seconds):>8}  land, at {rows_per_second:,.0f} rows/s: {known_from}")
    click.echo(
        f"  {_duration(needed.build_seconds):>8}  build all at once, as {PER_ROW.measured_rows:,} rows took"
        f" ({MEASURED_BY}) on a busy machine; sorting more takes longer"
    )
    click.echo("\nNext, one month first:")
    click.echo(f"  agora load ecommerce.events {rees46.MONTHS[0].url}")
    click.echo("  agora run ecommerce")
    click.echo("then the others; a download that is cut goes on where it stopped, what has landed is skipped:")
    names = " ".join(month.name for month in rees46.MONTHS[1:])
    click.echo(f"  for month in {names}; do")
    click.echo(f"      agora load ecommerce.events {rees46.FOLDER}$month.csv.gz || break")
    click.echo("  done")
    click.echo("  agora run ecommerce")


def _disk_gib(needed: rees46.Need) -> float:
    return needed.disk_gib + WRITE_AHEAD_LOG_GIB


def _free_disk(needed: rees46.Need) -> str:
    if settings.uses_server():
        return "  The disk of a server of your own is not known here."
    server = embedded.running(settings.home())
    directory = server.data_directory if server else settings.home()
    free_gib = shutil.disk_usage(directory).free / rees46.GIB
    line = f"  {free_gib:6.1f} GiB  are free in {directory}: "
    if _disk_gib(needed) <= free_gib:
        return line + "enough"
    count = rees46.months_that_fit(PER_ROW, free_gib - WRITE_AHEAD_LOG_GIB)
    if not count:
        return line + "not enough for a single month"
    return line + f"enough for the months up to {rees46.MONTHS[count - 1].name}"


def _landing_speed() -> tuple[float, str]:
    """Rows landed per second, and how that is known."""
    with connect("loader") as connection:
        row = connection.execute(
            # a download's seconds say more of the line
            "select count(*), sum(rows_read), sum(seconds) from audit.loads where source = %s and rows_read >= %s"
            " and status in ('loaded', 'superseded', 'undone') and seconds > 0 and version_id is null",
            (EVENTS.name, TELLING_ROWS),
        ).fetchone()
    if row and row[0]:
        files = "the file" if row[0] == 1 else f"the {row[0]} files"
        return float(row[1]) / float(row[2]), f"as {files} of {TELLING_ROWS:,} rows and more in audit.loads did"
    return _measured_landing_speed(), f"measured now, on {TRIAL_ROWS:,} simulated events in a throw-away warehouse"


def _measured_landing_speed() -> float:
    with _throw_away_warehouse() as directory:
        simulation = simulate(
            directory / "files", seed=1, user_count=TRIAL_ROWS // 10, event_count=TRIAL_ROWS, month_count=2
        )
        # the first file bears the costs of starting
        _, result = load(EVENTS, list(simulation.files))
        return result.rows_read / result.seconds


@contextmanager
def _throw_away_warehouse() -> Iterator[Path]:
    """An embedded warehouse in a directory of its own, for the length of the block; the caller's is out of reach."""
    before = dict(os.environ)
    # short enough for a socket; the server's account passes through
    directory = Path(tempfile.mkdtemp(prefix="agora-plan-"))
    directory.chmod(0o711)
    for name in [name for name in os.environ if name.startswith(("PG", "AGORA_"))]:
        del os.environ[name]
    os.environ["AGORA_HOME"] = str(directory / "home")
    try:
        yield directory
    finally:
        embedded.destroy(settings.home())
        shutil.rmtree(directory, ignore_errors=True)
        os.environ.clear()
        os.environ.update(before)


def _duration(seconds: float) -> str:
    minutes = max(round(seconds / 60), 1)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
