"""`pyinstrument`: where a slow request spends its time, function by function.

A request is watched by pyinstrument's sampler in its own thread, so threads are never mixed up. What was seen
is kept as plain JSON with the profile, and drawn later, away from the request: `render(section, "text")`,
`"html"` or `"speedscope"`.

Watching costs every function call of the request, so by default one request in ten is watched, and what was
seen is kept of those that took 100 ms or more.
"""

from __future__ import annotations

import contextlib
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from flask import Flask
from pyinstrument.renderers import ConsoleRenderer, HTMLRenderer, Renderer, SpeedscopeRenderer
from pyinstrument.session import Session
from pyinstrument.stack_sampler import StackSampler, build_call_stack, get_stack_sampler

from profilers.collect import Recording, current
from profilers.options import ConfigError
from profilers.plugin import Profiler, call_hook, option
from profilers.profile import Profile

MAX_SAMPLES = 1_000
"""Samples kept of one profile; of a longer one every second, every fourth … with the time of the others."""
MAX_DEPTH = 120
"""Frames kept of one stack, from both ends: the middle of a deep recursion is left out."""
MAX_NODES = 20_000
"""Different beginnings of stacks that are stored of one profile."""

Format = Literal["text", "html", "speedscope"]


@dataclass(frozen=True)
class CallStackOptions:
    sample: int = option(10, "One request in so many is watched; 1 for each.")
    slower_than_ms: float = option(100.0, "What was seen is kept of requests that took at least this long.")
    endpoints: tuple[str, ...] = option((), "Only these are watched: `GET /posts`; `*` is any text.")
    interval_ms: float = option(1.0, "Time between two looks at the stack.")


class CallStack(Profiler[CallStackOptions]):
    name = "pyinstrument"
    options_class = CallStackOptions

    def __init__(self, options: CallStackOptions) -> None:
        super().__init__(options)
        for key, value in (("SAMPLE", options.sample), ("INTERVAL_MS", options.interval_ms)):
            if value <= 0:
                raise ConfigError(f"PROFILE_PYINSTRUMENT_{key}={value}: expected more than 0")

    def on_app(self, app: Flask) -> None:
        # A request is watched from where its endpoint is known, so that the others do not pay. The list is
        # replaced, not changed: the profiler may be switched on while another thread goes through it.
        functions = app.before_request_funcs
        functions[None] = [self._routed, *functions.get(None, ())]

    def _routed(self) -> None:
        recording = current.get()
        if recording is None or recording.kind != "request":
            return
        if self in recording.active.profilers_of(recording.name) and self._chosen(recording.name):
            call_hook(self, "watch", recording)

    def _chosen(self, name: str) -> bool:
        endpoints = self.options.endpoints
        if endpoints and not any(fnmatchcase(name, endpoint) for endpoint in endpoints):
            return False
        return random.random() * self.options.sample < 1  # noqa: S311 - no secret depends on it

    def on_start(self, profile: Profile) -> None:
        if profile.kind == "block":
            self.watch(profile)

    def watch(self, profile: Profile) -> None:
        """Watch this thread until the profile is finished."""
        assert isinstance(profile, Recording)
        sampler = get_stack_sampler()
        if sys.getprofile() is not None and not sampler.subscribers:
            profile.sections[self.name] = {"skipped": "another profiler was watching this thread"}
            return
        seen = profile.notes[self.name] = Samples(sampler, self.options.interval_ms / 1000)
        # On a slow clock it would print a warning in each thread; the page on call stacks says it once.
        sampler.has_warned_about_timing_overhead = True
        sampler.subscribe(seen, desired_interval=seen.interval, use_async_context=False)

    def on_finish(self, profile: Profile) -> None:
        assert isinstance(profile, Recording)
        seen: Samples | None = profile.notes.get(self.name)
        if seen is None:
            return
        seen.end()
        if profile.kind == "request" and seen.duration * 1000 < self.options.slower_than_ms:
            del profile.notes[self.name]

    def examine(self, profile: Profile) -> None:
        assert isinstance(profile, Recording)
        seen: Samples | None = profile.notes.pop(self.name, None)
        if seen is not None:
            profile.sections[self.name] = seen.to_json(profile.name)


Sample = tuple[Sequence[str], float]
"""A stack from the outside in, in pyinstrument's notation, and the seconds it stands for."""


class Samples:
    """What pyinstrument's sampler saw in one thread, within bounds; called with each stack."""

    def __init__(self, sampler: StackSampler, interval: float) -> None:
        self.interval = interval
        """Seconds between two samples."""
        self.duration = 0.0
        self.cpu = time.thread_time()
        self.samples: list[Sample] = []
        self.start_stack = build_call_stack(sys._getframe(2), "initial", None)
        self._sampler = sampler
        self._started = time.perf_counter()
        self._started_at = time.time()
        self._every = 1
        self._skipped = 0
        self._time = 0.0
        self._first = True
        self._ended = False

    def __call__(self, stack: list[str], seconds: float, async_state: object) -> None:
        if self._ended:
            self._unsubscribe()
            return
        if self._first:  # it may count from one that was taken for somebody else, before this began
            self._first = False
            seconds = min(seconds, time.perf_counter() - self._started)
        self._time += seconds
        self._skipped += 1
        if self._skipped < self._every:
            return
        if len(stack) > MAX_DEPTH:
            stack[MAX_DEPTH // 2 : -MAX_DEPTH // 2] = []
        self.samples.append(([sys.intern(frame) for frame in stack], self._time))
        self._time, self._skipped = 0.0, 0
        if len(self.samples) >= MAX_SAMPLES:
            self.samples = halved(self.samples)
            self._every *= 2

    def end(self) -> None:
        """Stop watching; called in another thread than the watched one, with the next sample there."""
        self._ended = True
        self.duration = time.perf_counter() - self._started
        if get_stack_sampler() is self._sampler:
            self.cpu = time.thread_time() - self.cpu
            self._unsubscribe()
        else:
            self.cpu = 0.0

    def _unsubscribe(self) -> None:
        # A sample may be taken at any moment, in between these lines too, and unsubscribe it first.
        with contextlib.suppress(StackSampler.SubscriberNotFound, ValueError):
            self._sampler.unsubscribe(self)

    def to_json(self, name: str) -> dict[str, Any]:
        """The samples as JSON types: stacks share their beginnings, frames are numbered."""
        samples = self.samples
        while True:
            frames: dict[str, int] = {}
            nodes: dict[tuple[int, int], int] = {}
            found = []
            for stack, seconds in samples:
                node = -1
                for frame in stack:
                    key = (node, frames.setdefault(frame, len(frames)))
                    node = nodes.setdefault(key, len(nodes))
                found.append([node, round(seconds * 1e6)])
            if len(nodes) <= MAX_NODES:
                break
            samples = halved(samples)
        return {
            "name": name,
            "started_at": self._started_at,
            "duration": self.duration,
            "cpu": self.cpu,
            "interval": self.interval * self._every,
            "frames": list(frames),
            "nodes": [list(key) for key in nodes],
            "samples": found,
            "start_stack": self.start_stack,
            "sys_path": sys.path,
            "sys_prefixes": Session.current_sys_prefixes(),
        }


def halved(samples: list[Sample]) -> list[Sample]:
    """Every second sample, with the time of the one before it."""
    pairs = zip(samples[::2], samples[1::2], strict=False)
    rest = samples[len(samples) // 2 * 2 :]
    return [(stack, before + seconds) for (_, before), (stack, seconds) in pairs] + rest


def session_of(section: dict[str, Any]) -> Session:
    """pyinstrument's own session, made of a stored `profile.sections["pyinstrument"]`.

    Raises:
        KeyError, IndexError: the data is not of that shape.
    """
    frames: list[str] = section["frames"]
    stacks: list[list[str]] = []
    for parent, frame in section["nodes"]:
        stacks.append([*(stacks[parent] if parent >= 0 else ()), frames[frame]])
    return Session(
        frame_records=[(stacks[node], microseconds / 1e6) for node, microseconds in section["samples"]],
        start_time=section["started_at"],
        duration=section["duration"],
        min_interval=section["interval"],
        max_interval=section["interval"],
        sample_count=len(section["samples"]),
        start_call_stack=section["start_stack"],
        target_description=section["name"],
        cpu_time=section["cpu"],
        sys_path=section["sys_path"],
        sys_prefixes=section["sys_prefixes"],
    )


RENDERERS: dict[Format, Callable[[], Renderer]] = {
    "text": lambda: ConsoleRenderer(unicode=True, color=False),
    "html": HTMLRenderer,
    "speedscope": SpeedscopeRenderer,
}


def render(section: dict[str, Any], form: Format) -> str:
    """Draw a stored `profile.sections["pyinstrument"]`: a tree as text, a page for the browser, or a file for
    speedscope.app.
    """
    return RENDERERS[form]().render(session_of(section))
