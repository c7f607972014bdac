"""The contract of one profiler, whole.

A profiler is a small class with a `name`, a frozen dataclass of options, the data it needs collected, and
up to seven hooks. It is found by the entry-point group `flask_profilers`, built-in or not:

    [options.entry_points]
    flask_profilers =
        payload = acme.payload:PayloadSize

    @dataclass(frozen=True)
    class PayloadOptions:
        limit_kb: int = option(512, "Responses larger than this are a finding.")

    class PayloadSize(Profiler[PayloadOptions]):
        name = "payload"
        options_class = PayloadOptions

        def examine(self, profile): ...

`FLASK_PROFILE=payload` switches it on and `PROFILE_PAYLOAD_LIMIT_KB=256` (in `app.config`, or in the
environment as `FLASK_PROFILE_PAYLOAD_LIMIT_KB`) sets its option.

The life of a profiler in a process, in order: `on_app` once, `on_worker_start` once in each worker (after
the fork), then for each profiled request or block `on_start` and `on_finish` in its thread and `examine`
after the response has been sent, `on_switched` when it is turned on or off meanwhile, and `on_worker_exit`
once. A hook that raises never changes a response:
the failure is counted, logged once, and after `MAX_FAILURES` of them the profiler is switched off.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from flask import Flask

    from profilers.profile import Profile

log = logging.getLogger("profilers")

MAX_FAILURES = 3
"""A profiler of which this many hooks have raised in a process is switched off there."""

OptionsT = TypeVar("OptionsT")

Need = Literal["statements", "orm", "pool"]
"""What the extension collects for a profiler: driver statements; for each of them also what the ORM was
loading (implies statements); pool waits, connection holds, commits and rollbacks."""


def option(default: Any, help_text: str) -> Any:
    """Declare one option of a profiler: a dataclass field with its default and its line of documentation."""
    return dataclasses.field(default=default, metadata={"help": help_text})


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """For a profiler that has nothing to set."""


class Profiler(Generic[OptionsT]):
    """Base of all profilers; every hook does nothing until overridden."""

    name: ClassVar[str]
    """What `FLASK_PROFILE` calls it; lower case, words joined by hyphens."""
    options_class: ClassVar[type[Any]] = NoOptions
    needs: ClassVar[frozenset[Need]] = frozenset()
    failures: int = 0
    """How often a hook has raised in this process."""

    def __init__(self, options: OptionsT) -> None:
        self.options = options

    def on_app(self, app: Flask) -> None:
        """Called once, when the extension is bound to the app, before any worker is forked."""

    def on_worker_start(self) -> None:
        """Called once in each process that serves requests, after the fork: start threads here."""

    def on_switched(self, on: bool) -> None:
        """Called in a process when the profiler was switched on or off at run time, off the requests.

        One that the configuration does not name is first given `on_app` and `on_worker_start`.
        """

    def on_start(self, profile: Profile) -> None:
        """Called as a request or block begins, in its thread. Time spent here is the request's."""

    def on_finish(self, profile: Profile) -> None:
        """Called as the body is closed or the block left, in its thread. Time spent here is the request's."""

    def examine(self, profile: Profile) -> None:
        """Add findings and a section to the finished profile.

        For requests it is called from the background writer, after the response was sent; for `record` and
        in tests before the block returns. It may take its time, within reason.
        """

    def on_worker_exit(self) -> None:
        """Called once as the process ends in order."""


def call_hook(profiler: Profiler[Any], hook: str, *args: Any) -> None:
    """Call one hook of one profiler, and survive it; one that failed too often is not called at all."""
    if profiler.failures >= MAX_FAILURES:
        return
    try:
        getattr(profiler, hook)(*args)
    except Exception:
        profiler.failures += 1
        if profiler.failures == 1:
            log.exception("profiler %s failed in %s; the app is not affected", profiler.name, hook)
        if profiler.failures == MAX_FAILURES:
            log.error("profiler %s failed %d times and is switched off", profiler.name, MAX_FAILURES)  # noqa: TRY400
