"""Profiles a block of code or a request: a command, a job, a test; with or without a Flask app.

with record("nightly-import") as profile:
    run_import()
print(*(finding.message for finding in profile.findings), sep="\\n")
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from flask import current_app
from flask import request as current_request

from profilers import listeners, options
from profilers.brake import TIMED
from profilers.collect import Recording, current, new_recording
from profilers.plugin import Need, Profiler, call_hook
from profilers.profile import Profile

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger("profilers")

DEFAULT = "queries,nplusone"
_timed = itertools.cycle([True, *[False] * (TIMED - 1)])
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_NO_ENVIRON: WSGIEnvironment = {}


class Active:
    """Which profilers run now, and for which requests; made once, swapped whole, never changed."""

    __slots__ = ("draw", "finishers", "needs", "profilers", "starters", "wants")

    def __init__(
        self,
        profilers: Iterable[Profiler[Any]],
        draw: Callable[[], Active | None] | None = None,
        wants: Callable[[str], bool] | None = None,
    ) -> None:
        self.profilers = tuple(profilers)
        self.draw = draw
        """Asked as a request begins what runs for it instead; None leaves it alone (sampling)."""
        self.wants = wants
        """Asked with `GET /rule` once the request is routed; False drops it (patterns of endpoints)."""
        self.needs: frozenset[Need] = frozenset().union(*(profiler.needs for profiler in self.profilers))
        self.starters = self._overriding("on_start")
        self.finishers = self._overriding("on_finish")

    def profilers_of(self, name: str) -> tuple[Profiler[Any], ...]:
        """Those that are for the endpoint called `name`."""
        return self.profilers

    def _overriding(self, hook: str) -> tuple[Profiler[Any], ...]:
        inherited = getattr(Profiler, hook)
        return tuple(each for each in self.profilers if getattr(type(each), hook) is not inherited)


def examine(recording: Recording, profilers: Iterable[Profiler[Any]]) -> None:
    """Turn what was collected into findings; whatever a profiler does, the profile is whole afterwards."""
    recording.complete()
    for profiler in profilers:
        call_hook(profiler, "examine", recording)


@contextmanager
def record(name: str, profile: str | Sequence[str] = DEFAULT, engine: Any = None) -> Iterator[Profile]:
    """Profile the block; the yielded profile is complete, findings and all, when the block has ended.

    Args:
        name: what the block is called in reports.
        profile: names of profilers. Their options are those of the current app, else the environment's.
        engine: collect only this engine's statements; all engines' by default.

    A block within another, or within a request, is part of both. In an app whose profilers are on, the
    profile is stored as well. The first `record` of a process registers listeners with SQLAlchemy: in a
    program with threads, let one run before they start.

    Raises:
        ConfigError: no such profiler, or a wrong option.
    """
    extension = current_app.extensions.get("profilers") if current_app else None
    active = Active(_profilers(options.split_names(profile), extension))
    listeners.install(active.needs)
    recording = new_recording(name, "block", active.needs, current.get())
    recording.dialect = engine.dialect if engine is not None else None
    token = current.set(recording)
    for profiler in active.starters:
        call_hook(profiler, "on_start", recording)
    try:
        yield recording
    except BaseException:
        recording.outcome = "raised"
        raise
    finally:
        current.reset(token)
        for profiler in active.finishers:
            call_hook(profiler, "on_finish", recording)
        recording.finish()
        examine(recording, active.profilers)
        if extension is not None:
            extension.deliver(recording)


def _profilers(names: tuple[str, ...], extension: Any) -> list[Profiler[Any]]:
    running = {profiler.name: profiler for profiler in extension.profilers} if extension else {}
    config = current_app.config if current_app else {}
    return [running.get(name) or options.create(name, config) for name in names]


def record_request(
    app: WSGIApplication,
    environ: WSGIEnvironment,
    start_response: StartResponse,
    active: Active,
    deliver: Callable[[Recording], None],
    *,
    noted: bool = False,
) -> Iterable[bytes]:
    """Call a WSGI app and profile what it does until its body is closed, the streaming of it included.

    For a Flask app, `watching` names the profile and spares a whole body the watching.

    Args:
        deliver: takes the finished profile in the request's thread, unexamined, be it `dropped` or not.
        noted: `watching` and `answering` see every answer, so the server's need not be listened to.
    """
    timed = next(_timed)
    entered = time.thread_time() if timed else 0.0
    outer = current.get()
    while outer is not None and outer.kind != "block":
        outer = outer.outer
    recording = new_recording("", "request", active.needs, outer)
    recording.active = active
    recording.environ = environ
    token = current.set(recording)
    for profiler in active.starters:
        call_hook(profiler, "on_start", recording)

    if timed:
        recording.timed = True
        recording.hooks = time.thread_time() - entered
    try:
        iterable = app(environ, start_response if noted else _noting_status(recording, start_response))
    except BaseException:
        recording.outcome = "raised"
        _end(recording, deliver)
        raise
    finally:
        current.reset(token)
    response = recording.response
    whole = False
    if response is not None:
        status = response.status_code
        if noted:
            recording.status = status
        # The page of an error arrives as an iterator, although nothing of it is still to be computed.
        whole = isinstance(response.response, (list, tuple)) or (
            status >= 400 and response.content_length is not None
        )
    if whole or recording.dropped or _is_file(iterable, environ):
        _end(recording, deliver)
        return iterable
    return Body(recording, iterable, deliver)


def _noting_status(recording: Recording, start_response: StartResponse) -> StartResponse:
    def noting(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        recording.status = int(status[:3])
        return start_response(status, headers, *exc_info)

    return noting


def _is_file(iterable: Iterable[bytes], environ: WSGIEnvironment) -> bool:
    """Whether nothing is computed while it is sent; servers use sendfile if they get their wrapper back."""
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(iterable, wrapper)


def _end(recording: Recording, deliver: Callable[[Recording], None]) -> None:
    """Finish the profile and hand it on, once."""
    if recording.finished:
        return
    if not recording.name:  # Flask was not reached
        recording.name = request_name(recording.environ["REQUEST_METHOD"], None)
    recording.environ, recording.response = _NO_ENVIRON, None
    timed = recording.timed
    entered = time.thread_time() if timed else 0.0
    for profiler in recording.active.finishers:
        call_hook(profiler, "on_finish", recording)
    recording.finish()
    if timed:
        recording.hooks += time.thread_time() - entered
    try:
        deliver(recording)
    except Exception:
        log.exception("a finished profile could not be handed on; the app is not affected")


@lru_cache(maxsize=4096)
def request_name(method: str, rule: str | None) -> str:
    """`GET /services/<id>`: never the URL, and never a method that the client made up."""
    return f"{method if method in _METHODS else 'OTHER'} {rule or '(no route)'}"


SLOT = "profilers.slot"
"""Where the environment of a request that is not profiled has what ends its note."""


def watching(
    full_dispatch_request: Callable[..., Any], begin: Callable[[str, float], int]
) -> Callable[..., Any]:
    """Flask's `full_dispatch_request` that names the profile, or lets go of it, and notes the answer.

    A method rather than functions in `before_request` and `after_request`: Flask would look up proxies for
    those, and inspect whether they are coroutines, at each request.

    Args:
        begin: is told the name of every request, profiled or not, and when it began; see `Worker.begin`.
    """

    def watched(*args: Any) -> Any:
        recording = current.get()
        if recording is None or recording.active is None:  # not profiled, or all it has around it is a block
            rule = current_request.url_rule
            name = request_name(current_request.method, rule.rule if rule is not None else None)
            current_request.environ[SLOT] = begin(name, time.time())
            return full_dispatch_request(*args)
        # Werkzeug's key: asking Flask's `request` would cost as much as all the rest of this.
        request = recording.environ.get("werkzeug.request") or current_request
        rule = request.url_rule
        if rule is not None:
            recording.endpoint = rule.endpoint
        recording.name = name = request_name(request.method, rule.rule if rule is not None else None)
        recording.slot = begin(name, recording.started_at)
        wants = recording.active.wants
        if wants is not None and not wants(name):
            recording.dropped = True
            current.set(recording.outer)
        recording.response = response = full_dispatch_request(*args)
        return response

    return watched


def answering(handle_exception: Callable[..., Any]) -> Callable[..., Any]:
    """For Flask's `handle_exception`, whose answers have not come through `full_dispatch_request`."""

    def answered(*args: Any) -> Any:
        response = handle_exception(*args)
        recording = current.get()
        if recording is not None and recording.active is not None:  # else all it has around it is a block
            recording.response = response
        return response

    return answered


class Body:
    """The response's body: statements that run while it is produced belong to the request."""

    __slots__ = ("_close", "_deliver", "_next", "_recording")

    def __init__(
        self, recording: Recording, iterable: Iterable[bytes], deliver: Callable[[Recording], None]
    ) -> None:
        self._recording = recording
        self._deliver = deliver
        self._next = iter(iterable).__next__
        self._close = getattr(iterable, "close", None)

    def __iter__(self) -> Body:
        return self

    def __next__(self) -> bytes:
        token = current.set(self._recording)
        try:
            return self._next()
        except StopIteration:
            raise
        except BaseException:
            self._recording.outcome = "raised"
            raise
        finally:
            current.reset(token)

    def close(self) -> None:
        """Called by the server when the body is sent, or the client has gone."""
        token = current.set(self._recording)
        try:
            if self._close is not None:
                self._close()
        finally:
            current.reset(token)
            _end(self._recording, self._deliver)

    def __del__(self) -> None:
        """A body that nobody closed, as in Flask's test client, ends when it is dropped."""
        _end(self._recording, self._deliver)
