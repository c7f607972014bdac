"""A small badge in the corner of the app's own pages: statements, time, findings; a click shows the request.

Only those who may see the console get it, only in whole HTML pages, and only where the app's
Content-Security-Policy lets a stylesheet of the app's own origin in: it has no script and no inline style.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, request
from markupsafe import Markup, escape

from profilers.collect import current
from profilers.console.access import Access
from profilers.reports.units import plural, seconds
from profilers.server_timing import seen_so_far
from profilers.storage.batch import new_id

log = logging.getLogger("profilers")

END = b"</body>"


def install(app: Flask, access: Access, prefix: str) -> None:
    """Add the badge to the app's pages, unless `PROFILE_CONSOLE_BADGE` is false."""
    failed = False
    process_response: Callable[..., Any] = app.process_response

    def with_badge(*args: Any) -> Any:
        nonlocal failed
        response = process_response(*args)
        try:
            recording = current.get()
            if recording is not None and is_page(response) and access.allows(request):
                recording.id = recording.id or new_id(recording.started_at)
                add(response, str(_markup(recording, request.script_root + prefix)).encode())
        except Exception:
            if not failed:
                log.exception("the console's badge failed; the page goes out without it")
            failed = True
        return response

    app.process_response = with_badge  # type: ignore[method-assign, assignment]


def is_page(response: Response) -> bool:
    """Whether it is a whole page of HTML that may hold the badge."""
    return (
        response.mimetype == "text/html"
        and request.method == "GET"
        and response.is_sequence
        and not response.direct_passthrough
        and "Content-Encoding" not in response.headers
        and all(
            _allows_style(policy)
            for header in response.headers.getlist("Content-Security-Policy")
            for policy in header.split(",")
        )
        and END in response.get_data()
    )


def add(response: Response, markup: bytes) -> None:
    """Put the markup at the end of the page's body; no cache may show it to anybody else."""
    before, end, after = response.get_data().rpartition(END)
    response.set_data(before + markup + end + after)
    response.headers.pop("ETag", None)
    response.cache_control.private = True
    response.cache_control.no_store = True


def _markup(recording: Any, root: str) -> Markup:
    seen = seen_so_far(recording)
    passed = time.perf_counter() - recording.begun
    findings = f" · {plural(len(seen.findings), 'finding')}" if seen.findings else ""
    return Markup(
        '<link rel="stylesheet" href="{root}/static/badge.css">'
        '<a class="flask-profilers-badge{alarm}" href="{root}/requests/{id}">'
        "{statements} · {time}{findings}</a>"
    ).format(
        root=escape(root),
        alarm=" flask-profilers-alarm" if seen.findings else "",
        id=recording.id,
        statements=plural(seen.statement_count, "statement"),
        time=seconds(passed),
        findings=findings,
    )


def _allows_style(policy: str) -> bool:
    """Whether a policy lets stylesheets of the page's own origin in (CSP 3, section 6.1)."""
    directives: dict[str, list[str]] = {}
    for directive in policy.split(";"):
        name, *sources = directive.lower().split() or [""]
        directives.setdefault(name, sources)
    for name in ("style-src-elem", "style-src", "default-src"):
        if name in directives:
            return "'self'" in directives[name] or "*" in directives[name]
    return True
