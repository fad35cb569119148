"""Readers of the real marts through fifty publications: never two generations at once, never an error.

A publication is what `agora dbt build` does with the marts: built aside, tested, published. Fifty commands run one
after the other in one process, which saves fifty starts of Python; nothing else of them is left out.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from support import agora, one, rows_of

from warehouse.connections import connect

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warehouse")]

PUBLICATION_COUNT = 50
PUBLISH = """
import sys
from orchestration.cli import cli

marts = ["--select", "source:ml_ecommerce+", "tag:marts_ecommerce"]
for _ in range(int(sys.argv[1])):
    try:
        cli(["dbt", "--quiet", "build", *marts], standalone_mode=False)
    except SystemExit as end:
        if end.code:
            raise
"""
TABLES = "select relname, oid::bigint from pg_class where relnamespace = 'ecommerce'::regnamespace and relkind = 'r'"


@dataclass
class Readings:
    """What a reader saw: per transaction the tables it met, by their numbers; and what went wrong."""

    met: set[frozenset[tuple[str, int]]] = field(default_factory=set)
    transaction_count: int = 0
    errors: list[str] = field(default_factory=list)


@contextmanager
def reader() -> Iterator[Readings]:
    """bi_reader, logged in with its password, reads every mart in one transaction, and joins two, without a pause."""
    readings, done = Readings(), threading.Event()
    names = sorted(name for name, _ in rows_of(TABLES))
    # a table's number is another in each generation
    each = [f"select '{name}', tableoid::bigint from ecommerce.{name} limit 1" for name in names]
    join = (
        "select distinct 'dim_users', users.tableoid::bigint, 'customer_segments', segments.tableoid::bigint"
        " from ecommerce.dim_users as users inner join ecommerce.customer_segments as segments using (user_id)"
    )

    def read() -> None:
        with connect("bi_reader") as connection:
            while not done.is_set():
                met: set[tuple[str, int]] = set()
                try:
                    with connection.transaction():
                        for statement in each:
                            met.update(connection.execute(statement).fetchall())
                        for row in connection.execute(join).fetchall():
                            met.update((row[:2], row[2:]))
                except psycopg.Error as error:
                    readings.errors.append(str(error))
                    return
                readings.met.add(frozenset(met))
                readings.transaction_count += 1
                time.sleep(0.005)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield readings
    finally:
        done.set()
        thread.join()


def test_readers_meet_whole_generations_through_fifty_publications(tmp_path: Path) -> None:
    size = ("--users", 300, "--events", 6000, "--months", 1)
    agora("simulate", "ecommerce", "--out", tmp_path, "--seed", 20191001, *size)
    agora("load", "ecommerce.events", tmp_path)
    agora("run", "ecommerce")
    checksum = agora("checksum", "ecommerce")
    generations = {frozenset(rows_of(TABLES))}
    publications = "select count(*) from audit.publications where domain = 'ecommerce'"
    before = one(publications)
    with reader() as readings:
        publishing = subprocess.Popen(
            [sys.executable, "-c", PUBLISH, str(PUBLICATION_COUNT)],
            stdin=subprocess.DEVNULL, stdout=(tmp_path / "said").open("w"), stderr=subprocess.STDOUT,
        )  # fmt: skip
        with connect(autocommit=True) as connection:
            while publishing.poll() is None:
                # one statement: a whole generation or none
                generations.add(frozenset(connection.execute(TABLES).fetchall()))
                time.sleep(0.05)
    assert publishing.returncode == 0, (tmp_path / "said").read_text()[-3000:]
    generations.add(frozenset(rows_of(TABLES)))
    assert one(publications) - before == PUBLICATION_COUNT
    assert readings.errors == []
    assert len(generations) == 1 + PUBLICATION_COUNT
    assert readings.met <= generations, "a transaction met tables of two generations"
    assert len(readings.met) > PUBLICATION_COUNT // 2
    assert readings.transaction_count > 10 * PUBLICATION_COUNT
    assert rows_of(
        "select tablename, bool_and(has_table_privilege('bi_reader', 'ecommerce.' || tablename, privilege))"
        " from pg_tables, unnest(array['select', 'references']) as privilege where schemaname = 'ecommerce' group by 1"
        " having not bool_and(has_table_privilege('bi_reader', 'ecommerce.' || tablename, privilege))"
    ) == []  # fmt: skip
    assert agora("checksum", "ecommerce") == checksum
