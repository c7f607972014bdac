"""The leak verdict on synthetic workers, both ways: what leaks is found, what only looks like it is not."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from profilers.growth import Answer
from profilers.leak_verdict import LineGrowth, Verdict, judge
from profilers.memory import report
from profilers.store import MemorySample

ROUTES = ("GET /a", "GET /b", "GET /c", "GET /d", "GET /e")
SEEDS = range(10)
Course = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Bytes held after so many requests of each route (a row a sample), and noise to add or not."""

BASE = 40_000_000
SAMPLES = 50


def run(
    course: Course,
    seed: int,
    *,
    workers: int = 2,
    samples: int = SAMPLES,
    every: float = 6.0,
    per_sample: float = 100.0,
    native: Course = lambda served, draws: np.zeros(len(served)),
    noise: float = 60_000,
    tracing: str = "run",
    born: float = 0.0,
    start: float = 0.0,
) -> list[MemorySample]:
    """What workers with a mixed load look like; requests in flight are noise that is never below 0."""
    random = np.random.default_rng(seed)
    found = []
    for worker in range(workers):
        steps = random.poisson(per_sample / len(ROUTES), size=(samples, len(ROUTES)))
        served = steps.cumsum(axis=0)
        draws = random.random(samples)
        held = course(served, draws)
        python = held + random.exponential(noise, samples)
        # The allocator takes memory from the system in arenas and keeps some of it.
        reserve = np.maximum.accumulate(python) + 30_000_000
        process = np.ceil(reserve / 262_144) * 262_144 + native(served, draws)
        found += [
            MemorySample(
                at=start + number * every,
                host="host",
                pid=100 + worker,
                born=born,
                rss=int(process[number]) + BASE,
                uss=int(process[number]),
                blocks=300_000 + int(held[number] / 80) + int(random.integers(0, 200)),
                requests=dict(zip(ROUTES, map(int, served[number]), strict=True)),
                tracing=tracing,
                traced=int(python[number]),
            )
            for number in range(samples)
        ]
    return found


def total(served: np.ndarray) -> np.ndarray:
    return served.sum(axis=1).astype(float)


def flat(served: np.ndarray, draws: np.ndarray) -> np.ndarray:
    return np.full(len(served), 2e6)


def leak_on_one_route(served: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """5 kB of each request of one route in five."""
    return 2e6 + 5_000.0 * served[:, 2]


def small_leak(served: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """200 bytes of each request."""
    return 2e6 + 200.0 * total(served)


def staircase(served: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """A list that grows by doubling its room: memory rises in steps, again and again."""
    return 2e6 + np.floor(total(served) / 250) * 150_000


def sawtooth(served: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Garbage that is collected each 900 requests."""
    return 2e6 + (total(served) % 900) * 2_000


def filling_cache(served: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """A bounded LRU of 1500 entries of 3 kB, with keys drawn at random: full in mid-run."""
    return 2e6 + 3_000.0 * 1_500 * (1 - np.exp(-total(served) / 500))


def cache_full_at_once(served: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """With each key new: it grows evenly and then not at all."""
    return 2e6 + 3_000.0 * np.minimum(total(served), 1_800)


def late_import(served: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """A module of 8 MB that is loaded at first use, in mid-run."""
    return 2e6 + np.where(np.arange(len(served)) > 0.45 * len(served), 8e6, 0)


def large_responses(served: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """One look in ten finds a response of 20 MB in the making."""
    return 2e6 + np.where(draws < 0.1, 20e6, 0)


LEAKS = {"one route": leak_on_one_route, "small": small_leak, "staircase": staircase}
HEALTHY = {
    "flat": flat,
    "sawtooth": sawtooth,
    "filling cache": filling_cache,
    "cache with new keys": cache_full_at_once,
    "late import": late_import,
    "large responses": large_responses,
}


def answers(course: Course, **how: object) -> list[Answer]:
    return [judge(run(course, seed, **how)).answer for seed in SEEDS]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_is_found(name):
    assert answers(LEAKS[name]) == ["leak"] * len(SEEDS)


@pytest.mark.parametrize("name", HEALTHY)
def test_what_is_healthy_is_no_leak(name):
    assert answers(HEALTHY[name]) == ["no leak"] * len(SEEDS)


@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_is_found_without_tracing(name):
    assert answers(LEAKS[name], tracing="") == ["leak"] * len(SEEDS)


@pytest.mark.parametrize("name", ["flat", "sawtooth", "filling cache", "late import"])
def test_what_is_healthy_is_no_leak_without_tracing(name):
    assert answers(HEALTHY[name], tracing="") == ["no leak"] * len(SEEDS)


def test_the_growth_per_request_lies_in_its_interval():
    for seed in SEEDS:
        verdict = judge(run(small_leak, seed))
        assert verdict.low < 200 * 1.05
        assert verdict.high > 200 * 0.95
        assert verdict.bytes_per_request == pytest.approx(200, rel=0.1)


def test_the_route_that_leaks_is_named_and_what_it_leaks():
    """From the mix of requests alone: now and then it does not vary enough to tell."""
    verdicts = [judge(run(leak_on_one_route, seed)) for seed in SEEDS]
    named = [verdict.routes[0] for verdict in verdicts if verdict.route == "GET /c"]
    assert len(named) >= 0.8 * len(SEEDS)
    assert {verdict.route for verdict in verdicts} <= {"GET /c", ""}
    assert np.median([route.bytes_per_request for route in named]) == pytest.approx(5_000, rel=0.02)


def test_a_leak_of_all_routes_is_laid_at_no_single_door():
    assert [judge(run(small_leak, seed)).route for seed in SEEDS].count("") >= len(SEEDS) - 1


def test_a_view_on_the_way_to_the_memory_outdoes_the_regression():
    line = LineGrowth(("views.py:3",), 1_000_000, 10, 100.0, route="GET /e")
    assert judge(run(leak_on_one_route, 1), [line]).route == "GET /e"


def test_memory_that_only_the_process_has_is_native():
    def leaked(served: np.ndarray, draws: np.ndarray) -> np.ndarray:
        return 20_000.0 * served[:, 1]

    verdicts = [judge(run(flat, seed, native=leaked)) for seed in SEEDS]
    assert {(verdict.answer, verdict.kind) for verdict in verdicts} == {("leak", "native")}
    assert all("memray" in verdict.reason and "MALLOC_ARENA_MAX" in verdict.reason for verdict in verdicts)
    routes = [verdict.route for verdict in verdicts]
    assert routes.count("GET /b") >= 0.75 * len(SEEDS)
    assert set(routes) <= {"GET /b", ""}


def test_native_growth_that_is_small_yet_is_not_called_healthy():
    def leaked(served: np.ndarray, draws: np.ndarray) -> np.ndarray:
        return 700.0 * total(served)

    verdicts = [judge(run(flat, seed, native=leaked)) for seed in SEEDS]
    assert {verdict.answer for verdict in verdicts} == {"not enough data"}
    assert all(verdict.seconds_more > 0 for verdict in verdicts)


def test_native_growth_in_bursts_that_goes_on_is_not_called_healthy():
    """Ten times as fast in one fifth of the run as in the next: a load in bursts. Not slower in the end."""

    def leaked(served: np.ndarray, draws: np.ndarray) -> np.ndarray:
        fast = (np.arange(len(served)) - SAMPLES // 5) // 8 % 2 == 0
        return np.cumsum(np.diff(total(served), prepend=0) * np.where(fast, 6_000, 600))

    for seed in SEEDS:
        found = judge(run(flat, seed, native=leaked))
        assert not found.growths["the process"].steady
        assert found.answer == "not enough data"


def test_no_leak_says_how_small_a_leak_could_have_hidden_in_python_and_in_native_code():
    def kept(served: np.ndarray, draws: np.ndarray) -> np.ndarray:
        return 100.0 * total(served)

    found = judge(run(flat, 1, native=kept))
    assert found.answer == "no leak"
    python, process = (report.size(found.growths[name].bound) for name in ("Python's memory", "the process"))
    said = f"A leak of more than {python} a request, in native code one of more than {process} a request"
    assert report.verdict(found).endswith(f"{said} would have shown.")
    assert found.growths["Python's memory"].bound >= 16
    assert found.growths["the process"].bound >= 400


def test_no_leak_without_tracing_says_how_many_bytes_and_not_how_many_blocks():
    found = judge(run(flat, 1, tracing=""))
    assert found.answer == "no leak"
    bound = found.growths["the process"].bound
    assert bound >= 200
    assert report.verdict(found).endswith(
        f"A leak of more than {report.size(bound)} a request would have shown."
    )


def test_growth_within_the_swing_of_pythons_memory_is_not_called_native():
    """The allocator keeps what was once needed: 6 MB of growth beside responses of 20 MB say nothing yet."""

    def kept(served: np.ndarray, draws: np.ndarray) -> np.ndarray:
        return 1_500.0 * total(served)

    for seed in SEEDS:
        quiet = judge(run(flat, seed, native=kept))
        assert (quiet.answer, quiet.kind) == ("leak", "native")
        busy = [
            _with(sample, traced=sample.traced + 20_000_000 * (sample.at % 60 < 6))
            for sample in run(flat, seed, native=kept)
        ]
        assert judge(busy).answer == "not enough data"


def test_a_cache_that_is_full_late_in_the_run_is_not_called_a_leak():
    """It grew evenly through 72 % of the run, then not at all: as a cache on a service with few requests."""

    def full_late(served: np.ndarray, draws: np.ndarray) -> np.ndarray:
        return 2e6 + 3_000.0 * np.minimum(total(served), 0.72 * total(served)[-1])

    assert "leak" not in answers(full_late)


def test_a_small_cache_on_a_service_with_few_requests_is_not_called_a_leak():
    """100 entries of 3 kB, one for each request of one route: not full after 400 requests of a worker."""

    def filling(served: np.ndarray, draws: np.ndarray) -> np.ndarray:
        return 2e6 + 3_000.0 * np.minimum(served[:, 2], 100)

    for seed in SEEDS:
        early = judge(run(filling, seed, per_sample=8.0, noise=15_000))
        assert early.answer != "leak"
        samples = SAMPLES + round(early.seconds_more / 6)
        assert judge(run(filling, seed, per_sample=8.0, noise=15_000, samples=samples)).answer == "no leak"


def test_fragmentation_that_ends_is_no_leak():
    def fragmented(served: np.ndarray, draws: np.ndarray) -> np.ndarray:
        return np.minimum(total(served) * 8_000, 9e6)

    found = [judge(run(flat, seed, native=fragmented)).answer for seed in SEEDS]
    assert found == ["no leak"] * len(SEEDS)


def test_old_objects_replaced_by_new_ones_are_no_leak():
    """A full cache whose entries are replaced while tracing: only what is traced grows."""
    for seed in SEEDS:
        samples = run(flat, seed)
        first = {sample.pid: sample for sample in reversed(samples)}
        grown = [
            _with(sample, traced=sample.traced + 2_000 * _served(sample, first[sample.pid]))
            for sample in samples
        ]
        assert judge(grown).answer == "no leak"


def test_large_objects_that_the_process_cannot_show_yet_are_not_called_healthy():
    """Objects above 512 bytes are no blocks; and half a megabyte is lost in the allocator's reserves."""
    for seed in SEEDS:
        samples = [_with(sample, blocks=300_000, uss=50_000_000) for sample in run(small_leak, seed)]
        verdict = judge(samples)
        assert verdict.answer == "not enough data"
        assert verdict.seconds_more > 60


def test_workers_that_are_recycled_are_judged_life_by_life():
    """Four lives of two workers: each begins anew, and each leaks."""
    for seed in SEEDS:
        lives = [run(small_leak, 10 * seed + n, born=n, start=n * 300.0, samples=40) for n in range(4)]
        verdict = judge(list(itertools.chain(*lives)))
        assert verdict.answer == "leak"
        assert len(verdict.workers) == 8


def test_recycling_alone_is_no_leak():
    for seed in SEEDS:
        lives = [
            run(flat, 10 * seed + number, born=number, start=number * 300.0, samples=40)
            for number in range(4)
        ]
        assert judge(list(itertools.chain(*lives))).answer == "no leak"


def test_workers_recycled_too_soon_give_no_answer_but_the_reason():
    lives = [run(small_leak, n, born=n, start=n * 40.0, samples=6) for n in range(8)]
    verdict = judge(list(itertools.chain(*lives)))
    assert verdict.answer == "not enough data"
    assert "max_requests" in verdict.reason


def test_too_short_a_run_says_for_how_long_to_run():
    verdict = judge(run(leak_on_one_route, 1, samples=10))
    assert verdict.answer == "not enough data"
    # 10 samples in 54 s; 20 after a warm-up of a fifth are 25, in 150 s.
    assert 80 <= verdict.seconds_more <= 150
    longer = 10 + round(verdict.seconds_more / 6)
    assert judge(run(leak_on_one_route, 1, samples=longer)).answer == "leak"


def test_too_few_requests_are_told_as_well():
    verdict = judge(run(small_leak, 1, per_sample=1.0))
    assert verdict.answer == "not enough data"
    assert verdict.seconds_more > 60


def test_without_requests_it_is_said_that_a_load_is_needed():
    verdict = judge(run(flat, 1, per_sample=0.0))
    assert verdict.answer == "not enough data"
    assert "load" in verdict.reason


def test_nothing_at_all_is_not_enough_data():
    assert judge([]) == Verdict("not enough data", reason=judge([]).reason, seconds_more=60.0)


def test_a_cache_that_still_fills_up_is_not_called_healthy():
    """Nobody can tell it from a leak yet; after as long again anybody can."""

    def slowly(served: np.ndarray, draws: np.ndarray) -> np.ndarray:
        return 2e6 + 3_000.0 * 2_000 * (1 - np.exp(-total(served) / 2_500))

    for seed in SEEDS:
        verdict = judge(run(slowly, seed))
        assert verdict.answer != "no leak"
        if verdict.answer == "not enough data":
            assert verdict.seconds_more > 0


def _with(sample: MemorySample, **changes: int) -> MemorySample:
    return replace(sample, **changes)  # type: ignore[arg-type]


def _served(sample: MemorySample, first: MemorySample) -> int:
    return sum(sample.requests.values()) - sum(first.requests.values())
