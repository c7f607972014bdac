"""The browser's network panel shows what the database cost: a `Server-Timing` header, for those you trust.

    FLASK_PROFILE_SERVER_TIMING_TOKEN=<secret>          callers that send it as X-Profile-Token get the header
    app.config["PROFILE_SERVER_TIMING"] = is_admin      or those for whom your function returns True

    Server-Timing: db;dur=12.4;desc="11 statements", pool;dur=0.1, total;dur=31.0, findings;desc="1"

Off unless one of them is set; nobody else ever gets the header. It is made when the view has returned, so
statements that run while the body streams are not in it (they are in the stored profile).
W3C Server Timing, https://www.w3.org/TR/server-timing/
"""

from __future__ import annotations

import copy
import hmac
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from flask import Flask, Response, request

from profilers import options
from profilers.collect import Recording, current
from profilers.recording import examine
from profilers.reports.units import plural

if TYPE_CHECKING:
    from profilers.recording import Active

log = logging.getLogger("profilers")

HEADER = "X-Profile-Token"
SHORTEST = 16
"""Characters of a token: a shorter one can be guessed."""
EXAMINERS = ("queries", "nplusone")
"""Whose findings are counted: the profilers that may look at a request twice."""


def install(app: Flask) -> None:
    """Add the header for authorised callers; without a setting, do nothing.

    Raises:
        ConfigError: the token is too short, or the function is none.
    """
    token = str(options.setting("PROFILE_SERVER_TIMING_TOKEN", app.config) or "")
    asked: Callable[[], bool] | None = app.config.get("PROFILE_SERVER_TIMING")
    if token and len(token) < SHORTEST:
        raise options.ConfigError(
            f"PROFILE_SERVER_TIMING_TOKEN has {len(token)} characters: expected {SHORTEST} or more"
        )
    if asked is not None and not callable(asked):
        raise options.ConfigError(f"PROFILE_SERVER_TIMING={asked!r}: expected a function that returns a bool")
    if not token and asked is None:
        return
    failed = False

    def authorised() -> bool:
        sent = request.headers.get(HEADER)
        if token and sent is not None and hmac.compare_digest(sent.encode(), token.encode()):
            return True
        return asked is not None and asked() is True

    def add_header(response: Response) -> Response:
        nonlocal failed
        recording = current.get()
        try:
            if recording is not None and recording.kind == "request" and authorised():
                response.headers.add("Server-Timing", timing(recording))
                response.vary.add("*")  # a cache must not show it to anybody else
        except Exception:
            if not failed:
                log.exception("Server-Timing failed; the response goes out without it")
            failed = True
        return response

    app.after_request_funcs.setdefault(None, []).insert(0, add_header)


def seen_so_far(recording: Recording) -> Recording:
    """A request that has not ended as it would be if it ended now, with the findings of `EXAMINERS`."""
    seen = copy.copy(recording)
    seen.findings, seen.sections = [], {}
    seen.timings, seen.counters = dict(recording.timings), dict(recording.counters)
    active: Active = recording.active
    examine(seen, (each for each in active.profilers_of(seen.name) if each.name in EXAMINERS))
    return seen


def timing(recording: Recording) -> str:
    """The header's value for a request that has not ended: durations in milliseconds."""
    seen = seen_so_far(recording)
    statements = plural(seen.statement_count, "statement")
    total = time.perf_counter() - recording.begun
    return ", ".join(
        (
            f'db;dur={_ms(seen.timings.get("database", 0.0))};desc="{statements}"',
            f"pool;dur={_ms(seen.timings.get('pool_wait', 0.0))}",
            f"total;dur={_ms(total)}",
            f'findings;desc="{len(seen.findings)}"',
        )
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"
