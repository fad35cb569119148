"""How the warehouse is: per source what came last and how fresh that is, per domain what readers see. Only reads.

Not here: how it is printed (`summary`), who is told of it (`alerts`).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import psycopg
from psycopg.rows import dict_row

from ingestion.source import sources
from warehouse import files
from warehouse.connections import connect
from warehouse.errors import UserError
from warehouse.settings import home, now

Freshness = Literal["never loaded", "fresh", "late", "stale"]


@dataclass(frozen=True)
class SourceStatus:
    """One source. Loads count while they are `loaded`: neither replaced nor undone; rows while not past their time.

    ``failure_count`` and ``last_error``: attempts since the last load that failed, were refused or killed.
    ``age_seconds``: since the last load ended. Ratios are of the rows read.
    """

    source: str
    freshness: Freshness
    late_after_hours: float
    stale_after_hours: float
    load_count: int
    is_landing: bool
    last_load_id: int | None
    last_file: str | None
    last_loaded_at: datetime | None
    age_seconds: float | None
    rows_landed: int
    last_rows_landed: int | None
    quarantined_ratio: float | None
    last_quarantined_ratio: float | None
    last_seconds: float | None
    last_rows_per_second: float | None
    failure_count: int
    last_error: str | None


@dataclass(frozen=True)
class DomainStatus:
    """One domain: what readers see, and how many loads that were landed, replaced or undone no build has taken in."""

    domain: str
    generation: str | None
    published_at: datetime | None
    age_seconds: float | None
    unbuilt_load_count: int


def freshness(age: timedelta | None, late_after: timedelta, stale_after: timedelta) -> Freshness:
    """How fresh a source is whose last load ended `age` ago (None: there was none); each limit still counts as kept."""
    if age is None:
        return "never loaded"
    if age > stale_after:
        return "stale"
    return "late" if age > late_after else "fresh"


def source_statuses() -> list[SourceStatus]:
    """The status of every source, in order of name."""
    with connect("loader") as connection:
        return [_source_status(connection, name) for name in sorted(sources())]


def domain_statuses() -> list[DomainStatus]:
    """The status of every domain that has a source, in order of name."""
    with connect("transformer") as connection:
        return [_domain_status(connection, name) for name in sorted({source.domain for source in sources().values()})]


def failing_jobs() -> dict[str, str]:
    """By job, the sentence on its last run, of those whose last run failed; see `alerts`, which writes it down."""
    try:
        memory = files.read_json(home() / "alerts.json") or {}
    except UserError:
        # damaged: `alerts` writes it anew
        memory = {}
    return dict(memory.get("failing", {}))


def age_in_words(seconds: float) -> str:
    """A span as one reads it: 40 s, 12 min, 26 h, 9 d."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        # 49 h says more than 2 d where the limit is 48
        if seconds >= length * (3 if unit == "d" else 1):
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _source_status(connection: psycopg.Connection, name: str) -> SourceStatus:
    source = sources()[name]
    with connection.cursor(row_factory=dict_row) as cursor:
        (totals,) = cursor.execute(
            "select count(*), coalesce(sum(rows_landed) filter (where purged_at is null), 0)::bigint as rows_landed,"
            " sum(rows_quarantined)::float / nullif(sum(rows_read), 0) as quarantined_ratio"
            " from audit.loads where source = %s and status = 'loaded'",
            (name,),
        ).fetchall()
        last = cursor.execute(
            "select load_id, file_name, finished_at, rows_read, rows_landed, rows_quarantined, seconds"
            " from audit.loads where source = %s and status = 'loaded' order by finished_at desc, load_id desc limit 1",
            (name,),
        ).fetchone()
        attempts = cursor.execute(
            """
            select status, error, finished_at is null as is_open, exists (
                -- held by the process that lands the file: ingestion.audit
                select from pg_locks
                where locktype = 'advisory' and objsubid = 1
                    and database = (select oid from pg_database where datname = current_database())
                    and (classid::bigint << 32) | objid::bigint
                    = hashtextextended('attempt ' || load_id::bigint, 0)
            ) as is_alive
            from audit.loads
            where source = %s and status in ('started', 'failed', 'abandoned') and load_id > coalesce(%s, 0)
            order by load_id desc
            """,
            (name, last and last["load_id"]),
        ).fetchall()
    failures = [attempt for attempt in attempts if not (attempt["is_open"] and attempt["is_alive"])]
    age = now() - last["finished_at"] if last else None
    return SourceStatus(
        source=name,
        freshness=freshness(age, source.late_after, source.stale_after),
        late_after_hours=source.late_after / timedelta(hours=1),
        stale_after_hours=source.stale_after / timedelta(hours=1),
        load_count=totals["count"],
        is_landing=len(failures) < len(attempts),
        last_load_id=last["load_id"] if last else None,
        last_file=last["file_name"] if last else None,
        last_loaded_at=last["finished_at"] if last else None,
        age_seconds=age.total_seconds() if age is not None else None,
        rows_landed=totals["rows_landed"],
        last_rows_landed=last["rows_landed"] if last else None,
        quarantined_ratio=totals["quarantined_ratio"],
        last_quarantined_ratio=last["rows_quarantined"] / last["rows_read"] if last and last["rows_read"] else None,
        last_seconds=last["seconds"] if last else None,
        last_rows_per_second=last["rows_read"] / last["seconds"] if last and last["seconds"] else None,
        failure_count=len(failures),
        last_error=(failures[0]["error"] or "the process that loaded it is gone") if failures else None,
    )


def _domain_status(connection: psycopg.Connection, domain: str) -> DomainStatus:
    row = connection.execute(
        "select generation, published_at, extract(epoch from clock_timestamp() - published_at)::float"
        " from audit.publications where domain = %s order by generation desc limit 1",
        (domain,),
    ).fetchone()
    generation, published_at, age_seconds = row or (None, None, None)
    names = [source.name for source in sources().values() if source.domain == domain]
    counted = connection.execute(
        """
        with loads as (

            select load_id, rows_landed from audit.loads
            where source = any(%(sources)s) and status = 'loaded' and purged_at is null

        ),

        models as (

            select distinct model from audit.built_loads
            where model ~ '^(staging|intermediate)\\.' and strpos(model, %(domain)s) > 0
                and to_regclass(model) is not null

        ),

        built as (

            select load_id, rows_landed from audit.built_loads inner join models using (model)
            group by load_id, rows_landed having count(*) = (select count(*) from models)

        ),

        -- neither as landed nor as built: new, replayed; replaced, undone, past its time
        differing as (

            (select * from loads except select * from built)
            union
            (
                select load_id, rows_landed from audit.built_loads inner join models using (model)
                except
                select * from loads
            )

        )

        select count(distinct load_id) from differing
        """,
        {"sources": names, "domain": domain},
    ).fetchone()
    return DomainStatus(
        domain=domain,
        generation=generation,
        published_at=published_at,
        age_seconds=age_seconds,
        unbuilt_load_count=counted[0] if counted else 0,
    )
