"""How fresh a source is, and how an age is written, by hand arithmetic."""

from datetime import timedelta

import pytest

from ingestion.source import sources
from orchestration.status import age_in_words, freshness

LATE, STALE = timedelta(hours=26), timedelta(hours=49)


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (None, "never loaded"),
        # loaded under a clock that was ahead
        (timedelta(hours=-1), "fresh"),
        (timedelta(0), "fresh"),
        (LATE, "fresh"),
        (LATE + timedelta(seconds=1), "late"),
        (STALE, "late"),
        (STALE + timedelta(seconds=1), "stale"),
        (timedelta(days=400), "stale"),
    ],
)
def test_a_limit_counts_as_kept_until_it_is_passed(age: timedelta | None, expected: str) -> None:
    assert freshness(age, LATE, STALE) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-5, "0 s"),
        (0.4, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3599, "60 min"),
        (3600, "1 h"),
        (49 * 3600, "49 h"),
        (71.4 * 3600, "71 h"),
        (72 * 3600, "3 d"),
        (86400 * 400, "400 d"),
    ],
)
def test_ages_are_written_as_one_says_them(seconds: float, expected: str) -> None:
    assert age_in_words(seconds) == expected


def test_every_source_is_late_before_it_is_stale() -> None:
    for source in sources().values():
        assert timedelta(0) < source.late_after < source.stale_after
