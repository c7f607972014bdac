"""Call stacks: whose frames they are, which requests are watched, and what can be drawn of them."""

from __future__ import annotations

import cProfile
import importlib
import json
import random
import sys
import threading
import time
from collections.abc import Callable

import pytest

from profilers import ConfigError, options, record
from profilers.call_stack import MAX_DEPTH, MAX_NODES, MAX_SAMPLES, Samples, halved, render, session_of
from profilers.recording import Active

ALL = {"PROFILE_PYINSTRUMENT_SAMPLE": 1, "PROFILE_PYINSTRUMENT_SLOWER_THAN_MS": 0}


def busy(seconds: float, inner: Callable[[], object] = lambda: None) -> str:
    """Call functions for a while."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        inner()
    return "done"


def functions(section: dict) -> set[str]:
    """Names of all functions that were seen."""
    return {frame.split("\0")[0] for frame in section["frames"]}


def reading() -> None:
    time.sleep(0.001)


def writing() -> None:
    time.sleep(0.001)


def test_the_stack_of_a_request_is_kept_as_json_and_drawn_later(profiled):
    app, profiles = profiled("pyinstrument", **ALL)
    app.add_url_rule("/posts", view_func=lambda: busy(0.05, reading))
    app.test_client().get("/posts")
    section = json.loads(json.dumps(profiles[0].sections["pyinstrument"]))
    assert {"busy", "reading", "full_dispatch_request"} <= functions(section)
    text = render(section, "text")
    assert "GET /posts" in text
    assert "reading" in text
    assert json.loads(render(section, "speedscope"))["profiles"][0]["events"]
    assert "<html" in render(section, "html")


def test_times_add_up_to_those_of_the_request(profiled):
    app, profiles = profiled("pyinstrument", **ALL)
    app.add_url_rule("/", view_func=lambda: busy(0.05, reading))
    app.test_client().get("/")
    section = profiles[0].sections["pyinstrument"]
    seen = sum(microseconds for _, microseconds in section["samples"]) / 1e6
    assert 0.04 < seen <= section["duration"]
    assert 0.5 < section["duration"] / profiles[0].duration < 2  # two clocks, stopped one after the other


def test_two_threads_at_once_each_see_their_own_frames(profiled):
    app, profiles = profiled("pyinstrument", **ALL)
    both = threading.Barrier(2)

    def view(inner: Callable[[], object]) -> Callable[[], str]:
        def serve() -> str:
            both.wait(30)
            answer = busy(0.1, inner)
            both.wait(30)
            return answer

        return serve

    app.add_url_rule("/read", "read", view(reading))
    app.add_url_rule("/write", "write", view(writing))
    threads = [threading.Thread(target=app.test_client().get, args=(path,)) for path in ("/read", "/write")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    seen = {profile.name: functions(profile.sections["pyinstrument"]) for profile in profiles}
    assert {"reading", "writing"} & seen["GET /read"] == {"reading"}
    assert {"reading", "writing"} & seen["GET /write"] == {"writing"}


def test_only_slow_requests_are_kept(profiled):
    config = {**ALL, "PROFILE_PYINSTRUMENT_SLOWER_THAN_MS": 100}
    app, profiles = profiled("pyinstrument", **config)
    app.add_url_rule("/fast", "fast", lambda: "")
    app.add_url_rule("/slow", "slow", lambda: busy(0.12))
    for path in ("/fast", "/slow"):
        app.test_client().get(path)
    assert ["pyinstrument" in profile.sections for profile in profiles] == [False, True]


def test_only_named_endpoints_are_watched(profiled):
    app, profiles = profiled("pyinstrument", PROFILE_PYINSTRUMENT_ENDPOINTS="GET /posts/*,PUT *", **ALL)
    app.add_url_rule("/posts/<int:post>", "post", lambda post: "")
    app.add_url_rule("/authors", "authors", lambda: str(sys.getprofile()))
    app.test_client().get("/posts/1")
    assert app.test_client().get("/authors").text == "None"
    assert ["pyinstrument" in profile.sections for profile in profiles] == [True, False]


def test_a_sample_of_the_requests_is_watched(profiled, monkeypatch):
    app, profiles = profiled("pyinstrument", **{**ALL, "PROFILE_PYINSTRUMENT_SAMPLE": 4})
    app.add_url_rule("/", view_func=lambda: "")
    drawn = iter([0.1, 0.3, 0.9, 0.2])
    monkeypatch.setattr(random, "random", lambda: next(drawn))
    for _ in range(4):
        app.test_client().get("/")
    assert ["pyinstrument" in profile.sections for profile in profiles] == [True, False, False, True]


def test_switched_on_while_the_app_runs_and_off_again(profiled):
    app, profiles = profiled("standby")
    app.add_url_rule("/", view_func=lambda: busy(0.01))
    app.test_client().get("/")
    profiler = options.create("pyinstrument", ALL)
    profiler.on_app(app)
    extension = app.extensions["profilers"]
    extension.profilers = (profiler,)
    extension.activate(Active([profiler]))
    app.test_client().get("/")
    extension.activate(None)
    app.test_client().get("/")
    assert ["pyinstrument" in profile.sections for profile in profiles] == [True]


def test_a_block_is_always_watched():
    with record("import", profile="pyinstrument") as profile:
        busy(0.02, reading)
    assert "reading" in functions(profile.sections["pyinstrument"])
    assert sys.getprofile() is None


def test_a_block_inside_a_block_has_its_own_stack():
    with record("outer", profile="pyinstrument") as outer:
        busy(0.02, writing)
        with record("inner", profile="pyinstrument") as inner:
            busy(0.02, reading)
    assert {"reading", "writing"} <= functions(outer.sections["pyinstrument"])
    assert "writing" not in functions(inner.sections["pyinstrument"])


def test_a_request_that_another_thread_finishes_does_not_stay_watched(profiled):
    app, profiles = profiled("pyinstrument", **ALL)
    app.add_url_rule("/", view_func=lambda: (str(number) for number in range(3)))
    environ = app.test_request_context("/").request.environ
    body = app.wsgi_app(environ, lambda *_: lambda _: None)
    assert list(body) == [b"0", b"1", b"2"]
    closer = threading.Thread(target=body.close)
    closer.start()
    closer.join(30)
    busy(0.02)
    assert sys.getprofile() is None
    assert "busy" not in functions(profiles[0].sections["pyinstrument"])


def test_another_profiler_of_the_thread_is_left_alone():
    theirs = cProfile.Profile()
    theirs.enable()
    with record("block", profile="pyinstrument") as profile:
        still = sys.getprofile()
    theirs.disable()
    assert still is theirs
    assert profile.sections["pyinstrument"] == {"skipped": "another profiler was watching this thread"}


def feed(stacks: list[list[str]]) -> Samples:
    seen = Samples(None, 0.001)  # type: ignore[arg-type]
    for stack in stacks:
        seen(stack, 0.001, None)
    return seen


def test_a_long_request_keeps_a_bounded_number_of_samples_and_all_of_its_time():
    seen = feed([["thread", str(number % 50)] for number in range(100_000)])
    section = seen.to_json("long")
    assert MAX_SAMPLES / 2 <= len(section["samples"]) <= MAX_SAMPLES
    assert sum(microseconds for _, microseconds in section["samples"]) == pytest.approx(1e8, rel=0.01)


def test_deep_and_ever_different_stacks_are_bounded():
    deep = feed([[f"{number}.{depth}" for depth in range(900)] for number in range(MAX_SAMPLES - 1)])
    section = deep.to_json("deep")
    assert len(section["nodes"]) <= MAX_NODES
    assert max(map(len, (stack for stack, _ in deep.samples))) <= MAX_DEPTH
    assert len(json.dumps(section)) < 1_000_000
    assert session_of(section).frame_records[0][0][-1].endswith(".899")


def test_halving_keeps_the_time():
    samples = [((str(number),), 1.0) for number in range(5)]
    assert halved(samples) == [(("1",), 2.0), (("3",), 2.0), (("4",), 1.0)]


@pytest.mark.parametrize("key", ["SAMPLE", "INTERVAL_MS"])
def test_a_zero_option_stops_the_start(profiled, key):
    with pytest.raises(ConfigError, match=f"PROFILE_PYINSTRUMENT_{key}=0.*expected more than 0"):
        profiled("pyinstrument", **{f"PROFILE_PYINSTRUMENT_{key}": 0})


def test_without_pyinstrument_the_start_stops_with_one_line(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "pyinstrument"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "profilers.call_stack", raising=False)
    monkeypatch.setattr(importlib.import_module("profilers"), "call_stack", None, raising=False)
    monkeypatch.setitem(sys.modules, "pyinstrument", None)
    with pytest.raises(ConfigError) as error:
        options.create("pyinstrument", {})
    assert "pip install 'pyinstrument>=" in error.value.message
    assert "\n" not in error.value.message
