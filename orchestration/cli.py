"""The command line: ``agora --help``. Parses, calls one function, prints; the work is done elsewhere.

Exit codes: 0 done or nothing to do, 2 a mistake of the user (one sentence, no traceback), 1 a failure, 130 interrupted.
Heavy imports stand inside the commands, so that ``agora sql`` does not wait for Dagster.
"""

import errno
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from warehouse import settings
from warehouse.errors import UserError, outage

if TYPE_CHECKING:
    from governance.register import Format
    from ingestion.loader import LoadResult, Progress
    from orchestration.run import RunOutcome

DOMAINS = ("ecommerce",)
NAMED_MARKS = {"tab": "\t", "\\t": "\t", "space": " ", "none": ""}
WRITING_DBT_COMMANDS = frozenset(("build", "run", "seed", "snapshot", "retry", "run-operation"))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="agora")
def cli() -> None:
    """Agora: an analytics warehouse. The shop (ecommerce) is its only domain so far.

    \b
    First steps:
      agora simulate ecommerce --out shop --seed 1 --users 2000 --events 50000 --months 2
      agora load ecommerce.events shop
      agora run ecommerce
      agora sql --role bi_reader "select * from ecommerce.segment_profiles"

    All state lives under AGORA_HOME (default: .agora in the checkout). PGHOST and its kin choose a
    Postgres server in place of the embedded one.
    """


# --- the warehouse ----------------------------------------------------------------------------------------------


@cli.command()
@click.option("--listen", metavar="HOST:PORT", help="Open TCP too, and print a connection string for a BI tool.")
def up(listen: str | None) -> None:
    """Start the warehouse and bring its roles, schemas and tables up to date."""
    from warehouse.bootstrap import ensure_up
    from warehouse.connections import parameters

    owner = ensure_up(_host_and_port(listen) if listen else None)
    click.echo(f"The warehouse is up: {owner.host}, port {owner.port}, database {owner.database}.")
    if listen:
        reader = parameters("bi_reader")
        host, port = _listening_at()
        click.echo(f"For a BI tool: postgresql://bi_reader:{reader.password}@{host}:{port}/{owner.database}")


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise UserError(f"--listen {text} is not HOST:PORT: write for instance --listen 127.0.0.1:5433.")
    return host.strip("[]"), int(port)


def _listening_at() -> tuple[str, int]:
    from warehouse import embedded

    server = embedded.running(settings.home())
    if server is None or server.listen is None:
        raise RuntimeError("the server was asked to listen and does not")
    return server.listen


@cli.command()
def down() -> None:
    """Stop the embedded server; the data stays."""
    from warehouse import embedded

    if settings.uses_server():
        raise UserError("PG* variables choose a server that Agora did not start: unset them to stop the embedded one.")
    embedded.stop(settings.home())
    click.echo("The warehouse is down.")


@cli.command()
@click.option("--json", "is_json", is_flag=True, help="Print all of it as JSON, for machines.")
def status(is_json: bool) -> None:
    """Show whether the warehouse is up, how fresh each source is and what readers see."""
    from orchestration.summary import print_status

    print_status(is_json=is_json)


@cli.command()
def roles() -> None:
    """Apply the rights of the roles anew, whatever was granted by hand, and show them."""
    from orchestration.summary import print_rights
    from warehouse.bootstrap import apply_rights

    print_rights(corrections=apply_rights())


@cli.command()
@click.option("--role", default="owner", show_default=True, help="Log in as this role.")
@click.argument("statement")
def sql(role: str, statement: str) -> None:
    """Run STATEMENT and print the result as CSV."""
    import psycopg

    from warehouse.connections import connect
    from warehouse.copy import query_csv

    if role not in ("owner", *settings.ROLES):
        raise UserError(f"There is no role {role}: choose owner, {', '.join(settings.ROLES)}.")
    with connect(role, autocommit=True) as connection:
        try:
            query_csv(connection, statement, sys.stdout)
        except (psycopg.Error, UnicodeEncodeError) as error:
            raise UserError(str(error).strip()) from None


@cli.command(context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def dbt(arguments: tuple[str, ...]) -> None:
    """Run dbt on this warehouse, as the transformer: agora dbt build --target dev, agora dbt test …"""
    from orchestration.project import DBT_PROJECT, DBT_SETTINGS, production_target
    from warehouse.connections import dbt_environment

    # Dagster may choose another when it runs a part of the checks
    indirect_selection = os.environ.get("DBT_INDIRECT_SELECTION") or DBT_SETTINGS["DBT_INDIRECT_SELECTION"]
    os.environ.update(DBT_SETTINGS | dbt_environment("transformer") | {"DBT_INDIRECT_SELECTION": indirect_selection})
    os.environ.setdefault("DBT_TARGET", production_target())
    os.environ.setdefault("DBT_PROJECT_DIR", str(DBT_PROJECT))
    # like all state, what dbt writes lies under AGORA_HOME
    os.environ.setdefault("DBT_TARGET_PATH", str(settings.home() / "dbt" / "command_line"))
    os.environ.setdefault("DBT_LOG_PATH", str(settings.home() / "dbt" / "command_line"))
    with _build_lock(arguments):
        from dbt.cli.main import cli as dbt_cli

        dbt_cli(list(arguments), prog_name="dbt")


@contextmanager
def _build_lock(arguments: tuple[str, ...]) -> Iterator[None]:
    """Keep other builds, and whoever deletes rows, out while dbt writes, to whichever target.

    Held by the process that writes: if whoever started it is killed, the lock stays as long as dbt goes on.
    """
    from orchestration.locks import domain_lock

    with ExitStack() as locks:
        if WRITING_DBT_COMMANDS.intersection(arguments):
            for domain in DOMAINS:
                locks.enter_context(domain_lock("build", domain, on_wait=lambda text: click.echo(text, err=True)))
        yield


@cli.command()
@click.option("--port", default=3000, show_default=True, help="Where the page is served on this machine.")
def ui(port: int) -> None:
    """Open Dagster: the graph, runs, checks, schedule and sensor."""
    from orchestration.project import CHECKOUT, manifest
    from orchestration.run import dagster_home
    from warehouse.bootstrap import ensure_up

    ensure_up()
    manifest()
    os.environ["DAGSTER_HOME"] = str(dagster_home())
    os.chdir(CHECKOUT)
    click.echo(f"Dagster: http://127.0.0.1:{port}  (Ctrl-C ends it)")
    # started in the background, it would ignore the interrupt that is to end it and its children
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    program = str(Path(sys.executable).parent / "dagster")
    _become([program, "dev", "-m", "orchestration.definitions", "-h", "127.0.0.1", "-p", str(port)])


def _become(command: list[str]) -> None:
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606 no shell is meant


# --- files ------------------------------------------------------------------------------------------------------


@cli.group()
def simulate() -> None:
    """Write files of the shape a source delivers, with planted truths in manifest.json."""


@simulate.command("ecommerce")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to write into.")
@click.option("--seed", default=1, show_default=True, help="Seed of all chance: the same seed, the same bytes.")
@click.option("--users", default=10_000, show_default=True, help="Customers.")
@click.option("--events", default=300_000, show_default=True, help="Lines in all files together.")
@click.option("--months", default=2, show_default=True, help="Months, from October 2019.")
def simulate_ecommerce(out: Path, seed: int, users: int, events: int, months: int) -> None:
    """Write a shop's event log (REES46 shape): one YYYY-Mon.csv.gz per month."""
    from ingestion.ecommerce.simulator import simulate

    with _progress() as tell:
        try:
            simulation = simulate(
                out,
                seed=seed,
                user_count=users,
                event_count=events,
                month_count=months,
                on_progress=lambda rows: tell("simulating", rows, events),
            )
        except ValueError as error:
            raise UserError(str(error)) from None
        except OSError as error:
            raise UserError(f"cannot write into {out} ({error.strerror}): choose another folder.") from None
    names = ", ".join(file.name for file in simulation.files)
    click.echo(f"{simulation.row_count:,} events of {users:,} users in {simulation.seconds:.1f} s: {out} ({names})")


@cli.command()
@click.argument("source")
@click.argument("locations", metavar="PATH_OR_URL...", nargs=-1, required=True)
@click.option("--since", metavar="PERIOD", help="Leave out files of earlier periods, e.g. 2019-12.")
@click.option("--period", metavar="PERIOD", help="What the files are about, whatever their names say, e.g. 2019-10.")
@click.option("--force", is_flag=True, help="Land again what was landed with the same bytes, in its place.")
@click.option("--sha256", metavar="HEX", help="Refuse the file unless this is its SHA-256; for one file.")
@click.option("--delimiter", metavar="TEXT", help="Between fields, if not a comma: ';', tab, space …")
@click.option("--quote", metavar="CHAR", help="Around fields, if not a double quote; or none.")
@click.option("--escape", metavar="CHAR", help="Before a quote within quotes, if it is not doubled; or none.")
@click.option("--encoding", metavar="NAME", help="If not UTF-8: cp1252, latin-1, utf-16 …")
@click.option("--skip-lines", type=int, metavar="N", help="Lines to leave out before the header.")
@click.option("--columns", metavar="A,B,…", help="The names of the columns, if the file has no header or a bad one.")
@click.option("--decimal", metavar="MARK", help="The decimal mark of prices, if not a point.")
def load(
    source: str,
    locations: tuple[str, ...],
    since: str | None,
    period: str | None,
    force: bool,
    sha256: str | None,
    delimiter: str | None,
    quote: str | None,
    escape: str | None,
    encoding: str | None,
    skip_lines: int | None,
    columns: str | None,
    decimal: str | None,
) -> None:
    """Land files of SOURCE (ecommerce.events): from a path, a URL or a bucket.

    \b
      agora load ecommerce.events 2019-Oct.csv.gz
      agora load ecommerce.events deliveries/ --since 2019-12
      agora load ecommerce.events https://shop.example.org/logs/2019-Oct.csv.gz
      agora load ecommerce.events s3://bucket/logs/ --since 2019-12
      agora load ecommerce.events "https://…/export?signature=…" --period 2019-10

    A folder, also one in a bucket, means every file directly in it whose name states a period
    (YYYY-Mon[-DD][.part].csv[.gz]). A download that was cut goes on where it stopped. A checksum published beside a
    file (FILE.sha256, SHA256SUMS) must be the file's. Buckets: AWS_ACCESS_KEY_ID and its kin say who asks,
    AWS_ENDPOINT_URL where, if not at Amazon. More: docs/how-to/load-from-a-url-or-bucket.md.

    Files in UTF-8 with commas and a header, one line a record, need no option. How others are written is said, not
    guessed: --delimiter to --decimal (docs/foreign-files.md).
    """
    from ingestion import loader
    from ingestion.dialect import Dialect
    from ingestion.source import source_named

    said = {
        "delimiter": delimiter and NAMED_MARKS.get(delimiter, delimiter),
        "quote": quote and NAMED_MARKS.get(quote, quote),
        "escape": escape and NAMED_MARKS.get(escape, escape),
        "encoding": encoding,
        "skip_lines": skip_lines,
        "columns": tuple(columns.split(",")) if columns else None,
        "decimal": decimal,
    }
    changes: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    dialect = replace(Dialect(), **changes) if changes else None
    try:
        with _load_progress() as tell:
            results = loader.load(
                source_named(source),
                locations,
                since=since,
                force=force,
                period=period,
                sha256=sha256,
                dialect=dialect,
                on_progress=tell,
            )
    except loader.FilesRefused as refusal:
        _echo_results([result for result in refusal.results if result.status != "failed"])
        raise
    _echo_results(results)


@cli.command("fetch-plan")
@click.argument("data_set", type=click.Choice(("rees46",)))
def fetch_plan(data_set: str) -> None:
    """Say where a public data set lies and what it needs in disk and time on this machine. Nothing is fetched.

    How fast files land is read from the history of loads. Where that is too short it is measured, which takes some
    seconds.
    """
    from orchestration.fetch_plan import print_rees46_plan

    print_rees46_plan()


@cli.command()
@click.option("--limit", default=20, show_default=True, help="How many, latest first.")
def loads(limit: int) -> None:
    """Show the history of loads."""
    from orchestration.summary import print_loads

    print_loads(limit)


@cli.command()
@click.argument("load_id", type=int)
def undo(load_id: int) -> None:
    """Take back load LOAD_ID as a whole; the next run rebuilds what depended on it."""
    from ingestion import loader

    with _load_progress() as tell:
        result = loader.undo(load_id, on_progress=tell)
    click.echo(f"Load {load_id} ({result.file_name}) is undone. Next: agora run {_domain_of(load_id)}")


def _domain_of(load_id: int) -> str:
    from warehouse.connections import connect

    with connect("loader") as connection:
        row = connection.execute(
            "select split_part(source, '.', 1) from audit.loads where load_id = %s", (load_id,)
        ).fetchone()
    return str(row[0]) if row else ""


@cli.group()
def quarantine() -> None:
    """Lines the door turned away: list them, or try them again after a fix."""


@quarantine.command("list")
@click.option("--load", "load_id", type=int, help="Only of this load.")
def quarantine_list(load_id: int | None) -> None:
    """Show how many lines of which load are in quarantine, and why."""
    from orchestration.summary import print_quarantine

    print_quarantine(load_id)


@quarantine.command("replay")
@click.argument("load_id", type=int)
def quarantine_replay(load_id: int) -> None:
    """Check the quarantined lines of LOAD_ID again by today's rules and land those that pass."""
    from ingestion import loader

    with _load_progress() as tell:
        result = loader.replay(load_id, on_progress=tell)
    click.echo(f"{result.rows_landed} rows landed, {result.rows_still_quarantined} stay in quarantine.")


@cli.command()
@click.argument("domain", type=click.Choice(DOMAINS))
def pseudonym(domain: str) -> None:
    """Read delivered ids on stdin, one a line; print raw_id,user_id. Needs the key; Agora keeps no such table."""
    from ingestion.keys import pseudonyms

    rows = pseudonyms(domain, (line.rstrip("\r\n") for line in sys.stdin))
    click.echo("raw_id,user_id")
    for raw_id, user_id in rows:
        click.echo(f"{raw_id},{user_id}")


@cli.command("access-log")
@click.option("--role", help="Only of this role.")
@click.option("--since", metavar="DATE", help="Only from this day or time on (UTC), e.g. 2026-01-31.")
@click.option("--table", metavar="MART", help="Only what read this mart, e.g. ecommerce.dim_users.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(min=1), help="How many, latest first.")
@click.option("--csv", "is_csv", is_flag=True, help="Print CSV, with times in full.")
@click.option("--all", "is_all", is_flag=True, help="Everybody, Agora's own machinery too.")
def access_log(role: str | None, since: str | None, table: str | None, limit: int, is_csv: bool, is_all: bool) -> None:
    """Show who logged in and who read which mart when; never a value.

    Without --role, --table and --all, what Agora's own machinery does is left out: its owner, loader, transformer, ml.
    """
    from orchestration.summary import print_access_log

    if role not in (None, "owner", "unknown", *settings.ROLES):
        raise UserError(f"There is no role {role}: choose owner, {', '.join(settings.ROLES)}.")
    moment = _moment("--since", since) if since else None
    print_access_log(moment, role, table, limit, is_csv=is_csv, is_all=is_all)


def _moment(option: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(f"{option} {text} is no date: write for instance {option} 2026-01-31.") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


# --- building ---------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("domain", type=click.Choice(DOMAINS))
@click.option("--full-refresh", is_flag=True, help="Rebuild all days and all users, not only what changed.")
def run(domain: str, full_refresh: bool) -> None:
    """Run DOMAIN's Dagster job: build what has landed, fit, publish. The run is in the UI as well."""
    from orchestration.drop import files_in_drop_folder
    from orchestration.summary import has_something_to_build, print_summary

    with _told_if_it_cannot_start(domain):
        if not has_something_to_build(domain) and not files_in_drop_folder(
            f"{domain}.events", on_notice=lambda text: click.echo(text, err=True)
        ):
            click.echo(f"Nothing of {domain} has been landed yet: agora load {domain}.events PATH comes first.")
            return
        with _steps() as on_step:
            on_step("starting Dagster")
            from orchestration.run import run_domain

            outcome = run_domain(
                domain,
                full_refresh=full_refresh,
                on_step=on_step,
                on_notice=lambda text: click.echo(text, err=True),
            )
    _end_if_failed(outcome, "Readers keep the last good generation.")
    print_summary(domain)


@contextmanager
def _told_if_it_cannot_start(domain: str) -> Iterator[None]:
    """What fails in here is no run that Dagster could tell of: no server answers, or the definitions do not load."""
    try:
        yield
    except Exception as error:
        from orchestration.alerts import tell_not_started

        tell_not_started(domain, error, on_notice=lambda text: click.echo(f"agora: {text}", err=True))
        raise


def _end_if_failed(outcome: "RunOutcome", consequence: str) -> None:
    """Tell the warnings of a run that went well; end with the errors of one that did not."""
    for warning in (*outcome.notices, *(outcome.warnings if outcome.success else ())):
        click.echo(f"agora: {warning}", err=True)
    if not outcome.success:
        text = "\n".join(outcome.errors) or "the run failed"
        if outcome.is_users_mistake:
            raise UserError(f"{text}\n{consequence}")
        click.echo(f"agora: {text}\n{consequence} Log: {outcome.log_path}", err=True)
        raise SystemExit(1)


@cli.command()
@click.argument("domain", type=click.Choice(DOMAINS))
def summary(domain: str) -> None:
    """Show what came in, what was turned away and why, and what came out."""
    from orchestration.summary import print_summary

    print_summary(domain)


@cli.command()
@click.argument("domain", type=click.Choice(DOMAINS))
def checksum(domain: str) -> None:
    """Print one hash per published table: the same data, the same hashes, whatever the order of the files."""
    from warehouse.checksum import checksums
    from warehouse.connections import connect

    with connect() as connection:
        for table, digest in checksums(connection, domain).items():
            click.echo(f"{domain}.{table} {digest}")


# --- the people in the data -------------------------------------------------------------------------------------


@cli.group()
def rgpd() -> None:
    """What is owed to the people in the data (docs/rgpd.md): erase them, hand out what is held, say why it is held."""


@rgpd.command("erase")
@click.argument("domain", type=click.Choice(DOMAINS))
def rgpd_erase(domain: str) -> None:
    """Erase people from DOMAIN for good. Reads their delivered ids on standard input, one a line.

    \b
      echo 512475445 | agora rgpd erase ecommerce

    Their rows go from raw, quarantine, staging, intermediate, ML results and marts, and no load lets them in again.
    What was computed from them and others is computed anew and published, which takes as long as a run. Each person's
    removal leaves a receipt. It cannot be undone. People of whom nothing is held are not put on the list.
    """
    lines = list(_standard_input())
    with _steps() as on_step:
        on_step("looking for rows about them")
        from orchestration.rgpd import erase_and_publish
        from orchestration.summary import print_receipts

        erasure, outcome = erase_and_publish(
            domain, lines, on_notice=lambda text: click.echo(text, err=True), on_step=on_step
        )
    if erasure.unknown_count:
        who = "this person" if erasure.unknown_count == 1 else f"{erasure.unknown_count} people"
        click.echo(f"Nothing is held on {who}: there is nothing to erase.")
    if erasure.receipts:
        print_receipts(domain, [receipt.receipt_id for receipt in erasure.receipts])
    if outcome:
        _end_if_failed(
            outcome,
            "Their rows are gone from every table, but tables computed from many people's rows are still those of "
            f"before: agora run {domain} computes them anew.",
        )


@rgpd.command("export")
@click.argument("domain", type=click.Choice(DOMAINS))
def rgpd_export(domain: str) -> None:
    """Print all that DOMAIN holds on one person as JSON. Reads the delivered id on standard input.

    \b
      echo 512475445 | agora rgpd export ecommerce > export.json
    """
    import json

    from governance.classification import classified_tables
    from governance.export import export
    from orchestration.project import manifest

    held = export(domain, _standard_input(), classified_tables(manifest()))
    if not held["tables"] and not held["quarantine"]:
        click.echo("Nothing is held on this person.", err=True)
    click.echo(json.dumps(held, indent=2, ensure_ascii=False))


@rgpd.command("receipts")
@click.argument("domain", type=click.Choice(DOMAINS))
def rgpd_receipts(domain: str) -> None:
    """List the receipts of erasures in DOMAIN, latest first. They say nothing of who was erased."""
    from orchestration.summary import print_receipts

    print_receipts(domain)


@rgpd.command("register")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write; the screen by default.")
@click.option("--format", "output", type=click.Choice(("markdown", "json")), default="markdown", show_default=True)
def rgpd_register(out: Path | None, output: "Format") -> None:
    """Write the register of processing activities that article 30 asks for, from the tags in the dbt project."""
    from governance.classification import classified_tables
    from governance.register import controller_from_environment, readers_in, register
    from orchestration.project import manifest
    from warehouse.connections import connect

    tables = classified_tables(manifest())
    with connect() as connection:
        readers = readers_in(connection)
    text = register(tables, readers, controller_from_environment(), settings.now(), output)
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror}): choose another file.") from None


def _standard_input() -> Iterator[str]:
    if sys.stdin.isatty():
        click.echo("Write the delivered id, then Ctrl-D on a line of its own:", err=True)
    try:
        yield from sys.stdin
    except UnicodeDecodeError:
        raise UserError("Standard input is not text: write the delivered id in digits.") from None


@cli.group()
def retention() -> None:
    """How long data is kept."""


@retention.command("purge")
@click.option("--as-of", metavar="DATE", help="Remove what is past its time on this day (UTC), e.g. 2027-03-01. [now]")
@click.option("--dry-run", is_flag=True, help="Only count; nothing is removed.")
def retention_purge(as_of: str | None, dry_run: bool) -> None:
    """Remove for good what is past its time.

    Raw rows go after 90 days, what was built of them after 24 months, quarantined lines after 30 days, counted from
    the landing of each load. The schedule retention_nightly does the same every night while `agora ui` is up. A day
    to come removes today what would be due then.
    """
    moment = _moment("--as-of", as_of) if as_of else settings.now()
    if dry_run:
        from orchestration.rgpd import trial_purges
        from orchestration.summary import print_purges

        trials = trial_purges(moment, on_notice=lambda text: click.echo(text, err=True))
        click.echo("Nothing is removed; this is what would be:")
        print_purges(trials)
        return
    with _steps() as on_step:
        on_step("starting Dagster")
        from orchestration.rgpd import purge_and_publish
        from orchestration.summary import print_purges

        outcome = purge_and_publish(moment, on_step=on_step)
    print_purges(outcome.reports)
    _end_if_failed(outcome, "What is past its time is not all removed: run the command again.")


# --- what the screen shows --------------------------------------------------------------------------------------


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    # into a file or a pipe it would write an empty line
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, object] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what)
            # how much there is in all may not be known, or only later
            bars.update(tasks[what], completed=done, total=total or None)  # type: ignore[arg-type]

        yield tell


@contextmanager
def _load_progress() -> Iterator[Callable[["Progress"], None]]:
    with _progress() as tell:

        def show(progress: "Progress") -> None:
            if progress.notice:
                click.echo(progress.notice, err=True)
                return
            tell(f"{progress.stage} {progress.file_name}", progress.bytes_done, progress.bytes_total)

        yield show


@contextmanager
def _steps() -> Iterator[Callable[[str], None]]:
    from rich.console import Console

    # the stream of now: during a run, sys.stderr is a log file
    console = Console(file=sys.stderr, highlight=False)
    with console.status("") as spinner:

        def on_step(name: str) -> None:
            console.print(f"  {name} …")
            spinner.update(name)

        yield on_step


def _echo_results(results: list["LoadResult"]) -> None:
    for result in results:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(result.quarantined_by_reason.items()))
        text = f"{result.file_name} ({result.period}): {result.status}"
        if result.status == "loaded":
            text += (
                f" as load {result.load_id}: {result.rows_read:,} rows read, {result.rows_landed:,} landed,"
                f" {result.rows_quarantined:,} quarantined" + (f" ({reasons})" if reasons else "")
            )
            if result.rows_suppressed:
                text += f", {result.rows_suppressed:,} suppressed"
            text += f", {result.seconds:.1f} s"
        click.echo(text + (f". {result.message}" if result.message else ""))


def main() -> None:
    """Entry point: turns errors into sentences and exit codes."""
    import psycopg

    from ingestion.audit import LoadError

    # what it tells of a connection that broke, the error that follows tells as well
    logging.getLogger("psycopg").setLevel(logging.CRITICAL)
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except UserError as error:
        click.echo(f"agora: {error}", err=True)
        sys.exit(2)
    except LoadError as error:
        click.echo(f"agora: {error}", err=True)
        sys.exit(1)
    except psycopg.Error as error:
        if (sentence := outage(error)) is None:
            raise
        click.echo(f"agora: {sentence}", err=True)
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        click.echo("agora: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # whoever reads us has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        click.echo(f"agora: the disk of {error.filename or settings.home()} is full: make room and try again", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
