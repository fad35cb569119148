"""What people look at in a terminal: the state of the warehouse, the loads, the closing summary of a run.

Every figure is read from the warehouse, with the role that may read it; nothing is counted here.
"""

import csv
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from warehouse import settings
from warehouse.connections import connect
from warehouse.errors import UserError

BAR_WIDTH = 18
# roles that no person and no tool of a person logs in as
MACHINERY = ("owner", "loader", "transformer", "ml")
EXAMPLE_QUERY = "select * from ecommerce.customer_segments limit 10"


def print_summary(domain: str) -> None:
    """Print what came in, what was turned away and why, what came out, and where to look next."""
    console = _console()
    _print_rows(console, domain)
    _print_segments(console)
    _print_next(console)


def has_something_to_build(domain: str) -> bool:
    """Whether any file of the domain was ever landed: what was undone must be taken from the marts as well."""
    ((is_known,),) = _query(
        "loader",
        "select exists (select from audit.loads where source like %s and status in ('loaded', 'superseded', 'undone'))",
        f"{domain}.%",
    )
    return bool(is_known)


def _print_rows(console: Console, domain: str) -> None:
    (loads, read, landed, quarantined, suppressed) = _query(
        "loader",
        "select count(*), sum(rows_read), sum(rows_landed), sum(rows_quarantined), sum(rows_suppressed)"
        " from audit.loads where source like %s and status = 'loaded' and purged_at is null",
        f"{domain}.%",
    )[0]
    table = Table(title=f"{domain}: every row that came in ({loads} files)", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("read", _number(read))
    table.add_row("turned away at the door (quarantined)", _number(quarantined))
    for reason, count in _query(
        "steward",
        "select error_code, count(*) from quarantine.rows inner join audit.loads using (load_id)"
        " where source like %s and status = 'loaded' group by error_code order by count(*) desc, error_code",
        f"{domain}.%",
    ):
        table.add_row(f"    {reason}", _number(count))
    if suppressed:
        table.add_row("of people who asked to be forgotten", _number(suppressed))
    table.add_row("landed", _number(landed))
    rejected = _query(
        "transformer",
        f"select rejection_reason, count(*) from staging.rejected_{domain}__events"  # noqa: S608 a domain of ours
        " group by rejection_reason order by count(*) desc, rejection_reason",
    )
    table.add_row("rejected by a cleaning rule", _number(sum(count for _, count in rejected)))
    for reason, count in rejected:
        table.add_row(f"    {reason}", _number(count))
    ((duplicates,), (clean,)) = _query(
        "transformer",
        f"select count(*) from intermediate.int_{domain}__duplicate_events"  # noqa: S608 a domain of ours
        f" union all select count(*) from intermediate.int_{domain}__events",
    )
    table.add_row("duplicates of an earlier row", _number(duplicates))
    table.add_row("clean events", _number(clean))
    ((purged,),) = _query(
        "loader",
        "select count(*) from audit.loads where source like %s and status = 'loaded' and purged_at is not null",
        f"{domain}.%",
    )
    console.print(table)
    if purged:
        console.print(f"{purged} more files are past their time and count no more.")


def _print_segments(console: Console) -> None:
    rows = _query(
        "bi_reader",
        "select segment_name, user_count, user_share_ratio, revenue_share_ratio, average_revenue_eur, reasons"
        " from ecommerce.segment_profiles order by revenue_eur desc, segment_name",
    )
    table = Table(title="Customer segments, by what they bring", title_justify="left")
    table.add_column("segment", no_wrap=True)
    table.add_column("users", justify="right", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("share of revenue", no_wrap=True)
    table.add_column("€ a head", justify="right", no_wrap=True)
    for name, users, share, revenue_share, per_head, _ in rows:
        bar = "█" * round((revenue_share or 0) * BAR_WIDTH)
        table.add_row(name, _number(users), f"{share:.1%}", f"{revenue_share or 0:6.1%} {bar}", f"{per_head:,.2f}")
    console.print(table)
    console.print("What sets them apart (standard deviations from the average user):")
    for name, *_, reasons in rows:
        console.print(f"  {name}: {reasons}", soft_wrap=True)
    console.print()


def _print_next(console: Console) -> None:
    # what the reader has to type: the environment need not be on PATH
    agora = "agora" if shutil.which("agora") else os.path.relpath(sys.argv[0])
    console.print("Where to look next:")
    for command, shows in (
        (f"{agora} sql --role bi_reader {EXAMPLE_QUERY!r}", ""),
        (f"{agora} up --listen 127.0.0.1:5433", "a connection string for a BI tool"),
        (f"{agora} loads", "what was landed when; also: quarantine list, status, checksum ecommerce"),
        (f"{agora} ui", "Dagster: the graph, this run, its checks, the schedule"),
    ):
        console.print(f"  {command:<40}  {shows}".rstrip(), markup=False, soft_wrap=True)


def print_loads(limit: int) -> None:
    """Print the history of loads, latest first, and below it why some failed."""
    from ingestion.audit import loads

    history = loads(limit)
    _print_table(
        ("load", "file", "period", "status", "read", "landed", "quarantined", "suppressed", "s", "started (UTC)"),
        [
            (
                load.load_id,
                load.file_name,
                load.period,
                load.status,
                load.rows_read,
                load.rows_landed,
                load.rows_quarantined,
                load.rows_suppressed,
                None if load.seconds is None else f"{load.seconds:.1f}",
                f"{load.started_at.astimezone(UTC):%Y-%m-%d %H:%M}",
            )
            for load in history
        ],
    )
    for load in history:
        if load.error:
            _console().print(f"{load.load_id}: {load.error}", soft_wrap=True, markup=False)


def print_quarantine(load_id: int | None) -> None:
    """Print the lines in quarantine per load and reason; never a value."""
    from ingestion.quarantine import list_rows

    rows = [
        (row.load_id, row.file_name, row.row_count, row.first_line_number, row.error_code, row.detail)
        for row in list_rows(load_id)
    ]
    if not rows:
        _console().print("Nothing is in quarantine.")
        return
    _print_table(("load", "file", "rows", "first line", "reason", "detail"), rows)


def print_receipts(domain: str, receipt_ids: Sequence[str] | None = None) -> None:
    """Print receipts of erasures, latest first; all of the domain if none are named."""
    from orchestration.rgpd import receipts

    stored = receipts(domain, receipt_ids)
    if not stored:
        _console().print(f"Nobody was erased from {domain}.")
        return
    _print_table(
        ("receipt", "erased (UTC)", "published without (UTC)", "rows removed", "models fitted with them"),
        [
            (
                receipt.receipt_id,
                receipt.erased_at.astimezone(UTC),
                receipt.published_at.astimezone(UTC) if receipt.published_at else "",
                receipt.row_count,
                ", ".join(receipt.models_marked),
            )
            for receipt in stored
        ],
    )


def print_access_log(
    since: datetime | None, role: str | None, table: str | None, limit: int, *, is_csv: bool, is_all: bool
) -> None:
    """Print logins and statements, latest first; as CSV with a header if so asked.

    Unless all is asked for, or a role or table by name, what Agora's own machinery does is left out.
    """
    from governance.access_log import access_log

    records = access_log(since, role, table)
    if not (is_all or role or table):
        records = [record for record in records if record.tables or record.role not in MACHINERY]
    if table and not records:
        _refuse_unknown_mart(table)
    records = records[:limit]
    if is_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(("at", "role", "host", "what", "tables", "seconds"))
        for record in records:
            at = record.at.astimezone(UTC).isoformat(timespec="milliseconds")
            writer.writerow((at, record.role, record.host, record.what, " ".join(record.tables), record.seconds))
        return
    if not records:
        _console().print("The access log holds nothing of the kind.")
        return
    _print_table(
        ("at (UTC)", "role", "from", "what", "marts", "s"),
        [
            (
                record.at,
                record.role,
                escape(record.host),
                record.what,
                "\n".join(record.tables),
                None if record.seconds is None else f"{record.seconds:.3f}",
            )
            for record in records
        ],
    )


def _refuse_unknown_mart(table: str) -> None:
    marts = [f"{row[0]}.{row[1]}" for row in _query("bi_reader", "select schemaname, tablename from pg_tables")]
    if table not in marts:
        raise UserError(f"There is no mart {table}: write its name with its schema, like ecommerce.dim_users.")


def print_purges(purges: dict[str, dict[str, Any]]) -> None:
    """Print what was removed because its time was over, and what waits for a run first."""
    _print_table(
        ("domain", "as of", "raw loads", "raw rows", "quarantined lines", "built loads", "predictions", "pseudonyms"),
        [
            (
                domain,
                purge["as_of"][:10],
                purge["raw_loads"],
                purge["raw_rows"],
                purge["quarantined_rows"],
                purge["built_loads"],
                purge["predictions"],
                purge["users"],
            )
            for domain, purge in purges.items()
        ],
    )
    for domain, purge in purges.items():
        if purge["loads_waiting"]:
            waiting = ", ".join(map(str, purge["loads_waiting"]))
            _console().print(
                f"Past their time but not built yet: {domain} loads {waiting}. Next: agora run {domain}, then this "
                "command again.",
                soft_wrap=True,
            )


def print_status(*, is_json: bool) -> None:
    """Print where the warehouse is, per source what came last, and per domain what readers see."""
    status = _status()
    if is_json:
        json.dump(status, sys.stdout, indent=2, default=_json_value)
        sys.stdout.write("\n")
        return
    console = _console()
    console.print(f"warehouse: {status['warehouse']}", soft_wrap=True, markup=False)
    console.print(f"state: {status['state']}", soft_wrap=True, markup=False)
    if not status["is_up"]:
        for job, sentence in status["failing_jobs"].items():
            console.print(f"{job}: {sentence}", soft_wrap=True, markup=False)
        return
    _print_sources(console, status["sources"])
    _print_domains(console, status["domains"], status["failing_jobs"])


def _status() -> dict[str, Any]:
    from orchestration.status import domain_statuses, failing_jobs, source_statuses
    from warehouse.bootstrap import ensure_up

    known: dict[str, Any] = {"is_up": False, "state": str(settings.home()), "failing_jobs": failing_jobs()}
    try:
        owner = ensure_up()
    except UserError as error:
        return known | {"warehouse": f"out of reach: {error}"}
    return known | {
        "is_up": True,
        "warehouse": f"{owner.host}, port {owner.port}, database {owner.database}",
        "sources": [asdict(source) for source in source_statuses()],
        "domains": [asdict(domain) for domain in domain_statuses()],
    }


def _print_sources(console: Console, sources: list[dict[str, Any]]) -> None:
    from orchestration.status import age_in_words

    table = Table()
    for name in ("source", "last load (UTC)", "freshness"):
        table.add_column(name, overflow="fold")
    for name in ("files", "landed", "quarantined", "took", "failed since"):
        table.add_column(name, justify="right", overflow="fold")
    for source in sources:
        if source["last_load_id"] is None:
            last, fresh, landed, quarantined, took = "", "never loaded", "", "", ""
        else:
            last = f"{_text(source['last_loaded_at'])}\n{escape(source['last_file'])}"
            colour = {"fresh": "green", "late": "yellow", "stale": "red"}[source["freshness"]]
            limit = source["stale_after_hours" if source["freshness"] == "stale" else "late_after_hours"]
            fresh = f"[{colour}]{source['freshness']}[/]: {age_in_words(source['age_seconds'])}\nlimit {limit:g} h"
            landed = f"{source['rows_landed']:,}\nlast {source['last_rows_landed']:,}"
            quarantined = f"{_share(source['quarantined_ratio'])}\nlast {_share(source['last_quarantined_ratio'])}"
            took = f"{source['last_seconds']:.1f} s\n{source['last_rows_per_second'] or 0:,.0f} rows/s"
        failures = f"[red]{source['failure_count']}[/]" if source["failure_count"] else "0"
        table.add_row(source["source"], last, fresh, f"{source['load_count']:,}", landed, quarantined, took, failures)
    console.print(table)
    for source in sources:
        if source["is_landing"]:
            console.print(f"{source['source']}: a file is being landed now.", soft_wrap=True, markup=False)
        if source["last_error"]:
            console.print(f"{source['source']}, last failure: {source['last_error']}", soft_wrap=True, markup=False)


def _print_domains(console: Console, domains: list[dict[str, Any]], failing_jobs: dict[str, str]) -> None:
    from orchestration.status import age_in_words

    _print_table(
        ("domain", "generation that readers see", "published (UTC)", "age", "loads to build"),
        [
            (
                domain["domain"],
                domain["generation"] or "none",
                domain["published_at"] and domain["published_at"].astimezone(UTC),
                domain["published_at"] and age_in_words(domain["age_seconds"]),
                domain["unbuilt_load_count"],
            )
            for domain in domains
        ],
    )
    for domain in domains:
        if domain["unbuilt_load_count"]:
            name = domain["domain"]
            console.print(f"{name}: loads came or went that are not built yet. Next: agora run {name}", soft_wrap=True)
    for sentence in failing_jobs.values():
        console.print(f"The last run failed: {sentence}", soft_wrap=True, markup=False)


def _share(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2%}"


def _json_value(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    raise TypeError(type(value))


def print_rights(corrections: list[str]) -> None:
    """Print which role may do what, and below it the statements that were needed to make it so."""
    _print_table(
        ("role", "schema", "tables", "may"),
        _query(
            "owner",
            "select role, schema, tables, array_to_string(verbs, ', ') from audit.rights"
            " order by array_position(%s, role), schema, tables",
            list(settings.ROLES),
        ),
    )
    for statement in corrections:
        _console().print(f"corrected: {statement}", soft_wrap=True, markup=False)


def _query(role: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with connect(role) as connection:
        return connection.execute(statement, values or None).fetchall()


def _console() -> Console:
    # a pipe has no width to keep to
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=160)


def _print_table(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    table = Table()
    for position, name in enumerate(columns):
        is_number = any(isinstance(row[position], (int, Decimal)) for row in rows)
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_text(value) for value in row))
    _console().print(table)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return f"{value:,}" if isinstance(value, (int, Decimal)) else str(value)


def _number(value: Any) -> str:
    return f"{int(value or 0):,}"
