"""The page of a run: everything is on it, and what came from outside is text."""

from __future__ import annotations

import dataclasses
import re
from xml.etree import ElementTree

import pytest

from locustfiles import charts, page, timeline
from locustfiles.gate import Second
from tests.load.results import BEGAN, course, result


def test_the_page_shows_verdict_routes_findings_statements_plans_and_costs() -> None:
    html = page.render(result())
    for shown in (
        "smoke:", "PASSED", "p95 &lt; 200 ms", "p95 60.0 ms", "abc1234", "GET /services", "42 %", "N+1: ",
        "Seq Scan on services", "131.0 ms at most", "NO LEAK.", "worker 101", "generator Locust", "(3 times)",
        "service: CPU 0.66 cores on average",
    ):  # fmt: skip
        assert shown in html, shown


def test_what_comes_from_outside_is_text_and_nothing_is_fetched() -> None:
    html = page.render(result())
    assert "&lt;script&gt;" in html
    assert not [tag for tag in ("<script", "<img", 'src="', "href=", "url(", "@import") if tag in html]


def test_a_slow_run_and_one_without_a_verdict_say_so() -> None:
    assert "FAILED (1 threshold not held)" in page.render(result(p95_ms=260))
    weak = page.render(result(cpu=0.97))
    assert "NO VERDICT" in weak
    assert "Locust used 97% of a core" in weak


def test_a_run_in_which_nothing_happened_has_a_page_as_well() -> None:
    empty = dataclasses.replace(
        result(), usage=(), run=dataclasses.replace(result().run, course=(), generators=())
    )
    html = page.render(empty)
    assert "No request ended." in html
    assert "its processes cannot be seen from here" in html


def test_each_chart_is_well_formed_and_stays_in_its_frame() -> None:
    html = page.render(result())
    pictures = [ElementTree.fromstring(found) for found in re.findall(r"<svg.*?</svg>", html, re.S)]
    assert len(pictures) == 5
    for picture in pictures:
        for line in picture.iter("polyline"):
            points = [tuple(map(float, point.split(","))) for point in line.get("points", "").split()]
            assert len(points) > 1
            assert all(0 <= x <= charts.WIDTH and 0 <= y <= charts.HEIGHT for x, y in points)


def test_a_second_without_an_answer_has_no_response_time() -> None:
    seconds = [Second(BEGAN + at, 1, {50.0: 3} if at != 2 else {}, 0) for at in range(4)]
    run = dataclasses.replace(result().run, course=tuple(seconds))
    latency = page.drawings(dataclasses.replace(result(), run=run))[0]
    assert latency.title == "Response times"
    for line in latency.lines:
        heights = [float(point.split(",")[1]) for point in line.points.split()]
        assert len(heights) == 3
        assert len({*heights}) == 1


@pytest.mark.parametrize(("most", "step"), [(0, 0.25), (3.9, 1), (61, 20), (0.07, 0.02), (4000, 1000)])
def test_an_axis_ends_at_a_round_number_above_all_values(most: float, step: float) -> None:
    drawn = charts.chart("", {"a": [(0, most), (10, 0)]}, "ms")
    assert drawn is not None
    assert drawn.up[1].text == f"{step:g} ms"
    assert drawn.up[-1].at == charts.TOP


def test_a_part_of_the_run_has_the_percentile_of_all_its_requests() -> None:
    seconds = [Second(0, 1, {1.0: 95}, 0), Second(1, 2, {100.0: 5}, 1)]
    (part,) = timeline.parts(seconds, most=1)
    assert (part.users, part.requests_per_second, part.failures_per_second) == (2, 50, 0.5)
    assert (part.p50_ms, part.p95_ms, part.p99_ms) == (1.0, 1.0, 100.0)
    assert len(timeline.parts(course(1000), most=60)) <= 60
