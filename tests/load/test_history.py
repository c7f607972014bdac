"""The history of runs: what is kept, where a figure changed for good, and how it is drawn."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from locustfiles import charts, history, report, trend
from locustfiles.history import Series, changes
from tests.load.results import HOSTILE, result


def course(*levels: float, runs: int = 12, noise: float = 0.03, seed: int = 0) -> list[float]:
    """So many runs on each level."""
    chance = np.random.default_rng(seed)
    return [float(level * np.exp(chance.normal(0, noise))) for level in levels for _ in range(runs)]


def test_a_level_that_stays_has_no_change() -> None:
    assert sum(len(list(changes(course(20, runs=40, seed=seed)))) for seed in range(20)) <= 1
    assert list(changes([3.0] * 40)) == []


def test_one_bad_day_is_no_change() -> None:
    values = course(20, runs=30)
    values[15] *= 3
    assert list(changes(values)) == []


@pytest.mark.parametrize(("before", "after"), [(20, 24), (20, 15), (2, 3)])
def test_a_step_is_found_where_it_is(before: float, after: float) -> None:
    for seed in range(10):
        (change,) = changes(course(before, after, seed=seed))
        assert abs(change.run - 12) <= 1
        assert change.share == pytest.approx(after / before - 1, abs=0.1)


def test_exact_counts_change_at_the_very_run() -> None:
    (change,) = changes([2.0] * 9 + [3.0] * 4)
    assert (change.run, change.before, change.after) == (9, 2.0, 3.0)


def test_too_few_runs_tell_nothing() -> None:
    assert list(changes([1.0, 1.0, 9.0, 9.0])) == []


def test_what_was_added_is_read_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(history.SETTING, str(tmp_path / "history.jsonl"))
    for number, value in enumerate(course(20, 30)):
        figures = {"p95 ms": {"GET /services": value, HOSTILE: 5.0}, "statements": {"GET /services": 2}}
        history.add("smoke", f"commit{number}", figures)
    assert trend.main(["--output", str(tmp_path / "trend.html")]) == 0
    printed = capsys.readouterr().out
    assert "smoke: GET /services, p95 ms" in printed
    assert "from run 13 on, commit12" in printed
    assert "1 of 3 series changed in 24 runs" in printed
    page = (tmp_path / "trend.html").read_text()
    assert not [tag for tag in ("<script", "<img", 'src="', "href=", "url(", "@import") if tag in page]
    assert page.index("GET /services, p95 ms") < page.index("GET /services, statements")
    pictures = [ElementTree.fromstring(found) for found in re.findall(r"<svg.*?</svg>", page, re.S)]
    assert len(pictures) == 3
    (mark,) = pictures[0].findall("line[@class='mark']")
    assert charts.LEFT < float(mark.get("x1", "")) < charts.RIGHT


def test_a_scenario_adds_its_times_rate_and_statements() -> None:
    figures = report.figures(result())
    assert figures["p95 ms"]["GET /services"] == 60
    assert figures["statements"] == {"GET /services": 2}
    assert figures["requests a second"] == {"all routes": 15}


def test_no_history_is_kept_when_the_setting_is_empty(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(history.SETTING, "")
    history.add("smoke", "commit", {})
    assert trend.main([]) == 2
    assert "PERF_HISTORY is empty" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["{", "[]", '{"run": "smoke"}', '{"figures": {"a": {"b": "c"}}}'])
def test_a_line_that_is_no_run_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    (tmp_path / "history.jsonl").write_text(line + "\n")
    monkeypatch.setenv(history.SETTING, str(tmp_path / "history.jsonl"))
    assert trend.main([]) == 2
    assert "line 1 is no run of the history" in capsys.readouterr().err


def test_a_history_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(history.SETTING, str(tmp_path / "none.jsonl"))
    assert trend.main([]) == 2
    assert "none.jsonl: No such file or directory" in capsys.readouterr().err


def test_a_course_is_drawn_from_zero_up() -> None:
    assert trend.spark([0.0, 5.0, 10.0]) == "▁▅█"
    assert Series("smoke", "p95 ms", "GET /", (1.0,), ("c",), (0.0,)).changes == []
