"""The console as a WSGI app: who is let in, which addresses there are, and what is changed by POST.

Each page is a template over the data that a function of `views.py` gathered; the same data is JSON at the
page's address with `.json` at its end (`/__profilers__/findings` and `/__profilers__/findings.json`).
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, abort, redirect, render_template, request, url_for
from werkzeug.exceptions import HTTPException

from profilers import comparison, options, switches
from profilers.console import capture, capturing, figures, views
from profilers.console.access import COOKIE, SIGNED_IN_SECONDS, Access, is_same_origin
from profilers.console.views import Data, Source
from profilers.reports.units import moment, plural, seconds, share, shortened, visible
from profilers.store import Store, StoreError
from profilers.switches import SwitchError, parse_seconds, parse_share

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

log = logging.getLogger("profilers.console")

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


def create_console(source: Source, allows: Callable[[Any], bool], access: Access | None = None) -> Flask:
    """The console as a WSGI app; `allows` is asked at each request, and a refusal is a 404.

    With `access`, a browser can sign in at the console's first page.
    """
    app = Flask(__name__.rpartition(".")[0], static_url_path="/static")
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters |= {
        "seconds": seconds, "moment": moment, "plural": plural, "shortened": shortened, "visible": visible,
        "megabytes": lambda size: f"{size / 1e6:.1f} MB", "ago": views.ago,
        "words": lambda text: text.replace("_", " "),
    }  # fmt: skip
    app.jinja_env.globals |= {"share": share, "figures": figures, "source": source, "periods": views.PERIODS}

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
        _add_actions(app, source, source.store)
    return app


def _add_pages(app: Flask, source: Source) -> None:
    def page(rule: str, name: str, gather: Callable[..., Data]) -> None:
        def html(**arguments: Any) -> str:
            data = gather(source, **arguments)
            return visible(render_template(f"{name}.html", page=name, asked=_asked(), **data))

        def as_json(**arguments: Any) -> Response:
            text = json.dumps(_plain(gather(source, **arguments)), default=str)
            return Response(text, mimetype="application/json")

        app.add_url_rule(rule, name, html)
        app.add_url_rule(f"{rule if rule != '/' else '/overview'}.json", f"{name}_json", as_json)

    page("/", "overview", views.overview)
    page("/findings", "findings", views.findings)
    page("/requests", "requests", views.requests)
    page("/requests/<profile_id>", "request", views.one_request)
    page("/statements", "statements", views.statements)
    page("/workers", "workers", views.workers)
    page("/compare", "compare", views.compare)
    if source.store is not None:
        page("/captures", "captures", views.captures)
        page("/switches", "switches", views.switched)

    @app.get("/capture.json")
    def save_capture() -> Response:
        text = capture.save(source.reader, views.period_of(source), int(time.time()))
        return _file(text, time.time())


def _add_actions(app: Flask, source: Source, store: Store) -> None:
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

    @app.get("/captures/<identity>.json")
    def capture_file(identity: str) -> Response:
        text = capturing.text(store, identity)
        if text is None:
            abort(404, "There is no such capture (any more).")
        row = next(row for row in capturing.captures(store) if row.id == identity)
        return _file(text, row.started_at)

    @app.post("/captures/start")
    def start_capture() -> AnyResponse:
        form = request.form
        endpoint = form.get("endpoint", "").strip() or switches.ALL
        seconds = parse_seconds(form.get("for", "5m"))
        names = form.getlist("profiler")
        if not names and not views.running_profilers(source):
            raise SwitchError("no profiler runs, and none was chosen")
        capturing.start(store, names, endpoint, seconds, known=options.available())
        return redirect(url_for("captures"), 303)

    @app.post("/captures/stop")
    def stop_capture() -> AnyResponse:
        capturing.stop(store)
        return redirect(url_for("captures"), 303)

    @app.post("/captures/<identity>/delete")
    def delete_capture(identity: str) -> AnyResponse:
        capturing.delete(store, identity)
        return redirect(url_for("captures"), 303)

    @app.post("/clear")
    def clear() -> AnyResponse:
        store.clear()
        return redirect(url_for("overview"), 303)


def _file(text: str, at: float) -> Response:
    name = time.strftime("capture-%Y%m%d-%H%M%S.json", time.localtime(at))
    headers = {"Content-Disposition": f"attachment; filename={name}"}
    return Response(text, mimetype="application/json", headers=headers)


def _asked() -> Mapping[str, str]:
    """What of the address goes on with every link: the period and the endpoint."""
    kept = {"last": request.args.get("last"), "route": request.args.get("route")}
    return {name: value for name, value in kept.items() if value}


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
