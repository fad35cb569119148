"""What the RGPD sets going: removal at once, then the run that rebuilds and publishes without what was removed."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from governance.erasure import Erasure, erase, sweep
from orchestration.locks import domain_lock
from orchestration.run import RunOutcome, run_domain, run_retention
from warehouse.connections import connect


@dataclass(frozen=True)
class StoredReceipt:
    """A receipt as the warehouse keeps it; ``published_at`` is when readers got marts computed without the person."""

    receipt_id: str
    domain: str
    erased_at: datetime
    published_at: datetime | None
    row_count: int
    models_marked: list[str]


def erase_and_publish(
    domain: str, lines: Iterable[str], *, on_notice: Callable[[str], None], on_step: Callable[[str], None]
) -> tuple[Erasure, RunOutcome | None]:
    """Erase the people whose delivered ids stand in the lines; None if nothing needs to be published anew.

    Raises:
        UserError: as ``governance.erasure.erase``.
    """
    # a run that has read their rows would write what it made of them
    with domain_lock("run", domain, on_wait=on_notice):
        erasure = erase(domain, lines, on_notice=on_notice)
    if not erasure.receipts:
        return erasure, None
    sweep(domain)
    outcome = run_domain(domain, full_refresh=False, on_step=on_step) if _is_published(domain) else None
    return erasure, outcome


def purge_and_publish(as_of: datetime, *, on_step: Callable[[str], None]) -> RunOutcome:
    """Remove what is past its time on `as_of`; where that concerns what dbt built, build and publish without it."""
    outcome = run_retention(as_of, on_step=on_step)
    for domain, purge in outcome.reports.items():
        if purge["needs_run"]:
            rebuilt = run_domain(domain, full_refresh=False, on_step=on_step)
            if not rebuilt.success:
                return replace(rebuilt, reports=outcome.reports)
            # the pseudonyms of those of whom no row is left
            run_retention(as_of, on_step=on_step)
    return outcome


def receipts(domain: str, receipt_ids: Sequence[str] | None = None) -> list[StoredReceipt]:
    """The receipts of a domain, latest first; only these if some are named."""
    with connect("steward") as connection:
        rows = connection.execute(
            """
            select
                receipt_id::text, domain, erased_at,
                (
                    select min(published_at) from audit.publications as publications
                    where publications.domain = erasures.domain and publications.published_at > erasures.erased_at
                ),
                (select sum(value::bigint) from jsonb_each_text(rows_by_table)),
                models_marked
            from audit.erasures as erasures
            where domain = %(domain)s and (%(ids)s::text [] is null or receipt_id::text = any(%(ids)s))
            order by erased_at desc, receipt_id
            """,
            {"domain": domain, "ids": receipt_ids},
        ).fetchall()
    return [StoredReceipt(*row) for row in rows]


def _is_published(domain: str) -> bool:
    with connect("steward") as connection:
        row = connection.execute("select exists (select from audit.publications where domain = %s)", (domain,))
        return row.fetchone() == (True,)
