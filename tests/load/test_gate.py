"""The verdict: each threshold fails a run by itself, and a run that holds them all passes."""

from __future__ import annotations

import dataclasses

import pytest

from locustfiles import gate, report
from locustfiles.gate import Generator, Measured, Run, judge
from locustfiles.profiled import Profiled, ProfiledRoute
from locustfiles.result import Result
from locustfiles.scenarios import SCENARIOS, SIGN_IN

SMOKE = SCENARIOS["smoke"]


def measured(name: str = "GET /services", **changes: float) -> Measured:
    healthy = {"requests": 900, "failures": 0, "average_ms": 20, "p50_ms": 15, "p95_ms": 60, "p99_ms": 90}
    return Measured(name, **{**healthy, "max_ms": 150, **changes})  # type: ignore[arg-type]


def run(total: Measured, *routes: Measured, died: str = "") -> Run:
    return Run(total, routes or (measured(),), seconds=60, died=died)


def test_a_healthy_run_passes() -> None:
    assert judge(run(measured()), SMOKE).passed


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (run(measured(average_ms=100)), "all routes: average 100.0 ms, expected average < 100 ms"),
        (run(measured(p95_ms=200)), "all routes: p95 200.0 ms, expected p95 < 200 ms"),
        (run(measured(failures=1)), "all routes: 1 of 900 failed (0.11%), expected no failed request"),
        (run(measured(), died="it ended in mid-run"), "the run: it ended in mid-run, expected the service"),
        (run(measured(), measured(p95_ms=300)), "GET /services: p95 300.0 ms, expected p95 < 200 ms"),
        (run(measured(), measured(failures=2)), "GET /services: 2 of 900 failed (0.22%), expected no failed"),
    ],
)
def test_one_broken_threshold_fails_the_run_and_is_named(broken: Run, reason: str) -> None:
    verdict = judge(broken, SMOKE)
    assert not verdict.passed
    assert [line for line in verdict.reasons if line.startswith(reason)]
    assert len(verdict.reasons) == 1


def test_too_few_requests_fail_even_when_they_were_fast() -> None:
    verdict = judge(run(measured(requests=300)), SMOKE)
    assert verdict.reasons == [
        "all routes: 300, expected at least 575 requests",
        "all routes: 5.2 req/s, expected over 10 req/s",
    ]


def test_a_run_without_requests_fails() -> None:
    assert not judge(Run(gate.total([]), (), 0.0), SMOKE).passed


def test_errors_below_the_share_of_a_scenario_that_allows_some_pass() -> None:
    normal = SCENARIOS["normal"]
    assert judge(run(measured(requests=100_000, failures=900)), normal).passed
    assert not judge(run(measured(requests=100_000, failures=1000)), normal).passed


def test_sign_in_has_a_limit_of_its_own() -> None:
    assert judge(run(measured(), measured(SIGN_IN, p95_ms=900, average_ms=500)), SMOKE).passed
    assert not judge(run(measured(), measured(SIGN_IN, p95_ms=5000)), SMOKE).passed


def test_a_route_with_few_requests_is_judged_by_errors_only() -> None:
    assert judge(run(measured(), measured(requests=19, p95_ms=900)), SMOKE).passed
    assert not judge(run(measured(), measured(requests=19, failures=1)), SMOKE).passed


@pytest.mark.parametrize(
    ("times", "share", "expected"),
    [
        ({1.0: 95, 50.0: 5}, 0.95, 1.0),
        ({1.0: 94, 50.0: 6}, 0.95, 50.0),
        ({7.0: 1}, 0.99, 7.0),
        ({}, 0.95, 0.0),
    ],
)
def test_percentile_is_the_nearest_rank(times: dict[float, int], share: float, expected: float) -> None:
    assert gate.percentile(times, share) == expected


def test_the_total_joins_the_routes() -> None:
    entry = {
        "num_requests": 2,
        "num_failures": 1,
        "total_response_time": 30.0,
        "max_response_time": 20.0,
        "response_times": {"10.0": 1, "20.0": 1},
    }
    slow = {**entry, "response_times": {"20.0": 2}, "total_response_time": 40.0}
    total = gate.total([entry, slow])
    assert (total.requests, total.failures, total.average_ms, total.p50_ms) == (4, 2, 17.5, 20.0)


def test_markdown_shows_hostile_names_as_text() -> None:
    hostile = dataclasses.replace(run(measured("GET /<script>|x")), failures=("<img src=x>",))
    seen = Profiled((ProfiledRoute("GET /<b>", 1, 2, 3, 0.5),), ("<i>SELECT</i>",))
    text = report.markdown(Result(SMOKE, hostile, judge(hostile, SMOKE), seen))
    assert "<script>" not in text
    assert not {"<img", "<b>", "<i>"} & set(text.split())
    assert "&lt;i&gt;SELECT" in text
    assert "GET /&lt;script&gt;\\|x" in text


def test_in_the_open_model_the_journeys_that_were_due_must_have_begun() -> None:
    scenario = dataclasses.replace(SMOKE, arrivals=20.0)
    good, bad = (
        dataclasses.replace(run(measured()), journeys={"due": 1200, "begun": begun}) for begun in (1190, 900)
    )
    assert judge(good, scenario).passed
    assert judge(bad, scenario).reasons == ["all routes: 900, expected at least 1178 journeys"]


def with_generator(one: Run, cpu: float = 0.2, late_ms: float = 2) -> Run:
    return dataclasses.replace(one, generators=(Generator("worker-1", cpu, late_ms),))


@pytest.mark.parametrize(
    ("generator", "reason"),
    [
        ({"cpu": 0.97}, "worker-1 used 97% of a core, over 90%"),
        ({"late_ms": 80}, "worker-1 woke 80 ms late (p95), over 50"),
    ],
)
def test_a_run_whose_generator_was_the_bottleneck_has_no_verdict(
    generator: dict[str, float], reason: str
) -> None:
    for one in (run(measured()), run(measured(p95_ms=900))):  # neither good nor bad news is believed
        verdict = judge(with_generator(one, **generator), SMOKE)
        assert not verdict.passed
        assert verdict.void[0].startswith(reason)
        result = Result(SMOKE, one, verdict)
        assert "NO VERDICT" in report.terminal(result)
        assert reason in report.markdown(result)


def test_a_generator_with_time_to_spare_leaves_the_verdict() -> None:
    assert judge(with_generator(run(measured())), SMOKE).passed
    assert judge(with_generator(run(measured(p95_ms=300))), SMOKE).void == ()


def test_a_service_that_died_fails_whatever_the_generator_did() -> None:
    verdict = judge(with_generator(run(measured(), died="it ended in mid-run"), cpu=1.0), SMOKE)
    assert (verdict.passed, verdict.void) == (False, ())


def test_a_leak_fails_the_run_and_neither_health_nor_doubt_does() -> None:
    answers = {"leak": False, "no leak": True, "not enough data": True, "": True}
    for answer, passes in answers.items():
        assert judge(dataclasses.replace(run(measured()), memory=answer), SMOKE).passed is passes
