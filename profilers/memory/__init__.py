"""`memory`: what each worker holds, what one request keeps, and at which line.

While it is on, every worker is looked at every few seconds: RSS, USS, PSS, Python's blocks, garbage
collections, requests by route. That is cheap, and enough to say whether it leaks. tracemalloc, which says at
which line, costs more: it is switched on in all workers at once by `python -m profilers memory`, for as long
as that runs, or for good by `PROFILE_MEMORY_SNAPSHOT_EVERY`. While it is on, a request's profile says how
much memory it took at its peak and how much it kept.
"""

from __future__ import annotations

import inspect
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import Flask
from flask import request as current_request

from profilers.collect import Recording
from profilers.location import is_project
from profilers.memory.requests import Measured, Requests
from profilers.memory.sampler import Sampler
from profilers.memory.snapshots import View
from profilers.options import ConfigError
from profilers.plugin import Profiler, option
from profilers.profile import Finding, Profile
from profilers.recording import request_name
from profilers.store import Store, default_folder
from profilers.worker import store_of

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class MemoryOptions:
    interval: float = option(5.0, "Seconds between two looks at a worker.")
    snapshot_every: float = option(0.0, "Seconds between snapshots with tracemalloc always on; 0 on demand.")
    frames: int = option(5, "Frames kept of each allocation, with snapshot_every.")
    keep_snapshots: int = option(400, "Snapshot files kept, of all workers.")
    keep_megabytes: int = option(100, "Size of all snapshot files.")
    peak_megabytes: float = option(100.0, "A request that takes more at its peak is a finding.")


class Memory(Profiler[MemoryOptions]):
    name = "memory"
    options_class = MemoryOptions

    def __init__(self, options: MemoryOptions) -> None:
        super().__init__(options)
        for key in ("interval", "frames", "keep_snapshots", "keep_megabytes", "peak_megabytes"):
            if getattr(options, key) <= 0:
                raise ConfigError(
                    f"PROFILE_MEMORY_{key.upper()}={getattr(options, key)}: expected more than 0"
                )
        if options.snapshot_every < 0:
            raise ConfigError(
                f"PROFILE_MEMORY_SNAPSHOT_EVERY={options.snapshot_every}: expected 0 or a number of seconds"
            )
        self.requests = Requests()
        self._app: Flask | None = None
        self._sampler: Sampler | None = None

    def on_app(self, app: Flask) -> None:
        self._app = app
        # The lists are replaced, not changed: the profiler may be switched on while requests go through them.
        before, after = app.url_value_preprocessors, app.teardown_request_funcs
        before[None] = [self._begin, *before.get(None, ())]
        after[None] = [*after.get(None, ()), self._end]

    def on_worker_start(self) -> None:
        self.requests = Requests()
        self.on_switched(True)

    def on_switched(self, on: bool) -> None:
        self.on_worker_exit()
        if not on:
            return
        assert self._app is not None
        store = store_of(self._app)
        self._sampler = Sampler(
            store,
            snapshot_folder(store, self._app.instance_path),
            self.options,
            self.requests.by_route,
            views_of(self._app),
        )
        self._sampler.start()

    def on_worker_exit(self) -> None:
        if self._sampler is not None:
            self._sampler.stop()
            self._sampler = None

    def _begin(self, endpoint: str | None, view_args: dict[str, Any] | None) -> None:
        request = current_request._get_current_object()  # type: ignore[attr-defined]
        rule = request.url_rule
        self.requests.begin(request_name(request.method, rule.rule if rule is not None else None))

    def _end(self, error: BaseException | None) -> None:
        self.requests.end()

    def on_start(self, profile: Profile) -> None:
        """Measure it, if tracemalloc is on and no other request is being measured; a block turns it on."""
        assert isinstance(profile, Recording)
        started = profile.kind == "block" and not tracemalloc.is_tracing()
        if started:
            tracemalloc.start(self.options.frames)
        if tracemalloc.is_tracing() and (measured := self.requests.measure(started)):
            profile.notes[self.name] = measured

    def on_finish(self, profile: Profile) -> None:
        assert isinstance(profile, Recording)
        measured: Measured | None = profile.notes.pop(self.name, None)
        if measured is None:
            return
        if tracemalloc.is_tracing():
            held, peak = tracemalloc.get_traced_memory()
            profile.sections[self.name] = {
                "peak": max(0, peak - measured.held),
                "kept": held - measured.held,
                "shared": measured.shared or self.requests.others(),
            }
        self.requests.measured(measured)
        if measured.started_tracing:
            tracemalloc.stop()

    def examine(self, profile: Profile) -> None:
        section = profile.sections.get(self.name)
        if not section or section["shared"] or section["peak"] <= self.options.peak_megabytes * MEGABYTE:
            return
        profile.findings.append(
            Finding(
                kind="large_request",
                cause="peak_memory",
                subject=profile.name,
                count=1,
                message=f"{profile.name} took {section['peak'] / MEGABYTE:.0f} MB at its peak and kept "
                f"{max(0, section['kept']) / MEGABYTE:.1f} MB",
                fix="Read and send it in parts: yield_per, a page, or a streamed response.",
                details=dict(section),
            )
        )


def snapshot_folder(store: Store, instance_path: str) -> Path:
    """Beside the store's file, or where it would be."""
    path = store.database.path
    return (path.parent if path is not None else default_folder(instance_path)) / "memory"


def views_of(app: Flask) -> tuple[View, ...]:
    """The lines of the project's views, with their routes."""
    views = []
    for rule in app.url_map.iter_rules():
        function = app.view_functions.get(rule.endpoint)
        if function is None:
            continue
        code = getattr(inspect.unwrap(getattr(function, "view_class", function)), "__code__", None)
        if code is None or not is_project(code.co_filename):
            continue
        last = max((line for _, _, line in code.co_lines() if line), default=code.co_firstlineno)
        views += [
            View(code.co_filename, code.co_firstlineno, last, request_name(method, rule.rule))
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
        ]
    return tuple(views)
