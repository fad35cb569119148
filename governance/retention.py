"""Retention: what is past its time goes. Periods count from the landing of the load that brought the rows.

Raw rows go once dbt has taken them in; what was built of them stays until its own time is over. Removing built rows is
left to the next run, which finds their loads past their time and drops them as it drops those of an undone load.
"""

from calendar import monthrange
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
from psycopg import sql

from governance.people import Table, sources_of, tables_about_people, without_values
from ingestion.landing import lock_build, lock_source
from ingestion.source import Source, sources
from warehouse.connections import connect
from warehouse.errors import UserError
from warehouse.settings import now

RAW_DAYS = 90
BUILT_MONTHS = 24
QUARANTINE_DAYS = 30
MOMENTS = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
PRODUCTION_MODELS = r"^(staging|intermediate)\."


@dataclass(frozen=True)
class Purge:
    """What one purge of a domain removed.

    `loads_waiting` are past the time of raw but not built yet: they stay until a run has taken them in.
    `needs_run`: rows that dbt built are past their time and go with the next run.
    """

    domain: str
    raw_loads: int
    raw_rows: int
    quarantined_rows: int
    built_loads: int
    predictions: int
    users: int
    loads_waiting: tuple[int, ...]
    needs_run: bool


def purge(
    domain: str,
    as_of: datetime,
    *,
    models: Collection[str],
    on_notice: Callable[[str], None],
    is_trial: bool = False,
) -> Purge:
    """Remove what is past its time on `as_of`, in one transaction; done again, it finds nothing.

    Args:
        domain: whose rows.
        as_of: the moment, UTC.
        models: what dbt makes today, `schema.name`; others that once took loads in are waited for no more.
        on_notice: told what is waited for.
        is_trial: take it all back at the end.
    """
    if not MOMENTS[0] <= as_of < MOMENTS[1]:
        raise UserError(f"Nothing is purged as of {as_of:%Y-%m-%d}: give a day of this century.")
    with without_values("the purge"), connect("steward") as connection:
        domain_sources = sources_of(domain)
        for source in domain_sources:
            lock_build(connection, source, on_notice)
            lock_source(connection, source, on_notice)
        connection.execute(
            "delete from audit.built_loads where model ~ %s and model <> all(%s)", (PRODUCTION_MODELS, list(models))
        )
        built_loads = _end_loads(connection, domain_sources, _months_before(as_of, BUILT_MONTHS))
        due = _loads_due(connection, domain_sources, as_of - timedelta(days=RAW_DAYS))
        ready = [load_id for load_id, is_ready in due if is_ready]
        raw_rows = sum(_purge_raw(connection, source, ready) for source in domain_sources)
        quarantined = connection.execute(
            "delete from quarantine.rows where quarantined_at < %s and load_id in "
            "(select load_id from audit.loads where source = any(%s))",
            (as_of - timedelta(days=QUARANTINE_DAYS), [source.name for source in domain_sources]),
        ).rowcount
        tables = tables_about_people(connection, domain)
        purged = Purge(
            domain,
            raw_loads=len(ready),
            raw_rows=raw_rows,
            quarantined_rows=quarantined,
            built_loads=built_loads,
            predictions=_purge_predictions(connection, domain, tables, _months_before(as_of, BUILT_MONTHS)),
            users=sum(_purge_users(connection, source, tables) for source in domain_sources),
            loads_waiting=tuple(load_id for load_id, is_ready in due if not is_ready),
            needs_run=_has_built_rows_to_drop(connection, domain_sources),
        )
        if is_trial:
            connection.rollback()
        return purged


def domains() -> list[str]:
    """The domains that have something to purge."""
    return sorted({source.domain for source in sources().values()})


def _end_loads(connection: psycopg.Connection, domain_sources: list[Source], before: datetime) -> int:
    return connection.execute(
        "update audit.loads set purged_at = %s "
        "where source = any(%s) and status = 'loaded' and finished_at < %s and purged_at is null",
        (now(), [source.name for source in domain_sources], before),
    ).rowcount


def _loads_due(
    connection: psycopg.Connection, domain_sources: list[Source], before: datetime
) -> list[tuple[int, bool]]:
    """Loads whose raw rows are past their time, and whether every model that keeps rows of loads has taken them in."""
    return connection.execute(
        """
        with models as (
            select distinct model from audit.built_loads
            where model ~ %(production)s and strpos(model, %(domain)s) > 0
        )
        select
            loads.load_id,
            loads.purged_at is not null
            or (
                exists (select from models)
                and not exists (
                    select from models
                    where not exists (
                        select from audit.built_loads as built
                        where built.model = models.model
                            and built.load_id = loads.load_id
                            and built.rows_landed = loads.rows_landed
                    )
                )
            )
        from audit.loads as loads
        where loads.source = any(%(sources)s) and loads.status = 'loaded'
            and loads.finished_at < %(before)s and loads.raw_purged_at is null
        order by loads.load_id
        """,
        {
            "production": PRODUCTION_MODELS,
            "domain": domain_sources[0].domain,
            "sources": [source.name for source in domain_sources],
            "before": before,
        },
    ).fetchall()


def _purge_raw(connection: psycopg.Connection, source: Source, load_ids: list[int]) -> int:
    row_count = connection.execute(
        sql.SQL("delete from {} where _load_id = any(%s)").format(sql.Identifier(*source.raw_table)), (load_ids,)
    ).rowcount
    connection.execute(
        "update audit.loads set raw_purged_at = %s where load_id = any(%s) and source = %s",
        (now(), load_ids, source.name),
    )
    return row_count


def _purge_predictions(connection: psycopg.Connection, domain: str, tables: list[Table], before: datetime) -> int:
    return sum(
        connection.execute(sql.SQL("delete from {} where updated_at < %s").format(table.identifier), (before,)).rowcount
        for table in tables
        if table.schema == f"ml_{domain}" and "updated_at" in table.columns
    )


def _purge_users(connection: psycopg.Connection, source: Source, tables: list[Table]) -> int:
    """Forget the pseudonyms of people of whom neither raw nor what dbt keeps has a row."""
    keeping = [
        sql.SQL("not exists (select from {table} as kept where kept.{key} = users.{key})").format(
            table=table.identifier, key=sql.Identifier(source.person)
        )
        for table in tables
        if "_load_id" in table.columns and table.key_type == "bigint"
    ]
    statement = sql.SQL("delete from {} as users where {}").format(
        sql.Identifier(*source.users_table), sql.SQL(" and ").join(keeping)
    )
    return connection.execute(statement).rowcount


def _has_built_rows_to_drop(connection: psycopg.Connection, domain_sources: list[Source]) -> bool:
    row = connection.execute(
        "select exists (select from audit.built_loads as built inner join audit.loads as loads "
        "on built.load_id = loads.load_id where loads.purged_at is not null and built.model ~ %s "
        "and loads.source = any(%s))",
        (PRODUCTION_MODELS, [source.name for source in domain_sources]),
    ).fetchone()
    return row == (True,)


def _months_before(moment: datetime, months: int) -> datetime:
    year, month_index = divmod(moment.year * 12 + moment.month - 1 - months, 12)
    day = min(moment.day, monthrange(year, month_index + 1)[1])
    return moment.replace(year=year, month=month_index + 1, day=day)
