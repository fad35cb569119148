"""Publication: readers see one generation of marts, whole, whatever fails or dies on the way.

First `audit.publish` itself under readers that never pause, then the same promises through dbt.
"""

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from support import agora, execute, finish, one, rows_of, start

from warehouse.checksum import checksums
from warehouse.connections import connect

PUBLICATION_COUNT = 20
MARTS = {
    "category_sales",
    "customer_segments",
    "dim_products",
    "dim_segments",
    "dim_users",
    "fct_purchases",
    "segment_profiles",
}
AFTER_ML = ("--select", "source:ml_ecommerce+", "tag:marts_ecommerce")


# --- audit.publish ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shop(warehouse: Path) -> None:
    """A made-up domain of two related tables, first generation published."""
    execute("create schema shop authorization transformer")
    execute("insert into audit.rights values ('bi_reader', 'shop', '*', '{select, references}')")
    build(1)
    publish(1)


def generation_name(number: int) -> str:
    return f"20260101000000{number:06d}"


def build(number: int) -> None:
    """Build generation `number` aside, as dbt would: every row says which generation it is of."""
    schema = f"shop_next_{generation_name(number)}"
    with connect("transformer") as connection:
        connection.execute(f"create schema {schema}")
        connection.execute(f"create table {schema}.users (user_id bigint primary key, generation bigint not null)")
        connection.execute(f"comment on table {schema}.users is 'One row per user.'")
        connection.execute(f"comment on column {schema}.users.user_id is 'Who.'")
        connection.execute(
            f"create table {schema}.orders (order_id bigint primary key, generation bigint not null,"
            f" user_id bigint references {schema}.users (user_id))"
        )
        connection.execute(f"create index on {schema}.orders (user_id)")
        connection.execute(f"insert into {schema}.users select i, {number} from generate_series(1, 200) as i")
        connection.execute(f"insert into {schema}.orders select i, {number}, i from generate_series(1, 200) as i")


def publish(number: int) -> None:
    with connect("transformer") as connection:
        connection.execute("select audit.publish('shop', %s, array['orders', 'users'])", (generation_name(number),))


@dataclass
class Readings:
    """What readers saw: transactions, how many of them mixed generations, what went wrong, the slowest in seconds."""

    transaction_count: int = 0
    mixed: list[set[int]] = field(default_factory=list)
    generations: set[int] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0


@contextmanager
def hot_readers() -> Iterator[Readings]:
    """Readers logged in as bi_reader: with a join and no pause at all, and in transactions in both orders of tables."""
    readings, done, lock = Readings(), threading.Event(), threading.Lock()

    def read(statements: list[str], pause_seconds: float) -> None:
        with connect("bi_reader") as connection:
            while not done.is_set():
                started, seen = time.monotonic(), set()
                try:
                    with connection.transaction():
                        for statement in statements:
                            seen |= {generation for (generation,) in connection.execute(statement)}
                except psycopg.Error as error:
                    with lock:
                        readings.errors.append(str(error))
                    return
                with lock:
                    readings.transaction_count += 1
                    readings.generations |= seen
                    readings.slowest_seconds = max(readings.slowest_seconds, time.monotonic() - started)
                    if len(seen) != 1:
                        readings.mixed.append(seen)
                time.sleep(pause_seconds)

    users, orders = "select distinct generation from shop.users", "select distinct generation from shop.orders"
    join = (
        "select users.generation from shop.orders inner join shop.users using (user_id)"
        " union select orders.generation from shop.orders inner join shop.users using (user_id)"
    )
    # against the order in which the publication takes its locks: each of its attempts that meets this one is lost
    threads = [
        threading.Thread(target=read, args=arguments)
        for arguments in (([join], 0), ([orders, users], 0.001), ([users, orders], 0.01))
    ]
    for thread in threads:
        thread.start()
    try:
        yield readings
    finally:
        done.set()
        for thread in threads:
            thread.join()


@pytest.mark.usefixtures("shop")
def test_hot_readers_never_see_two_generations_nor_an_error() -> None:
    numbers = range(2, 2 + PUBLICATION_COUNT)
    with hot_readers() as readings:
        for number in numbers:
            build(number)
            publish(number)
            time.sleep(0.05)
    assert readings.errors == []
    assert readings.mixed == []
    assert readings.generations >= set(numbers), "every generation was seen"
    assert readings.transaction_count > 10 * PUBLICATION_COUNT
    assert readings.slowest_seconds < 10


@pytest.mark.usefixtures("shop")
def test_a_publication_gives_readers_their_rights_anew() -> None:
    assert {
        (name, privilege): allowed
        for name, privilege, allowed in rows_of(
            "select tablename, privilege, has_table_privilege('bi_reader', schemaname || '.' || tablename, privilege)"
            " from pg_tables, unnest(array['select', 'references', 'insert']) as privilege where schemaname = 'shop'"
        )
    } == {
        (name, privilege): privilege != "insert"
        for name in ("users", "orders")
        for privilege in ("select", "references", "insert")
    }
    assert one("select has_schema_privilege('bi_reader', 'shop', 'usage')")


@pytest.mark.usefixtures("shop")
def test_keys_indexes_and_comments_travel_with_the_tables() -> None:
    assert rows_of(
        "select conrelid::regclass::text, contype::text, confrelid::regclass::text from pg_constraint"
        " where connamespace = 'shop'::regnamespace and contype in ('p', 'f') order by 1, 2"
    ) == [("shop.orders", "f", "shop.users"), ("shop.orders", "p", "-"), ("shop.users", "p", "-")]
    assert one("select count(*) from pg_indexes where schemaname = 'shop'") == 3
    assert one("select obj_description('shop.users'::regclass)") == "One row per user."
    assert one("select col_description('shop.users'::regclass, 1)") == "Who."


@pytest.mark.usefixtures("shop")
def test_an_older_generation_is_refused_after_a_newer_one() -> None:
    build(101)
    build(102)
    publish(102)
    build(101)  # the publication of 102 has cleared it away
    with pytest.raises(psycopg.errors.RaiseException, match="a newer generation of shop is published already"):
        publish(101)
    assert rows_of("select distinct generation from shop.users") == [(102,)]
    build(103)
    publish(103)
    assert left_over("shop") == []


@pytest.mark.usefixtures("shop")
def test_what_a_killed_build_left_behind_is_cleared_by_the_next_publication() -> None:
    build(110)
    build(111)
    build(112)
    with connect("transformer") as still_building:
        still_building.execute(f"select * from shop_next_{generation_name(111)}.users")
        publish(112)
        assert left_over("shop") == [f"shop_next_{generation_name(111)}"], "what is in use is left for the next"
    build(113)
    publish(113)
    assert left_over("shop") == []
    assert rows_of("select distinct generation from shop.orders") == [(113,)]


def test_only_the_transformer_may_publish(warehouse: Path) -> None:
    for role in ("bi_reader", "loader", "ml", "steward"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connect(role) as connection:
            connection.execute("select audit.publish('shop', '9', array['users'])")


def left_over(domain: str) -> list[str]:
    return [name for (name,) in rows_of("select nspname from pg_namespace where nspname like %s", f"{domain}_next_%")]


# --- through dbt ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Published:
    """What readers see: the generation, its very tables, and their content."""

    generation: str
    tables: dict[str, int]
    content: dict[str, str]


def published() -> Published:
    with connect() as connection:
        content = checksums(connection, "ecommerce")
    tables = rows_of(
        "select relname, oid::int from pg_class where relnamespace = 'ecommerce'::regnamespace and relkind = 'r'"
    )
    generation = one("select max(generation) from audit.publications where domain = 'ecommerce'")
    return Published(generation, dict(tables), content)


def readers_can_read() -> None:
    for table in MARTS:
        assert rows_of(f"select count(*) from ecommerce.{table}", role="bi_reader") > [(0,)]


@pytest.fixture(scope="module")
def first_generation(warehouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """A small shop, its segments written by hand, everything built and published by one `agora dbt build`."""
    folder = tmp_path_factory.mktemp("shop")
    agora("simulate", "ecommerce", "--out", folder, "--seed", 90210, "--users", 40, "--events", 900, "--months", 1)
    agora("load", "ecommerce.events", folder)
    execute(
        "insert into ml_ecommerce.customer_segments_runs values ('by hand', 'v0', 0, now(), 0, 1, 1, 1, 0, null, 1,"
        """ '{}', '{}', '{"Window Shopper": "all alike"}', 0, now())"""
    )
    execute(SEGMENTS_BY_HAND)
    said = agora("dbt", "build", "--exclude-resource-type", "unit_test")
    assert "Publishing ecommerce" in said
    assert left_over("ecommerce") == []
    before = published()
    assert set(before.tables) == MARTS
    return before


SEGMENTS_BY_HAND = (
    "insert into ml_ecommerce.customer_segments"
    " select user_id, 0, 'Window Shopper', 0.5, 1, 'v0', now() from raw_ecommerce.users on conflict do nothing"
)


@pytest.fixture(scope="module")
def user_without_segment(first_generation: Published) -> None:
    """A fault that only a test on the marts can see: the segmentation forgot a user."""
    execute("delete from ml_ecommerce.customer_segments where user_id = (select max(user_id) from ecommerce.dim_users)")


@pytest.mark.usefixtures("user_without_segment")
def test_a_failing_test_and_a_partial_build_leave_the_old_generation(
    first_generation: Published, tmp_path: Path
) -> None:
    failing = start("dbt", "build", *AFTER_ML, DBT_TARGET_PATH=tmp_path / "1")
    partial = start("dbt", "build", "--select", "dim_ecommerce__users", DBT_TARGET_PATH=tmp_path / "2")
    said = finish(failing, expect=1)
    assert "FAIL 1 assert_every_user_has_a_segment" in said
    (sentence,) = re.findall("ecommerce is not published: .*", said)
    assert "test.agora.assert_every_user_has_a_segment" in sentence
    assert sentence.endswith(" not green. Readers keep the last generation.")

    said = finish(partial, expect=2)
    assert said.count("The marts of ecommerce are built together or not at all: select tag:marts_ecommerce") == 1
    assert "missing: " in said
    assert "model.agora.fct_ecommerce__purchases" in said

    assert published() == first_generation
    readers_can_read()


@pytest.mark.usefixtures("user_without_segment")
def test_run_does_not_publish_and_test_looks_at_what_is_published(first_generation: Published, tmp_path: Path) -> None:
    # the fault is in what was built aside, and in the segmentation's table; what readers see is without fault
    run = start("dbt", "run", *AFTER_ML, DBT_TARGET_PATH=tmp_path / "1")
    test = start("dbt", "test", "--select", "tag:marts_ecommerce", DBT_TARGET_PATH=tmp_path / "2")
    assert "Publishing" not in finish(run)
    said = finish(test)
    assert "PASS assert_every_user_has_a_segment" in said
    assert "ERROR=0" in said
    assert published() == first_generation
    # the run's generation, whole, beside the published one: nobody reads it and the next publication clears it
    built = rows_of("select schemaname, count(*) from pg_tables where schemaname like 'ecommerce_next_%%' group by 1")
    assert len(MARTS) in [count for _, count in built]


def test_a_build_killed_between_two_marts_leaves_the_old_generation(first_generation: Published) -> None:
    known = set(left_over("ecommerce"))
    with connect() as connection:
        # purchases wait for this lock, while users and products are built
        connection.execute("lock table intermediate.int_ecommerce__purchases in access exclusive mode")
        build = start("dbt", "build", *AFTER_ML)
        until = time.monotonic() + 120
        while "dim_users" not in tables_of_new_generation(known) and build.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.05)
        os.kill(build.pid, signal.SIGKILL)
        finish(build, expect=-signal.SIGKILL)
    tables = tables_of_new_generation(known)
    assert tables
    assert "fct_purchases" not in tables
    assert published() == first_generation
    readers_can_read()


def tables_of_new_generation(known: set[str]) -> set[str]:
    rows = rows_of("select schemaname, tablename from pg_tables where schemaname like 'ecommerce_next_%%'")
    return {table for schema, table in rows if schema not in known and "__dbt" not in table}


def test_after_all_that_a_good_build_publishes_and_tidies_up(first_generation: Published) -> None:
    execute(SEGMENTS_BY_HAND)
    execute("update ml_ecommerce.customer_segments set proba = 0.25")
    said = agora("dbt", "build", *AFTER_ML)
    assert "Publishing ecommerce" in said
    after = published()
    assert after.generation > first_generation.generation
    assert rows_of("select distinct proba from ecommerce.customer_segments", role="bi_reader") == [(0.25,)]
    same = MARTS - {"customer_segments"}
    assert {name: after.content[name] for name in same} == {name: first_generation.content[name] for name in same}
    assert not set(after.tables.values()) & set(first_generation.tables.values())
    assert left_over("ecommerce") == []
    readers_can_read()
