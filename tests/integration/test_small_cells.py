"""What leaves the house: an attacker who subtracts must not learn of few people, or mostly of one.

The macro is rendered by dbt and run by Postgres on hundreds of random tables at once, each with a total of its own. The
attacker sees what is published and works out every set of cells whose sum follows from it; what those sets really hold
is known here. The same attack on weaker rules succeeds, or it would prove nothing. Last, the attack on the real mart.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from support import KEY, agora, execute, rows_of

from warehouse.connections import connect

pytestmark = pytest.mark.once

K, RATIO = 20, 0.5
TABLE_COUNT = 400
VALUES = ("item_count", "cents")

Cell: TypeAlias = str | None
Contribution: TypeAlias = tuple[int, Cell, int | None, int, int]  # table, cell, person, item_count, cents
Sums: TypeAlias = tuple[int, ...]
# what each person adds to each cell
Truth: TypeAlias = dict[Cell, dict[int | None, Sums]]


@dataclass(frozen=True)
class Published:
    """A table as readers get it: people and sums of each visible cell, which cells are hidden, the total if visible."""

    visible: dict[Cell, Sums]
    hidden: set[Cell]
    total: Sums | None


# --- what is true -------------------------------------------------------------------------------------------------


def truth_of(contributions: Iterable[Contribution]) -> dict[int, Truth]:
    tables: dict[int, Truth] = defaultdict(lambda: defaultdict(dict))
    for table, cell, person, *values in contributions:
        before = tables[table][cell].get(person, (0,) * len(values))
        tables[table][cell][person] = tuple(old + new for old, new in zip(before, values, strict=True))
    return dict(tables)


def figures(truth: Truth, cells: Iterable[Cell]) -> Sums:
    """Distinct people in these cells, and the sums."""
    people = {person for cell in cells for person in truth[cell]} - {None}
    sums = np.sum([values for cell in cells for values in truth[cell].values()], axis=0)
    return (len(people), *map(int, sums))


def is_small(truth: Truth, cells: Iterable[Cell]) -> bool:
    """Fewer than K people, or one with more than half of a value: by size, so that refunds make nobody smaller."""
    sizes: dict[int | None, Any] = defaultdict(int)
    for cell in cells:
        for person, values in truth[cell].items():
            sizes[person] = sizes[person] + np.abs(values)
    amounts = np.array(list(sizes.values()))
    return len(sizes.keys() - {None}) < K or bool((amounts.max(axis=0) > RATIO * amounts.sum(axis=0)).any())


# --- the attacker -------------------------------------------------------------------------------------------------


def learned_sets(published: Published, truth: Truth, among: Iterable[Cell]) -> list[set[Cell]]:
    """Every set of the cells `among` whose sums follow from what is published, by solving the equations it states.

    The figures found are compared with the truth: an attacker who is mistaken proves nothing.
    """
    cells = sorted(truth, key=str)
    equations = [np.array([cell == shown for cell in cells], dtype=float) for shown in published.visible]
    known = [sums[1:] for sums in published.visible.values()]
    if published.total:
        equations.append(np.ones(len(cells)))
        known.append(published.total[1:])
    if not equations:
        return []
    asked = np.flatnonzero([cell in set(among) for cell in cells])
    subsets = np.zeros((2 ** len(asked) - 1, len(cells)), dtype=int)
    subsets[:, asked] = (np.arange(1, 2 ** len(asked))[:, None] >> np.arange(len(asked))) & 1
    weights = subsets @ np.linalg.pinv(np.array(equations))
    follows = np.abs(weights @ np.array(equations) - subsets).max(axis=1) < 1e-9
    sets = [{cell for cell, is_in in zip(cells, subset, strict=True) if is_in} for subset in subsets[follows]]
    np.testing.assert_allclose(
        weights[follows] @ np.array(known, dtype=float), [figures(truth, cells)[1:] for cells in sets], atol=1e-3
    )
    return sets


def revealed(published: Published, truth: Truth, among: Iterable[Cell] | None = None) -> list[set[Cell]]:
    """The small sets an attacker learns, of all cells unless `among` says which."""
    return [
        cells for cells in learned_sets(published, truth, truth if among is None else among) if is_small(truth, cells)
    ]


def published_when(hidden: set[Cell], truth: Truth) -> Published:
    total = None if is_small(truth, truth) else figures(truth, truth)
    return Published({cell: figures(truth, [cell]) for cell in truth if cell not in hidden}, hidden, total)


def only_small_cells_hidden(truth: Truth) -> Published:
    return published_when({cell for cell in truth if is_small(truth, [cell])}, truth)


def two_cells_hidden(truth: Truth) -> Published:
    """Like many a rule in use: never one hidden cell alone, never mind who is in them."""
    hidden = only_small_cells_hidden(truth).hidden
    others = sorted(truth.keys() - hidden, key=lambda cell: (figures(truth, [cell]), str(cell)))
    return published_when(hidden | set(others[: len(hidden) == 1]), truth)


def people_added_up(truth: Truth) -> Published:
    """As the macro, but people of hidden cells are added up, as if nobody were in two of them."""
    hidden = only_small_cells_hidden(truth).hidden
    others = sorted(truth.keys() - hidden, key=lambda cell: (figures(truth, [cell]), str(cell)))
    while hidden and others and (len(hidden) < 2 or sum(figures(truth, [cell])[0] for cell in hidden) < K):
        hidden = hidden | {others.pop(0)}
    return published_when(hidden, truth)


# --- random tables ------------------------------------------------------------------------------------------------


def random_contributions(seed: int) -> list[Contribution]:
    """Tables of 1 to 7 cells: people in one cell or in many, large and small spenders, refunds, rows of nobody."""
    rng = np.random.default_rng(seed)
    rows: list[Contribution] = []
    for table in range(TABLE_COUNT):
        cells: list[Cell] = [*"abcdef", None][-rng.integers(1, 8) :]
        shares = rng.dirichlet(np.full(len(cells), rng.choice([0.3, 1, 5])))
        cells_per_person = rng.choice([1, 1, 2, len(cells)])
        has_refunds = rng.random() < 0.2
        has_nobody = rng.random() < 0.1
        for person in range(K - 1 if has_nobody else rng.integers(3, 150)):
            spends = rng.lognormal(5, rng.choice([0.3, 1, 2.5]))
            for cell in rng.choice(len(cells), size=min(cells_per_person, len(cells)), p=shares):
                for _ in range(rng.integers(1, 4)):
                    sign = -1 if has_refunds and rng.random() < 0.3 else 1
                    cents = int(sign * spends * rng.random())
                    rows.append((table, cells[cell], person, 1, cents))
        if rng.random() < 0.3:  # someone who outspends all others
            rows.append((table, cells[rng.integers(len(cells))], 1000, 1, int(rng.lognormal(10, 1))))
        if has_nobody:  # no person is the twentieth; and a cell without people
            rows += [(table, cells[0], None, 1, 500), (table, "z", None, 0, 0)]
    return rows


@dataclass(frozen=True)
class Queries:
    by_table: str
    grand_total: str
    no_values: str
    generic_test: str


@pytest.fixture(scope="module")
def queries(warehouse: Path) -> Queries:
    """What dbt makes of the macros, rendered once."""
    calls = (
        "small_cells('attack.contributions', cells=['table_id', 'cell'], subject='person',"
        " values=['item_count', 'cents'], totals_by=['table_id'])",
        "small_cells('one_table', cells=['cell'], subject='person', values=['item_count', 'cents'], totals_by=[])",
        "small_cells('one_table', cells=['cell'], subject='person', values=[], totals_by=[])",
        "test_small_cells_are_hidden('attack.finished', 'user_count', ['item_count', 'cents'], ['table_id'])",
    )
    inline = "\n;;\n".join("{{ " + call + " }}" for call in calls)
    # stderr is silent: what dbt says is the SQL
    return Queries(*agora("dbt", "--quiet", "compile", "--target", "ci", "--inline", inline).split(";;"))


@dataclass(frozen=True)
class Attacked:
    truth: dict[int, Truth]
    published: dict[int, Published]
    rows: set[tuple[Any, ...]]


@pytest.fixture(scope="module", params=[1, 20_240_229], ids="seed={}".format)
def attacked(request: pytest.FixtureRequest, queries: Queries) -> Attacked:
    """The random tables of a seed, as they are and as the macro would publish them."""
    contributions = random_contributions(request.param)
    land(contributions)
    rows = rows_of(queries.by_table)
    return Attacked(truth_of(contributions), published_in(rows), set(rows))


def land(contributions: list[Contribution]) -> None:
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("create schema if not exists attack")
        cursor.execute("drop table if exists attack.contributions")
        cursor.execute(
            "create table attack.contributions (table_id int, cell text, person int, item_count int, cents bigint)"
        )
        with cursor.copy("copy attack.contributions from stdin") as copy:
            for row in contributions:
                copy.write_row(row)


def published_in(rows: list[tuple[Any, ...]]) -> dict[int, Published]:
    """Read rows of (table_id, cell, is_total, user_count, values …, is_suppressed)."""
    tables: dict[int, Published] = {}
    totals: dict[int, Sums | None] = {}
    for table, cell, is_total, *sums, is_suppressed in rows:
        assert all((value is None) == is_suppressed for value in sums)
        shown = None if is_suppressed else tuple(map(int, sums))
        if is_total:
            assert table not in totals, "one total a table"
            totals[table] = shown
            continue
        published = tables.setdefault(table, Published({}, set(), None))
        assert cell not in published.visible.keys() | published.hidden, "one row a cell"
        if shown:
            published.visible[cell] = shown
        else:
            published.hidden.add(cell)
    return {table: Published(seen.visible, seen.hidden, totals[table]) for table, seen in tables.items()}


def test_subtracting_reveals_nothing_small(attacked: Attacked) -> None:
    assert {table: revealed(published, attacked.truth[table]) for table, published in attacked.published.items()} == {
        table: [] for table in range(TABLE_COUNT)
    }


@pytest.mark.parametrize("rule", [only_small_cells_hidden, two_cells_hidden, people_added_up])
def test_the_same_attack_succeeds_on_weaker_rules(attacked: Attacked, rule: Callable[[Truth], Published]) -> None:
    assert sum(bool(revealed(rule(truth), truth)) for truth in attacked.truth.values()) > 10


def test_what_is_shown_is_true_and_what_is_hidden_is_hidden_for_a_reason(attacked: Attacked) -> None:
    kinds: dict[str, int] = defaultdict(int)
    for table, published in attacked.published.items():
        truth = attacked.truth[table]
        assert published.visible.keys() | published.hidden == truth.keys()
        assert published.visible == {cell: figures(truth, [cell]) for cell in published.visible}
        small = {cell for cell in truth if is_small(truth, [cell])}
        assert small <= published.hidden
        assert (published.total is None) == is_small(truth, truth)
        assert published.total in (None, figures(truth, truth))
        partners = published.hidden - small
        if partners:
            # with one less the rest would be small; and visible cells have no fewer people
            people = {cell: figures(truth, [cell])[0] for cell in truth}
            last = max(partners, key=lambda cell: (people[cell], cell is None, cell or ""))
            assert published.total
            assert is_small(truth, published.hidden - {last})
            assert min([people[cell] for cell in published.visible], default=people[last]) >= people[last]
        kinds["nothing hidden"] += not published.hidden
        kinds["with partners"] += bool(partners)
        kinds["several partners"] += len(partners) > 1
        kinds["small ones protect each other"] += bool(small and published.total and not partners)
        kinds["hidden total, visible cells"] += bool(published.total is None and published.visible)
        kinds["all hidden but the total"] += bool(published.total and not published.visible)
    assert len(kinds) == 6
    assert min(kinds.values()) >= 3, kinds


def test_the_order_of_rows_and_the_way_to_ask_change_nothing(queries: Queries, attacked: Attacked) -> None:
    with connect() as connection:
        connection.execute("create temporary table before on commit drop as select * from attack.contributions")
        connection.execute("truncate attack.contributions")
        connection.execute("insert into attack.contributions select * from before order by random()")
        assert set(connection.execute(queries.by_table).fetchall()) == attacked.rows
        # a grand total is the total of the only table
        for table in range(0, TABLE_COUNT, 20):
            connection.execute(
                "create or replace temporary view one_table as"
                f" select * from attack.contributions where table_id = {table}"
            )
            rows = {(table, *row) for row in connection.execute(queries.grand_total)}
            assert rows == {row for row in attacked.rows if row[0] == table}


def test_counts_alone_are_enough_to_publish(queries: Queries, attacked: Attacked) -> None:
    for table in range(0, TABLE_COUNT, 20):
        people = {cell: dict.fromkeys(by_person, ()) for cell, by_person in attacked.truth[table].items()}
        with connect() as connection:
            connection.execute(
                f"create temporary view one_table as select * from attack.contributions where table_id = {table}"
            )
            rows = [(table, *row) for row in connection.execute(queries.no_values)]
            connection.rollback()
        (published,) = published_in(rows).values()
        assert {cell for cell, by_person in people.items() if len(by_person.keys() - {None}) < K} <= published.hidden
        together = {person for cell in published.hidden for person in people[cell]} - {None}
        assert published.total is None or not published.hidden or len(together) >= K


# --- the generic test ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "statement"),
    [
        ("a visible cell of 19", "update attack.finished set user_count = 19 where cell = 'd'"),
        ("a hidden count shown", "update attack.finished set user_count = 19 where cell = 'a'"),
        ("a hidden sum shown", "update attack.finished set cents = 0 where cell = 'a'"),
        ("a sum lost", "update attack.finished set cents = null where cell = 'd'"),
        ("a visible total of 19", "update attack.finished set user_count = 19 where is_total and table_id = 1"),
        ("nobody knows whether it is hidden", "update attack.finished set is_suppressed = null where cell = 'a'"),
        ("nobody knows whether it is a total", "update attack.finished set is_total = null where cell = 'a'"),
        ("one hidden cell under a visible total", "delete from attack.finished where cell = 'b'"),
        ("one cell, hidden, is the total", "delete from attack.finished where table_id = 1 and cell <> 'a'"),
    ],
)
def test_the_generic_test_finds_faults(queries: Queries, fault: str, statement: str) -> None:
    execute("create schema if not exists attack")
    execute("drop table if exists attack.finished")
    execute(
        "create table attack.finished as select * from (values"
        " (1, 'a', false, null::bigint, null::bigint, null::bigint, true), (1, 'b', false, null, null, null, true),"
        " (1, 'd', false, 20, 25, 100, false), (1, null, true, 60, 80, 500, false),"
        # under a hidden total one cell may be hidden alone
        " (2, 'e', false, null, null, null, true), (2, 'f', false, 20, 20, 20, false),"
        " (2, null, true, null, null, null, true)"
        ") as cells (table_id, cell, is_total, user_count, item_count, cents, is_suppressed)"
    )
    assert rows_of(queries.generic_test) == []
    execute(statement)
    assert rows_of(queries.generic_test), fault


# --- the real mart ------------------------------------------------------------------------------------------------


def test_category_sales_reveal_nothing_small(warehouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGORA_KEY_ECOMMERCE", KEY)
    # the demo's shop: in October few buy bags
    size = ("--users", 10_000, "--events", 300_000, "--months", 2)
    agora("simulate", "ecommerce", "--out", tmp_path, "--seed", 1, *size)
    agora("load", "ecommerce.events", tmp_path)
    agora("dbt", "build", "--target", "ci", "--select", "+ecommerce__category_sales")
    purchases = rows_of(
        "select extract(month from purchased_at)::int, split_part(category_code, '.', 1), user_id, 1,"
        " (price_eur * 100)::bigint from ci_intermediate.int_ecommerce__purchases"
    )
    truth = truth_of(purchases)
    published = published_in(
        rows_of(
            "select extract(month from month_date)::int, nullif(category, 'all'), is_total, buyer_count,"
            " purchase_count, revenue_eur * 100, is_suppressed from ci_ecommerce.category_sales"
        )
    )
    assert published.keys() == truth.keys() == {10, 11}
    for month, table in published.items():
        assert table.total == figures(truth[month], truth[month])
        assert table.visible == {cell: figures(truth[month], [cell]) for cell in table.visible}
        for cell in table.hidden - truth[month].keys():
            truth[month][cell] = {None: (0, 0)}
        assert revealed(table, truth[month], {*table.hidden, *list(table.visible)[:6]}) == []
    assert any(table.hidden for table in published.values())
    assert any(
        revealed(only_small_cells_hidden(truth[month]), truth[month], table.hidden)
        for month, table in published.items()
    )
