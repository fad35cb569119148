"""The plan's figures: against what others say of the data set, and by hand."""

from ingestion.ecommerce.rees46 import MONTHS, Need, PerRow, months_that_fit, need
from ingestion.ecommerce.source import period_of_file
from ingestion.https import web_file

PER_ROW = PerRow(
    measured_rows=1, raw_bytes=100.0, built_bytes=200.0, marts_bytes=50.0, peak_bytes=500.0, build_seconds=0.001
)


def test_the_months_are_those_of_the_data_set() -> None:
    # requirement E1
    assert sum(month.row_count for month in MONTHS) == 411_709_736
    # the publisher's server on 2019-Nov, by an HTTP HEAD that somebody recorded
    assert round(2_890_421_023 / 2**30, 2) == MONTHS[1].size_gib
    files = [web_file(month.url) for month in MONTHS]
    periods = [period_of_file(file.name) for file in files]
    assert [period.text for period in periods if period] == [
        "2019-10",
        "2019-11",
        "2019-12",
        "2020-01",
        "2020-02",
        "2020-03",
        "2020-04",
    ]
    assert files[0].where == "https://data.rees46.com/datasets/marketplace/2019-Oct.csv.gz"


def test_what_is_needed_grows_with_the_rows() -> None:
    october = need(MONTHS[:1], PER_ROW, land_rows_per_second=42_448_764 / 60)
    assert october == Need(
        row_count=42_448_764,
        download_gib=1.62,
        spool_gib=1.62,
        raw_gib=4_244_876_400 / 2**30,
        built_gib=8_489_752_800 / 2**30,
        marts_gib=2_122_438_200 / 2**30,
        peak_gib=21_224_382_000 / 2**30,
        land_seconds=60.0,
        build_seconds=42_448.764,
    )
    both = need(MONTHS[:2], PER_ROW, land_rows_per_second=1.0)
    assert both.download_gib == 1.62 + 2.69
    # one download at a time
    assert both.spool_gib == 2.69
    assert both.disk_gib == both.peak_gib


def test_as_many_months_fit_as_the_worst_moment_allows() -> None:
    two_gib = 500 * (42_448_764 + 67_501_979) / 2**30
    assert months_that_fit(PER_ROW, two_gib + 0.01) == 2
    assert months_that_fit(PER_ROW, two_gib - 0.01) == 1
    assert months_that_fit(PER_ROW, 1.0) == 0
    assert months_that_fit(PER_ROW, 10_000.0) == 7
