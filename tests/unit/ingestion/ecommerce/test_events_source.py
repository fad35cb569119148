"""The shop's periods and file names."""

from datetime import UTC, datetime

import pytest

from ingestion.ecommerce.source import EVENTS, period_of_file, period_of_text
from warehouse.errors import UserError


@pytest.mark.parametrize(
    ("name", "period"),
    [
        ("2019-Oct.csv.gz", "2019-10"),
        ("2019-Oct.csv", "2019-10"),
        ("2019-Oct.2.csv.gz", "2019-10"),
        ("2019-Oct.sample.csv", "2019-10"),
        ("2019-oct-15.csv", "2019-10-15"),
        ("2020-Feb-29.b.csv.gz", "2020-02-29"),
        ("2019-Feb-29.csv", None),
        ("2019-Oct-32.csv", None),
        ("2019-Oct-00.csv", None),
        ("2019-Okt.csv", None),
        ("2019-10.csv", None),
        ("2019-Oct.csv.zip", None),
        ("2019-Oct.csv.gz.part", None),
        ("x2019-Oct.csv", None),
        ("2019-Oct..csv", None),
        ("2019-Oct", None),
        ("٢٠١٩-Oct.csv", None),
    ],
)
def test_file_names(name: str, period: str | None) -> None:
    found = period_of_file(name)
    assert (found.text if found else None) == period


def test_periods_are_months_and_days() -> None:
    december = period_of_text("2019-12")
    assert (december.start, december.end) == (datetime(2019, 12, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC))
    last_day = period_of_text("2019-12-31")
    assert (last_day.start, last_day.end) == (datetime(2019, 12, 31, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC))
    assert december < last_day


@pytest.mark.parametrize(
    "text", ["2019", "2019-13", "2019-00", "2019-02-30", "Oct 2019", "2019-10-1", "", "9999-12", "٢٠١٩-10"]
)
def test_what_is_no_period_is_told(text: str) -> None:
    with pytest.raises(UserError, match="is no period: write a month as 2019-10 or a day as 2019-10-15"):
        period_of_text(text)


def test_the_source_lands_where_the_schema_says() -> None:
    assert EVENTS.domain == "ecommerce"
    assert EVENTS.raw_table == ("raw_ecommerce", "events")
    assert {EVENTS.person, EVENTS.time} <= {column.name for column in EVENTS.columns}
