"""Switches reach every worker through the store, apply to what they name, and end by themselves."""

import time

import pytest

from profilers import switches
from profilers.plugin import Profiler
from profilers.store import open_store
from profilers.switches import Switch, SwitchError, Switches, WorkerStatus
from profilers.worker import Plan


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "profiles")


@pytest.fixture
def shared_store(empty_database_url):
    """Of several hosts."""
    return open_store(empty_database_url)


def named(name: str) -> Profiler:
    profiler = Profiler(None)
    profiler.name = name
    return profiler


PROFILERS = {name: named(name) for name in ("queries", "nplusone", "slow-queries", "pyinstrument")}


class Chooser:
    """Draws the names of the profilers for a request, as a worker does."""

    def __init__(self, plan: Plan) -> None:
        self.active = plan.active

    def choose(self, name: str) -> tuple[str, ...]:
        active = self.active
        if active is not None and active.draw is not None:
            active = active.draw()
        if active is None or (active.wants is not None and not active.wants(name)):
            return ()
        return tuple(profiler.name for profiler in active.profilers_of(name))


def plan(store, *configured, after=0.0) -> Chooser:
    """What a worker makes of the store some seconds later."""
    return Chooser(
        Plan(PROFILERS, Switch(configured), switches.status(store).switches.at(time.time() + after))
    )


def test_what_was_switched_on_is_chosen(store):
    switches.turn_on(store, ["nplusone"])
    assert plan(store).choose("GET /") == ("nplusone",)
    assert plan(store, "queries").choose("GET /") == ("queries", "nplusone")


def test_it_ends_by_itself(store):
    switches.turn_on(store, ["nplusone"], seconds=600)
    assert plan(store, after=590).choose("GET /") == ("nplusone",)
    assert plan(store, after=601).choose("GET /") == ()


def test_only_the_endpoint_it_names(store):
    switches.turn_on(store, ["nplusone"], endpoint="GET /services*")
    switched = plan(store, "queries")
    assert switched.choose("GET /services/<int:id>") == ("queries", "nplusone")
    assert switched.choose("POST /services") == ("queries",)


def test_only_a_sample(store):
    switches.turn_on(store, ["nplusone"], sample=0.05)
    switched = plan(store)
    chosen = sum(bool(switched.choose("GET /")) for _ in range(10_000))
    assert 300 < chosen < 700


def test_switched_again_the_later_one_counts(store):
    switches.turn_on(store, ["nplusone"], sample=0.5, seconds=60)
    state = switches.turn_on(store, ["nplusone"], sample=1.0, seconds=120)
    assert [item.sample for item in state.on] == [1.0]


def test_off_ends_everything_also_what_the_configuration_names(store):
    switches.turn_on(store, ["nplusone"])
    switches.turn_off(store)
    assert plan(store, "queries").choose("GET /") == ()


def test_off_for_a_time_resumes_by_itself(store):
    switches.turn_off(store, seconds=60)
    assert plan(store, "queries", after=59).choose("GET /") == ()
    assert plan(store, "queries", after=61).choose("GET /") == ("queries",)


def test_off_by_name_leaves_the_others(store):
    switches.turn_on(store, ["nplusone", "pyinstrument"])
    switches.turn_off(store, ["nplusone", "queries"])
    assert plan(store, "queries", "slow-queries").choose("GET /") == ("slow-queries", "pyinstrument")


def test_on_without_a_name_resumes_the_configuration(store):
    switches.turn_off(store)
    switches.turn_on(store)
    assert plan(store, "queries").choose("GET /") == ("queries",)


def test_on_by_name_wakes_a_resting_profiler(store):
    switches.turn_off(store, ["queries"])
    switches.turn_on(store, ["queries"])
    assert plan(store, "queries").choose("GET /") == ("queries",)


def test_the_brake_leaves_out_whole_requests():
    braked = Chooser(Plan(PROFILERS, Switch(("queries",)), Switches(), sampling=0.25))
    chosen = sum(bool(braked.choose("GET /")) for _ in range(10_000))
    assert 2000 < chosen < 3000


def test_status_shows_switches_and_workers(store):
    switches.turn_on(store, ["nplusone"], "GET /services*", 0.05, 600)
    worker = WorkerStatus("web-1", 17, time.time(), sampling=0.5, cost=0.031, left_out=4)
    gone = WorkerStatus("web-1", 16, time.time() - 60, sampling=1.0, cost=0.0, left_out=0)
    with store.database.connect().transaction(write=True) as connection:
        switches.say(connection, worker)
        switches.say(connection, gone)

    status = switches.status(store)

    (switch,) = status.switches.on
    assert switch == Switch(("nplusone",), "GET /services*", 0.05, switch.until)
    assert status.workers == (worker,)


def test_hosts_that_share_a_database_share_their_switches(shared_store):
    switches.turn_on(shared_store, ["nplusone"], "GET /services*", 0.05, 600)
    with shared_store.database.connect().transaction(write=True) as connection:
        for host in ("web-1", "web-2"):
            switches.say(connection, WorkerStatus(host, 17, time.time(), 1.0, 0.0, 0))
    status = switches.status(shared_store)
    assert [switch.profilers for switch in status.switches.on] == [("nplusone",)]
    assert [worker.host for worker in status.workers] == ["web-1", "web-2"]
    switches.turn_off(shared_store)
    assert switches.status(shared_store).switches.on == ()


def test_nothing_was_ever_switched(store):
    assert switches.status(store).switches == Switches()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"profilers": ["nplus1"], "known": ["queries", "nplusone"]}, "unknown profiler nplus1: known are"),
        ({"profilers": ["queries"], "sample": 0}, "sample 0: expected more than 0"),
        ({"profilers": ["queries"], "sample": 5}, "sample 5: expected more than 0 and at most 1"),
        ({"profilers": ["queries"], "seconds": 0.1}, "time 0.1 s: expected from 1 second to 24 hours"),
        ({"profilers": ["queries"], "seconds": 1e6}, "expected from 1 second to 24 hours"),
        ({"profilers": ["queries"], "endpoint": "GET /*/x"}, "with \\* at its end only"),
        ({"profilers": ["queries"], "endpoint": ""}, "expected a name such as"),
    ],
)
def test_what_makes_no_sense_is_refused(store, arguments, message):
    with pytest.raises(SwitchError, match=message):
        switches.turn_on(store, **arguments)
    assert switches.status(store).switches == Switches()


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("30s", 30), ("10m", 600), ("2h", 7200), ("1.5h", 5400)]
)
def test_times_are_read(text, seconds):
    assert switches.parse_seconds(text) == seconds


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.05", 0.05), ("100%", 1.0), ("1", 1.0)])
def test_shares_are_read(text, share):
    assert switches.parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "ten", "-5m", "5d", "1e9"])
def test_other_times_are_refused(text):
    with pytest.raises(SwitchError, match="expected such as"):
        switches.parse_seconds(text)


@pytest.mark.parametrize("text", ["", "half", "-5%"])
def test_other_shares_are_refused(text):
    with pytest.raises(SwitchError, match="expected such as"):
        switches.parse_share(text)


def test_with_nothing_on_a_request_is_left_alone_and_with_everything_nothing_is_drawn(store):
    assert plan(store).active is None
    switched = plan(store, "queries").active
    assert switched.draw is None
    assert switched.wants is None
