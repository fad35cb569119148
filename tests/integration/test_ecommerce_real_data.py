"""The genuine log of one night in October 2019 goes through the shop's job, and comes out as a few lines of pandas say.

The file is not ours to keep: it lies beside the checkout, in ../shared/data. Where that folder is, the file must be.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from support import CHECKOUT, KEY, agora, one, rows_of

from warehouse.connections import connect
from warehouse.frames import read_frame

DATA = CHECKOUT.parent / "shared" / "data"
SAMPLE = DATA / "rees46" / "2019-Oct.sample.csv"

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not DATA.exists(), reason=f"the real data is not here: {DATA}"),
]


@pytest.fixture(scope="module")
def said(warehouse: Path) -> Iterator[str]:
    """What landing said; the job has run."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("AGORA_KEY_ECOMMERCE", KEY)
        said = agora("load", "ecommerce.events", SAMPLE)
        agora("run", "ecommerce")
        yield said


@pytest.fixture(scope="module")
def events() -> pd.DataFrame:
    """The log but for its last line, which is cut short, and for repetitions of a key."""
    lines = pd.read_csv(SAMPLE, skipfooter=1, engine="python", dtype={"user_id": str})
    assert len(lines) == 17_434
    lines["event_time"] = pd.to_datetime(lines["event_time"], utc=True)
    return lines.drop_duplicates(["event_time", "user_id", "product_id", "event_type"])


def test_the_figures_of_the_issue(said: str) -> None:
    assert "17,435 rows read, 17,434 landed, 1 quarantined" in said
    assert rows_of("select rows_read, rows_landed, rows_quarantined from audit.loads") == [(17_435, 17_434, 1)]
    ((line_number, error_code, detail),) = rows_of("select line_number, error_code, detail from quarantine.rows")
    assert (line_number, error_code) == (17_436, "wrong_field_count")
    assert detail
    assert one("select count(*) from intermediate.int_ecommerce__duplicate_events") == 6
    assert one("select count(*) from staging.rejected_ecommerce__events") == 0
    assert one("select count(*) from intermediate.int_ecommerce__events") == 17_434 - 6
    purchases = rows_of("select count(*), sum(price_eur)::text from ecommerce.fct_purchases", role="bi_reader")
    assert purchases == [(214, "59442.63")]
    assert one("select count(*) from ecommerce.dim_users") == 4_504
    assert one("select count(*) from ecommerce.customer_segments") == 4_504
    assert one("select count(distinct segment_name) from ecommerce.customer_segments") == 5


def test_users_are_those_of_a_few_lines_of_pandas(said: str, events: pd.DataFrame) -> None:
    raw_ids = events["user_id"].unique()
    pseudonyms = csv.DictReader(agora("pseudonym", "ecommerce", stdin="\n".join(raw_ids)).splitlines())
    events = events.assign(user_id=events["user_id"].map({row["raw_id"]: int(row["user_id"]) for row in pseudonyms}))
    by_user = events.groupby("user_id")
    of_type = {name: events[events["event_type"] == name].groupby("user_id") for name in ("view", "cart", "purchase")}
    expected = pd.DataFrame(
        {
            "first_seen_at": by_user["event_time"].min().dt.floor("min"),
            "last_seen_at": by_user["event_time"].max().dt.floor("min"),
            "last_purchase_at": of_type["purchase"]["event_time"].max().dt.floor("min"),
            "view_count": of_type["view"].size(),
            "cart_count": of_type["cart"].size(),
            "purchase_count": of_type["purchase"].size(),
            "monetary_eur": of_type["purchase"]["price"].sum().round(2),
            "viewed_value_eur": of_type["view"]["price"].sum().round(2),
            # a category id is never missing here
            "category_count": by_user["category_id"].nunique(),
            "brand_count": by_user["brand"].nunique(),
        }
    )
    zero_if_none = [name for name in expected.columns if not name.endswith("_at")]
    expected[zero_if_none] = expected[zero_if_none].fillna(0)
    with connect("bi_reader") as connection:
        found = read_frame(connection, "select * from ecommerce.dim_users").set_index("user_id").sort_index()
    pd.testing.assert_frame_equal(found[list(expected.columns)], expected.sort_index(), check_dtype=False)

    # most of them bought nothing, and say so: null, not zero
    has_bought = found["purchase_count"] > 0
    assert has_bought.sum() == events.loc[events["event_type"] == "purchase", "user_id"].nunique()
    assert has_bought.mean() < 0.1
    for name in ("recency_days", "frequency_per_month"):
        assert (found[name].notna() == has_bought).all()
    # within three hours: nobody's last purchase is a day old, and nobody has been seen for a month
    assert (found.loc[has_bought, "recency_days"] == 0).all()
    assert (found.loc[has_bought, "frequency_per_month"] == found.loc[has_bought, "purchase_count"]).all()
