"""Two lines in an app, and `FLASK_PROFILE=queries,nplusone flask run` says what its requests cost.

    from profilers import Profilers

    Profilers(app)

With no profiler enabled the app is left exactly as it was: no hook, no listener, no header.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from flask import Flask

from profilers import options
from profilers.plugin import Profiler, call_hook

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from profilers.collect import Recording
    from profilers.recording import Active

log = logging.getLogger("profilers")


class Profilers:
    """The Flask extension; works before or after the SQLAlchemy extension, and with plain SQLAlchemy.

    Raises:
        ConfigError: `PROFILE` or an option of a profiler is wrong; the message is one line.
    """

    def __init__(self, app: Flask | None = None) -> None:
        self.profilers: tuple[Profiler[Any], ...] = ()
        """The profilers of `PROFILE`, whether they run at the moment or not."""
        self.active: Active | None = None
        """What runs now; set it with `activate`."""
        self.deliver: Callable[[Recording], None] = Backlog(self).add
        """Takes each finished profile, in the thread of its request: must only put it aside."""
        self._started = False
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read the app's configuration, and hook in if a profiler is enabled or on standby."""
        app.extensions["profilers"] = self
        names = options.enabled_names(app.config)
        if names:
            self.profilers = tuple(
                options.create(name, app.config) for name in names if name != options.STANDBY
            )
            self._hook_in(app, everything=options.STANDBY in names)

    def _hook_in(self, app: Flask, *, everything: bool) -> None:
        # Imported only now: an app whose profilers are off imports none of this.
        from profilers import collect, location, recording

        location.add_root(app.root_path)
        running = recording.Active(self.profilers)
        collect.install(collect.ALL if everything else running.needs)
        for profiler in self.profilers:
            call_hook(profiler, "on_app", app)
        app.before_request_funcs.setdefault(None, []).insert(0, recording.route_early)
        app.after_request_funcs.setdefault(None, []).insert(0, recording.note_response)
        app.wsgi_app = self._around(app.wsgi_app, recording.record_request)  # type: ignore[method-assign, assignment]
        os.register_at_fork(after_in_child=self._forked)
        self.activate(running if self.profilers else None)

    def _around(
        self, app: WSGIApplication, record_request: Callable[..., Iterable[bytes]]
    ) -> WSGIApplication:
        def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            active = self.active
            if active is None or (active.admits is not None and not active.admits(environ)):
                return app(environ, start_response)
            if not self._started:
                self._start_worker()
            return record_request(app, environ, start_response, active, self.deliver)

        return serve

    def activate(self, active: Active | None) -> None:
        """Let these profilers run from the next request on; None stops them all."""
        self.active = active

    def _start_worker(self) -> None:
        self._started = True
        for profiler in self.profilers:
            call_hook(profiler, "on_worker_start")
        atexit.register(self._stop_worker, os.getpid())

    def _forked(self) -> None:
        self._started = False

    def _stop_worker(self, process: int) -> None:
        if process == os.getpid():
            for profiler in self.profilers:
                call_hook(profiler, "on_worker_exit")


class Backlog:
    """Examines finished profiles in a thread of its own; the newest `kept` can be looked at."""

    def __init__(self, extension: Profilers) -> None:
        self._extension = extension
        self._waiting: deque[Recording] = deque(maxlen=10_000)
        self.kept: deque[Recording] = deque(maxlen=100)
        self._process = 0

    def add(self, recording: Recording) -> None:
        """Put a profile aside for the thread."""
        self._waiting.append(recording)
        if self._process != os.getpid():
            self._process = os.getpid()
            threading.Thread(target=self._run, name="profilers", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(0.2)
            self.examine()

    def examine(self) -> None:
        """Examine what is waiting."""
        from profilers.recording import examine

        while self._waiting:
            recording = self._waiting.popleft()
            examine(recording, self._extension.profilers)
            self.kept.append(recording)
