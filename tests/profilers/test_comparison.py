"""Two stores side by side: counts as they are, times with their interval, findings new and gone."""

from __future__ import annotations

import random

import pytest

from profilers.comparison import FAILURES, ComparisonError, compare, ratio, render
from profilers.profile import Finding, Profile, Statement
from profilers.store import Store, open_store

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


def test_the_interval_covers_one_when_both_are_of_the_same_kind():
    """Of a hundred pairs drawn alike, 95 % intervals cover 1 in nearly all."""
    draw = random.Random(3)
    pairs = [
        ([draw.expovariate(1) for _ in range(50)], [draw.expovariate(1) for _ in range(50)])
        for _ in range(100)
    ]
    assert sum(ratio(*pair).verdict == "same" for pair in pairs) >= 88


def test_equal_data_give_equal_intervals_and_few_requests_wide_ones():
    assert ratio([1.0, 2.0], [2.0, 3.0]) == ratio([1.0, 2.0], [2.0, 3.0])
    few, many = [1.0, 2.0, 3.0], [1.0, 2.0, 3.0] * 30
    assert ratio(few, few).high > ratio(many, many).high
    assert ratio([0.0], [0.0]).verdict == "same"
