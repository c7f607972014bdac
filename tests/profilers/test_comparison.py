"""Two stores side by side: counts as they are, times with their interval, findings new and gone."""

from __future__ import annotations

import random

import pytest

from profilers import comparison
from profilers.comparison import FAILURES, ComparisonError, Slice, compare, periods, ratio, render
from profilers.profile import Finding, Profile, Statement
from profilers.storage.answers import endpoint_row
from profilers.storage.batch import Sums
from profilers.storage.histogram import duration_bucket
from profilers.store import EndpointRow, Store, open_store

LAZY = Finding("n_plus_one", "lazy_relationship", "Post.author", 10, message="N+1: Post.author")
LOOP = Finding("n_plus_one", "get_in_loop", "Tag", 5, message="N+1: Tag")


def store(
    folder, statements: int = 2, rows: int = 3, seconds: float = 0.01, name: str = "GET /", found=()
) -> Store:
    """Forty requests of about so many seconds."""
    opened = open_store(folder)
    draw = random.Random(7)
    profiles = []
    for number in range(40):
        duration = seconds * draw.uniform(0.9, 1.1)
        profile = Profile(name, 1_760_000_000.0 + number, duration=duration, status=200, host="h", worker=1)
        profile.statements = [Statement("SELECT 1", 0.0, 0.001, rows) for _ in range(statements)]
        profile.findings = list(found)
        profiles.append(profile)
    opened.add(profiles)
    return opened


def test_more_statements_more_rows_and_more_time_are_seen(tmp_path):
    compared = compare(store(tmp_path / "a"), store(tmp_path / "b", statements=5, seconds=0.02))
    (difference,) = compared.differences
    assert difference.statements == (2, 5)
    assert difference.rows == (6, 15)
    assert difference.time.verdict == "slower"
    assert difference.time.low <= difference.time.ratio <= difference.time.high
    assert 1.8 < difference.time.ratio < 2.2
    assert "2 -> 5 statements, 6 -> 15 rows" in render(compared)
    assert FAILURES["more-statements"](compared)


def test_less_time_is_faster(tmp_path):
    compared = compare(store(tmp_path / "a"), store(tmp_path / "b", seconds=0.005))
    assert compared.differences[0].time.verdict == "faster"


def test_compared_with_itself_nothing_changed(tmp_path):
    same = store(tmp_path / "a", found=[LAZY])
    compared = compare(same, same)
    assert compared.unchanged
    assert render(compared).splitlines()[-1] == "nothing changed"
    assert not any(failed(compared) for failed in FAILURES.values())


def test_new_and_gone_findings_are_told_apart_and_a_known_one_is_neither(tmp_path):
    before = store(tmp_path / "a", found=[LAZY])
    after = store(tmp_path / "b", found=[LOOP])
    compared = compare(before, after)
    assert [row.finding.subject for row in compared.new_findings] == ["Tag"]
    assert [row.finding.subject for row in compared.gone_findings] == ["Post.author"]
    assert FAILURES["new-findings"](compared)
    assert render(compared).splitlines()[-3:] == [
        "new finding: N+1: Tag",
        "gone: lazy relationship Post.author",
        "1 new finding, 1 gone",
    ]


def test_endpoints_that_only_one_side_has_are_named(tmp_path):
    compared = compare(store(tmp_path / "a", name="GET /old"), store(tmp_path / "b", name="GET /new"))
    assert (compared.only_before, compared.only_after) == (["GET /old"], ["GET /new"])
    assert "GET /old: only in A" in render(compared)
    assert not compared.unchanged


def test_an_empty_store_is_named(tmp_path):
    with pytest.raises(ComparisonError, match=r"B \(after\) holds no profile"):
        compare(store(tmp_path / "a"), open_store(tmp_path / "b"))


def endpoint(durations: list[float]) -> EndpointRow:
    """What a store knows of requests that took so long."""
    sums = Sums()
    sums.requests = len(durations)
    sums.shortest, sums.longest = min(durations), max(durations)
    for duration in durations:
        bucket = duration_bucket(duration)
        sums.durations[bucket] = sums.durations.get(bucket, 0) + 1
    return endpoint_row("GET /", sums)


@pytest.mark.parametrize("requests", [6, 20, 300])
def test_the_interval_covers_one_when_both_are_of_the_same_kind(requests):
    """Of two hundred pairs drawn alike, 95 % intervals cover 1 in nearly all."""
    draw = random.Random(3)
    pairs = [
        [endpoint([draw.expovariate(1) for _ in range(requests)]) for _ in ("before", "after")]
        for _ in range(200)
    ]
    assert sum(ratio(*pair).verdict == "same" for pair in pairs) >= 184


def test_a_tenth_more_shows_in_many_requests_and_not_in_few():
    draw = random.Random(5)
    before = [draw.lognormvariate(-4, 0.3) for _ in range(4000)]
    after = [1.1 * draw.lognormvariate(-4, 0.3) for _ in range(4000)]
    assert ratio(endpoint(before), endpoint(after)).verdict == "slower"
    assert ratio(endpoint(after), endpoint(before)).verdict == "faster"
    assert ratio(endpoint(before[:20]), endpoint(after[:20])).verdict == "same"


def test_five_requests_are_too_few_to_tell():
    found = ratio(endpoint([0.01] * 5), endpoint([0.9] * 500))
    assert found.verdict == "too few"
    assert found.ratio == pytest.approx(90, rel=0.05)
    assert ratio(endpoint([0.01] * 6), endpoint([0.9] * 6)).verdict == "slower"


def test_requests_of_no_time_are_compared_too():
    assert ratio(endpoint([0.0] * 9), endpoint([0.0] * 9)).verdict == "same"


@pytest.mark.parametrize("hours", [1 / 6, 1, 6, 24])
@pytest.mark.parametrize("back", [None, 86400.0])
def test_two_periods_share_no_request_and_leave_none_out_between(hours, back):
    before, after = periods(hours * 3600, back=back)
    assert before.since < before.until <= after.since < after.until
    if back is None or hours == 24:
        assert before.until == after.since
    assert after.since % (10 if hours < 0.25 else 60 if hours < 3 else 3600) == 0


@pytest.mark.parametrize(("minutes", "slots"), [(30, 1), (5, 2)])
def test_a_short_period_of_long_ago_covers_the_whole_slots_it_touches(minutes, slots, monkeypatch):
    hour = 1_760_000_400.0
    monkeypatch.setattr(comparison.time, "time", lambda: hour + 60 * minutes)
    before, _ = periods(600, back=7 * 86400)
    assert (before.until - before.since, before.since % 3600) == (3600 * slots, 0)


def test_all_requests_of_two_periods_of_one_store_are_compared(tmp_path, monkeypatch):
    now = 1_760_000_000.0
    opened = open_store(tmp_path / "a")
    for since, statements in ((now - 7000, 1), (now - 3400, 4)):
        opened.add(
            [
                Profile(
                    "GET /", since + number, duration=0.01 * statements, status=200,
                    statements=[Statement("SELECT 1", 0.0, 0.001, 1)] * statements,
                )
                for number in range(1500)
            ]
        )  # fmt: skip
    monkeypatch.setattr(comparison.time, "time", lambda: now)
    (difference,) = compare(*(Slice(opened, period) for period in periods(3600))).differences
    assert difference.requests == (1500, 1500)
    assert difference.statements == (1, 4)
    assert difference.time.verdict == "slower"
