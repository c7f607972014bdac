"""Two lines in an app, and `FLASK_PROFILE=queries,nplusone flask run` says what its requests cost.

    from profilers import Profilers

    Profilers(app)

With no profiler enabled the app is left exactly as it was: no hook, no listener, no header.
"""

from __future__ import annotations

import atexit
import logging
import os
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from flask import Flask

from profilers import options
from profilers.plugin import Profiler, call_hook

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from profilers.collect import Recording
    from profilers.recording import Active
    from profilers.worker import Worker

log = logging.getLogger("profilers")

installed: weakref.WeakSet[Profilers] = weakref.WeakSet()
"""The extensions of this process that are hooked into an app."""


class Profilers:
    """The Flask extension; works before or after the SQLAlchemy extension, and with plain SQLAlchemy.

    Raises:
        ConfigError: `PROFILE` or an option of a profiler is wrong; the message is one line.
    """

    def __init__(self, app: Flask | None = None, profile: str | Iterable[str] | None = None) -> None:
        self.profilers: tuple[Profiler[Any], ...] = ()
        """The profilers of `PROFILE`, whether they run at the moment or not."""
        self.active: Active | None = None
        """What runs now; set it with `activate`."""
        self.worker: Worker | None = None
        """What runs beside the requests; None while no profiler is enabled or on standby."""
        self.deliver: Callable[[Recording], None] = lambda recording: None
        """Takes each finished profile, in the thread of its request: must only put it aside."""
        self._end: Callable[[int], None] = lambda slot: None
        self._started = False
        self._serves = 0
        """The process whose worker was started and not stopped."""
        if app is not None:
            self.init_app(app, profile)

    def init_app(self, app: Flask, profile: str | Iterable[str] | None = None) -> None:
        """Read the app's configuration, and hook in if a profiler is enabled or on standby.

        Args:
            profile: names of profilers, for an app that decides by settings of its own; by default those of
                `FLASK_PROFILE` or `PROFILE`.
        """
        app.extensions["profilers"] = self
        names = options.enabled_names(app.config) if profile is None else options.split_names(profile)
        console = options.flag("PROFILE_CONSOLE", app.config)
        if names or console:
            self.profilers = tuple(
                options.create(name, app.config) for name in names if name != options.STANDBY
            )
            self._hook_in(app, everything=console or options.STANDBY in names)
        if console and self.worker is not None:
            from profilers.console import mount

            mount(app, self.worker, self.start_worker)

    def _hook_in(self, app: Flask, *, everything: bool) -> None:
        # Imported only now: an app whose profilers are off imports none of this.
        from profilers import listeners, location, recording, server_timing, worker

        location.add_root(app.root_path)
        listeners.install(listeners.ALL if everything else recording.Active(self.profilers).needs)
        for profiler in self.profilers:
            call_hook(profiler, "on_app", app)
        self.worker = worker.Worker(app, self.profilers, self.activate)
        self.deliver = self.worker.put
        server_timing.install(app)
        self._end = self.worker.end
        app.wsgi_app = self._around(app.wsgi_app, self.worker)  # type: ignore[method-assign, assignment]
        app.full_dispatch_request = recording.watching(app.full_dispatch_request, self.worker.begin)  # type: ignore[method-assign]
        app.handle_exception = recording.answering(app.handle_exception)  # type: ignore[method-assign]
        os.register_at_fork(after_in_child=self._forked)
        installed.add(self)

    def _around(self, app: WSGIApplication, worker: Worker) -> WSGIApplication:
        from profilers import recording

        finished = self._finished
        noted = getattr(app, "__func__", None) is Flask.wsgi_app  # else there is middleware in between

        def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            if not self._started:
                self.start_worker()
            active = self.active
            if active is not None and active.draw is not None:
                active = active.draw()
            if active is not None:
                return recording.record_request(app, environ, start_response, active, finished, noted=noted)
            try:
                return app(environ, start_response)
            finally:
                worker.end(environ.get(recording.SLOT, -1))

        return serve

    def _finished(self, recording: Recording) -> None:
        self._end(recording.slot)
        if not recording.dropped:
            self.deliver(recording)

    def activate(self, active: Active | None) -> None:
        """Let these profilers run from the next request on; None stops them all."""
        self.active = active

    def start_worker(self) -> None:
        """Start what runs beside the requests, once in each process; the first request does it too."""
        if self._started or self.worker is None:
            return
        self._started = True
        self.worker.start()
        for profiler in self.profilers:
            call_hook(profiler, "on_worker_start")
        self._serves = os.getpid()
        atexit.register(self.stop_worker)

    def stop_worker(self) -> None:
        """End what runs beside the requests, once in each process that has started it, for good."""
        if self._serves != os.getpid() or self.worker is None:
            return
        self._serves = 0
        atexit.unregister(self.stop_worker)
        self.worker.close()
        for profiler in self.worker.profilers:
            call_hook(profiler, "on_worker_exit")

    def _forked(self) -> None:
        self._started = False
