"""What the RGPD sets going: removal at once, then the run that rebuilds and publishes without what was removed."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from governance.classification import classified_tables
from governance.erasure import Erasure, erase, sweep
from governance.retention import domains, purge
from orchestration.locks import domain_lock
from orchestration.project import manifest
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
    # also what an erasure that was killed has left to do
    if not any(receipt.published_at is None for receipt in receipts(domain)):
        return erasure, None
    sweep(domain)
    outcome = run_domain(domain, full_refresh=False, on_step=on_step) if _is_published(domain) else None
    return erasure, outcome


def purge_and_publish(as_of: datetime, *, on_step: Callable[[str], None]) -> RunOutcome:
    """Remove what is past its time on `as_of`; where that concerns what dbt built, build and publish without it."""
    outcome = run_retention(as_of, on_step=on_step)
    for domain, report in outcome.reports.items():
        if report["needs_run"]:
            rebuilt = run_domain(domain, full_refresh=False, on_step=on_step)
            if not rebuilt.success:
                return replace(rebuilt, reports=outcome.reports)
            # the pseudonyms of those of whom no row is left
            again = run_retention(as_of, on_step=on_step)
            report["users"] += again.reports.get(domain, {}).get("users", 0)
    return outcome


def trial_purges(as_of: datetime, *, on_notice: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Count by domain what `purge_and_publish` would remove; nothing is."""
    models = [str(table) for table in classified_tables(manifest()) if table.made_by == "dbt"]
    return {
        domain: asdict(purge(domain, as_of, models=models, on_notice=on_notice, is_trial=True))
        | {"as_of": as_of.isoformat()}
        for domain in domains()
    }


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
