"""Under load the profilers take at most their share; without load, what they need."""

import pytest

from profilers import brake
from profilers.brake import LOWEST, Brake, Load, next_sampling

DEAR = Load(seconds=2.0, requests=1.5, timed=0.15, hooks=0.006, writer=0.015)
"""4 % in the hooks, 1 % in the writer."""


def at(sampling, load=DEAR, cost=1.0) -> Load:
    """The load when only a share is profiled, at another cost of each."""
    return Load(
        load.seconds, load.requests * sampling, load.timed * sampling,
        load.hooks * sampling * cost, load.writer * sampling * cost,
    )  # fmt: skip


def test_the_cost_is_hooks_and_writer():
    assert DEAR.cost == pytest.approx(0.05)


def test_over_the_limit_half_as_many_are_profiled():
    assert next_sampling(1.0, DEAR) == 0.5


def test_it_settles_below_the_limit_and_does_not_swing():
    sampling = 1.0
    seen = []
    for _ in range(10):
        sampling = next_sampling(sampling, at(sampling))
        seen.append(sampling)
    assert seen[0] == 0.5
    assert set(seen[1:]) == {0.25}
    assert DEAR.cost * 0.25 < brake.LIMIT


def test_below_the_limit_nothing_changes():
    assert next_sampling(1.0, at(1.0, cost=0.3)) == 1.0


def test_it_lets_go_when_profiling_gets_cheaper():
    assert next_sampling(0.25, at(0.25, cost=0.1)) == 0.5


def test_it_lets_go_when_the_load_falls():
    idle = Load(seconds=2.0, requests=0.01, timed=0.01, hooks=0.01, writer=0.01)
    assert next_sampling(0.25, idle) == 0.5


def test_an_idle_worker_may_spend_what_it_likes():
    idle = Load(seconds=2.0, requests=0.05, timed=0.05, hooks=0.05, writer=0.05)
    assert next_sampling(1.0, idle) == 1.0


def test_however_dear_some_requests_are_profiled():
    assert next_sampling(LOWEST, at(LOWEST, cost=50)) == LOWEST


def test_unmeasured_it_stays():
    assert next_sampling(0.5, Load(seconds=2.0, requests=1.5, timed=0, hooks=0, writer=0.001)) == 0.5


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [1000.0]
    monkeypatch.setattr("profilers.brake.time.monotonic", lambda: now[0])
    return now


def test_it_says_so_at_each_step(clock, caplog):
    tried = Brake()
    for _ in range(2):
        tried.request(0.1, hooks=0.005)
        tried.request(0.9)
        clock[0] += brake.WINDOW_SECONDS
        assert tried.adjust(writer_cpu=0.0)
    assert tried.sampling == 0.25
    assert [record.getMessage() for record in caplog.records] == [
        "the profilers took 5.0 % of request time, over 2.0 %: one request in 2 is profiled",
        "the profilers took 2.5 % of request time, over 2.0 %: one request in 4 is profiled",
    ]
    clock[0] += brake.WINDOW_SECONDS
    assert tried.adjust(writer_cpu=0.0)
    assert caplog.records[-1].getMessage() == "the load fell: one request in 2 is profiled"


def test_within_a_window_it_waits(clock):
    tried = Brake()
    tried.request(1.0, hooks=0.5)
    clock[0] += brake.WINDOW_SECONDS / 2
    assert not tried.adjust(writer_cpu=0.0)


def test_the_writers_cpu_counts_from_window_to_window(clock):
    tried = Brake()
    for total in (0.5, 0.5):
        tried.request(1.0, hooks=0.0)
        clock[0] += brake.WINDOW_SECONDS
        tried.adjust(writer_cpu=total)
    assert tried.cost == 0.0


def test_switched_off_it_never_brakes(clock):
    tried = Brake(limit=0)
    tried.request(1.0, hooks=0.9)
    clock[0] += brake.WINDOW_SECONDS
    assert not tried.adjust(writer_cpu=0.9)
    assert tried.sampling == 1.0


@pytest.mark.parametrize("limit", [-1, 1.5, float("nan")])
def test_a_limit_that_is_no_share_is_refused(limit):
    with pytest.raises(ValueError, match="PROFILE_BRAKE"):
        Brake(limit)
