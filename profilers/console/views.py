"""The console's pages. Each is a function that gathers plain data; what is shown is also JSON at the page's
address with `.json` at its end (`/__profilers__/findings` and `/__profilers__/findings.json`).
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, abort, redirect, render_template, request, url_for
from werkzeug.exceptions import HTTPException

from profilers import comparison, options, switches
from profilers.console import capture, figures
from profilers.console.access import COOKIE, SIGNED_IN_SECONDS, Access, is_same_origin
from profilers.console.source import excerpt
from profilers.console.workers import leak_verdict, workers_seen
from profilers.reports.units import moment, plural, seconds, share, shortened, visible
from profilers.store import FindingRow, Period, ProfileRow, Reader, Store, StoreError
from profilers.switches import SwitchError, parse_seconds, parse_share

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

    from profilers.worker_slots import WorkerSlots

log = logging.getLogger("profilers.console")

PERIODS = {"10m": 600.0, "1h": 3600.0, "6h": 6 * 3600.0, "1d": 86400.0, "7d": 7 * 86400.0, "all": None}
POINTS = 24
ENDPOINTS, FINDINGS, REQUESTS, STATEMENTS, RUNS = 100, 20, 50, 60, 80
"""Rows on a page."""
COMPARED = 600
"""Newest requests of each of the two periods that are compared."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Vary": "Cookie",
}


@dataclass(frozen=True)
class Source:
    """What the console shows."""

    reader: Reader
    store: Store | None = None
    """What can be switched and cleared; None of a capture."""
    slots: WorkerSlots | None = None
    root: Path | None = None
    """Only files below it are quoted; None quotes none."""
    configured: Sequence[str] = ()
    """The profilers of the configuration."""
    before: Reader | None = None
    """A second capture, that this one is compared with."""
    title: str = ""
    """Of a capture."""


Data = dict[str, Any]


def create_console(source: Source, allows: Callable[[Any], bool], access: Access | None = None) -> Flask:
    """The console as a WSGI app; `allows` is asked at each request, and a refusal is a 404.

    With `access`, a browser can sign in at the console's first page.
    """
    app = Flask(__name__.rpartition(".")[0], static_url_path="/static")
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters |= {
        "seconds": seconds, "moment": moment, "plural": plural, "shortened": shortened, "visible": visible,
        "megabytes": lambda size: f"{size / 1e6:.1f} MB", "ago": ago,
        "words": lambda text: text.replace("_", " "),
    }  # fmt: skip
    app.jinja_env.globals |= {"share": share, "figures": figures, "source": source, "periods": PERIODS}

    @app.before_request
    def refuse() -> AnyResponse | tuple[str, int] | None:
        if allows(request):
            if request.method != "GET" and not is_same_origin(request):
                abort(403)
            return None
        if access is None or request.path != "/":
            abort(404)
        if (
            request.method == "POST"
            and is_same_origin(request)
            and access.is_token(request.form.get("token", ""))
        ):
            answer = redirect(url_for("overview"), 303)
            answer.set_cookie(
                COOKIE, access.cookie(), max_age=SIGNED_IN_SECONDS, httponly=True, samesite="Strict",
                secure=request.is_secure, path=(request.script_root.rpartition("/")[0] or "/"),
            )  # fmt: skip
            return answer
        return render_template("sign_in.html", wrong=request.method == "POST"), 404

    @app.after_request
    def guard(response: Response) -> Response:
        response.headers.update(HEADERS)
        return response

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Any:
        if error.code == 404 and not allows(request):
            return error
        return _message(error.name, error.description or "", error.code or 500)

    @app.errorhandler(StoreError)
    @app.errorhandler(sqlite3.Error)
    def store_error(error: Exception) -> Any:
        log.warning("the store cannot be read: %s", error)
        return _message("The store cannot be read", str(error), 503)

    @app.errorhandler(SwitchError)
    @app.errorhandler(comparison.ComparisonError)
    def user_error(error: Exception) -> Any:
        return _message("That cannot be done", str(error), 400)

    _add_pages(app, source)
    if source.store is not None:
        _add_actions(app, source.store)
    return app


def _add_pages(app: Flask, source: Source) -> None:
    def page(rule: str, name: str, gather: Callable[..., Data]) -> None:
        def html(**arguments: Any) -> str:
            data = gather(source, **arguments)
            return visible(render_template(f"{name}.html", page=name, asked=_asked(source), **data))

        def as_json(**arguments: Any) -> Response:
            text = json.dumps(_plain(gather(source, **arguments)), default=str)
            return Response(text, mimetype="application/json")

        app.add_url_rule(rule, name, html)
        app.add_url_rule(f"{rule if rule != '/' else '/overview'}.json", f"{name}_json", as_json)

    page("/", "overview", overview)
    page("/findings", "findings", findings)
    page("/requests", "requests", requests)
    page("/requests/<profile_id>", "request", one_request)
    page("/statements", "statements", statements)
    page("/workers", "workers", workers)
    page("/compare", "compare", compare)
    if source.store is not None:
        page("/switches", "switches", switched)

    @app.get("/capture.json")
    def save_capture() -> Response:
        text = capture.save(source.reader, _period(source), int(time.time()))
        name = time.strftime("capture-%Y%m%d-%H%M%S.json", time.localtime())
        return Response(
            text, mimetype="application/json", headers={"Content-Disposition": f"attachment; filename={name}"}
        )


def _add_actions(app: Flask, store: Store) -> None:
    def back() -> AnyResponse:
        return redirect(url_for("switches"), 303)

    @app.post("/switches/on")
    def turn_on() -> AnyResponse:
        form = request.form
        names = form.getlist("profiler")
        if not names and "resume" not in form:
            raise SwitchError("no profiler was chosen")
        switches.turn_on(
            store,
            names,
            form.get("endpoint", "").strip() or switches.ALL,
            parse_share(form.get("sample", "100%")),
            parse_seconds(form.get("for", "10m")),
            known=options.available(),
        )
        return back()

    @app.post("/switches/off")
    def turn_off() -> AnyResponse:
        names = request.form.getlist("profiler")
        switches.turn_off(store, names, known=options.available())
        return back()

    @app.post("/clear")
    def clear() -> AnyResponse:
        store.clear()
        return redirect(url_for("overview"), 303)


def overview(source: Source) -> Data:
    """Endpoints, most total time first."""
    rows = source.reader.endpoints(_period(source), points=POINTS)
    first = _first()
    return {
        "endpoints": rows[first : first + ENDPOINTS],
        "requests": sum(row.requests for row in rows),
        "errors": sum(row.errors for row in rows),
        "time": sum(row.timings["total"] for row in rows),
        "database": sum(row.timings.get("database", 0.0) for row in rows),
        "findings": len(source.reader.findings(_period(source))),
        "left_out": {kind: count for kind, count in source.reader.left_out().items() if count},
        "next": _next(rows, first, ENDPOINTS),
    }


def findings(source: Source) -> Data:
    """What to mend, most time lost first, each with its lines of source."""
    rows = source.reader.findings(_period(source))
    kinds = sorted({row.finding.kind for row in rows})
    if kind := request.args.get("kind"):
        rows = [row for row in rows if row.finding.kind == kind]
    first = _first()
    return {
        "findings": [
            {
                **asdict(row),
                "finding": row.finding,
                "origin_source": excerpt(source.root, row.finding.origin),
                "location_source": excerpt(source.root, row.finding.location),
            }
            for row in rows[first : first + FINDINGS]
        ],
        "kinds": kinds,
        "kind": kind,
        "next": _next(rows, first, FINDINGS),
    }


def requests(source: Source) -> Data:
    """Single requests, newest first; the next page begins before the last row's id."""
    rows = source.reader.profiles(_period(source), limit=REQUESTS + 1, before=request.args.get("before"))
    return {"requests": rows[:REQUESTS], "before": rows[REQUESTS - 1].id if len(rows) > REQUESTS else None}


def one_request(source: Source, profile_id: str) -> Data:
    """One request: its layers, its statements in order, its findings, its call stack, its memory."""
    profile = source.reader.profile(profile_id)
    if profile is None:
        abort(404, "There is no such request (any more). One that has just ended is here in a second.")
    found = figures.runs(profile)
    first = _first()
    return {
        "profile": profile,
        "layers": figures.layers(profile),
        "runs": found[first : first + RUNS],
        "findings": [
            {
                "finding": finding,
                "origin_source": excerpt(source.root, finding.origin),
                "location_source": excerpt(source.root, finding.location),
            }
            for finding in profile.findings[:FINDINGS]
        ],
        "flame": figures.flame(profile.sections.get("pyinstrument", {})),
        "next": _next(found, first, RUNS),
    }


def statements(source: Source) -> Data:
    """Statement shapes across endpoints, most total time first, with the plans of the slow ones."""
    first = _first()
    rows = source.reader.statements(_period(source), limit=first + STATEMENTS + 1)
    plans = {
        row.finding.subject: row.finding.details["plan"]
        for row in source.reader.findings(_period(source))
        if row.finding.details.get("plan")
    }
    return {
        "statements": [
            {**asdict(row), "plan": plans.get(row.shape, [])} for row in rows[first : first + STATEMENTS]
        ],
        "total": sum(row.duration for row in rows),
        "next": _next(rows, first, STATEMENTS),
    }


def workers(source: Source) -> Data:
    """What each worker does now, what profiling costs it, and its memory over time."""
    period = _period(source)
    recent = time.time() - 6 * 3600
    if source.store is not None and (period.since is None or period.since < recent):
        period = replace(period, since=recent)
    status = switches.status(source.store) if source.store is not None else None
    running = source.slots.running() if source.slots is not None else []
    memory = source.reader.memory(period)
    return {
        "workers": workers_seen(status.workers if status else (), running, memory),
        # Judging needs a library of statistics, which would show in the memory of the worker that loads it.
        "leak": leak_verdict(memory) if source.store is None else None,
        "lost": [
            row for row in source.reader.findings(_period(source)) if row.finding.kind == "lost_request"
        ],
    }


def compare(source: Source) -> Data:
    """Two captures, or the newest part of the time against as much before it."""
    if source.before is not None:
        return {"compared": comparison.compare(source.before, source.reader), "length": None, "ends": None}
    name = request.args.get("length", "1h")
    length = PERIODS.get(name) or 3600.0
    ends = _number("until") or time.time()
    ends = min(ends, time.time())
    endpoint = request.args.get("route") or None
    before = Period(ends - 2 * length, ends - length, endpoint)
    after = Period(ends - length, ends, endpoint)
    try:
        compared = comparison.compare(
            _Slice(source.reader, before), _Slice(source.reader, after), (_shown(before), _shown(after))
        )
    except comparison.ComparisonError as error:
        return {"compared": None, "why": str(error), "length": name, "before": before, "after": after}
    return {"compared": compared, "length": name, "before": before, "after": after}


def switched(source: Source) -> Data:
    """What is on and until when, and what there is to switch."""
    assert source.store is not None
    status = switches.status(source.store)
    now = time.time()
    return {
        "on": [{**asdict(switch), "left": switch.until - now} for switch in status.switches.on],
        "off": [
            {"profiler": name, "left": until and until - now} for name, until in status.switches.off.items()
        ],
        "configured": source.configured,
        "known": sorted(options.available()),
        "workers": len(status.workers),
    }


@dataclass(frozen=True)
class _Slice:
    """A reader of one period, for the comparison."""

    reader: Reader
    period: Period

    def profiles(self, *, limit: int) -> Sequence[ProfileRow]:
        return self.reader.profiles(self.period, limit=min(limit, COMPARED))

    def findings(self) -> Sequence[FindingRow]:
        return self.reader.findings(self.period)


def ago(at: float) -> str:
    """`now`, `12 s ago`, `3 min ago`, `5 h ago`, `2 days ago`."""
    passed = time.time() - at
    for size, unit in ((86400 * 2, 86400), (7200, 3600), (120, 60), (3, 1)):
        if passed >= size:
            return f"{passed / unit:.0f} {_UNITS[unit]} ago"
    return "now"


_UNITS = {86400: "days", 3600: "h", 60: "min", 1: "s"}


def _asked(source: Source) -> Mapping[str, str]:
    """What of the address goes on with every link: the period and the endpoint."""
    kept = {"last": request.args.get("last"), "route": request.args.get("route")}
    return {name: value for name, value in kept.items() if value}


def _period(source: Source) -> Period:
    name = request.args.get("last") or ("1h" if source.store is not None else "all")
    if name not in PERIODS:
        abort(400, f"last={name[:20]}: expected one of {', '.join(PERIODS)}")
    length = PERIODS[name]
    since = time.time() - length if length else None
    return Period(since=since, name=request.args.get("route") or None)


def _first() -> int:
    return int(_number("from") or 0)


def _number(name: str) -> float | None:
    text = request.args.get(name)
    if not text:
        return None
    if not text.isdigit() or len(text) > 12:
        abort(400, f"{name}={text[:20]}: expected a whole number")
    return float(text)


def _next(rows: Sequence[Any], first: int, size: int) -> int | None:
    return first + size if len(rows) > first + size else None


def _shown(period: Period) -> str:
    return f"{moment(period.since or 0)} to {moment(period.until or 0)}"


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _message(title: str, text: str, status: int) -> Any:
    if request.path.endswith(".json"):
        return Response(json.dumps({"error": title, "detail": text}), status, mimetype="application/json")
    return visible(render_template("message.html", page="", asked={}, title=title, text=text)), status
