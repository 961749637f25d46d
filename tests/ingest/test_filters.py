"""What a filter can tell from what is known, and what it leaves open."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from vsa_core.config import Filters
from vsa_core.ingest.filters import Facts, facts_of, passed_over, undecided


def test_a_time_told_in_words_decides_only_what_is_certain() -> None:
    now = datetime.now(UTC)
    half_a_year = (now - timedelta(days=180)).timestamp()
    facts = facts_of({"timestamp": half_a_year}, approximate=True)
    assert facts.published_at is None

    def decided(days_ago: int) -> tuple[bool, bool]:
        filters = Filters(published_after=(now - timedelta(days=days_ago)).date())
        return passed_over(filters, facts) is not None, undecided(filters, facts)

    assert decided(100) == (True, True)  # surely older
    assert decided(300) == (False, False)  # surely newer
    assert decided(190) == (False, True)  # may be either
    assert facts_of({"timestamp": half_a_year}).published_at is not None


@pytest.mark.parametrize(
    ("filters", "facts", "answer"),
    [
        ({"published_after": date(2024, 1, 2)}, {"upload_date": "20240102"}, None),
        ({"published_after": date(2024, 1, 2)}, {"upload_date": "20240101"}, "published_after"),
        ({"published_before": date(2024, 1, 2)}, {"upload_date": "20240102"}, "published_before"),
        ({"min_duration_s": 60}, {"duration": 59.9}, "min_duration_s"),
        ({"max_duration_s": 60}, {"duration": 61}, "max_duration_s"),
        ({"max_duration_s": 60}, {"duration": 61, "live_status": "is_live"}, None),
        ({"title": "unbox|first"}, {"title": "My UNBOXING"}, None),
        ({"title": "unbox|first"}, {"title": "A talk"}, "filters.title"),
        ({"languages": ["en"]}, {"language": "en-GB"}, None),
        ({"languages": ["en"]}, {"language": "de"}, "filters.languages"),
        ({"languages": ["en"], "title": "x", "min_duration_s": 9}, {}, None),
    ],
)
def test_filters(filters: dict, facts: dict, answer: str | None) -> None:
    said = passed_over(Filters(**filters), facts_of(facts))
    assert said is None if answer is None else answer in said


def test_what_is_open_is_known_to_be() -> None:
    assert undecided(Filters(languages=("en",)), Facts(title="A talk"))
    assert undecided(Filters(published_after=date(2024, 1, 1)), Facts())
    assert not undecided(Filters(max_videos=3), Facts())


@pytest.mark.parametrize(
    "odd",
    [
        {"timestamp": 1e300, "duration": "long", "title": 3, "language": 5, "live_status": []},
        {"upload_date": "2024", "timestamp": None},
        {"timestamp": float("nan"), "language": "not a language"},
    ],
)
def test_nonsense_is_not_known(odd: dict) -> None:
    assert facts_of(odd) == Facts()
