"""The web console: open `/__profilers__/`, see which endpoint hurts, click to the line, copy the fix.

    FLASK_PROFILE=queries,nplusone FLASK_PROFILE_CONSOLE=1 flask run

It stands in front of the app, not in it: a small WSGI app of its own. None of the hooks, error
pages and headers of the app touch it, no profiler sees it, and looking at it changes none of its figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Flask, Request

from profilers import options
from profilers.console import access, badge
from profilers.console.app import create_console
from profilers.console.capturing import Saver
from profilers.console.views import Source
from profilers.store import default_folder

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from profilers.worker import Worker

PREFIX = "/__profilers__"


def mount(app: Flask, worker: Worker, start_worker: Callable[[], None]) -> None:
    """Put the console in front of the app.

    Raises:
        ConfigError: a setting is wrong, or the token cannot be kept.
    """
    path = worker.store.database.path
    folder = path.parent if path is not None else default_folder(app.instance_path)
    try:
        rule = access.create(app, folder)
    except OSError as error:
        raise options.ConfigError(f"the console's token cannot be kept in {folder}: {error}") from error

    def allows(request: Request) -> bool:
        with app.request_context(request.environ[_AS_THE_APP_HAS_IT]):
            return rule.allows(request)

    console = create_console(
        Source(
            reader=worker.store,
            store=worker.store,
            slots=worker.slots,
            root=Path(app.root_path).resolve(),
            configured=worker.configured,
        ),
        allows,
        rule,
    )
    worker.writer.add_chore(Saver(worker.store))
    if options.flag("PROFILE_CONSOLE_BADGE", app.config, default=True):
        badge.install(app, rule, PREFIX)
    app.wsgi_app = _in_front(app.wsgi_app, console, start_worker)  # type: ignore[method-assign, assignment]


_AS_THE_APP_HAS_IT = "profilers.environ"


def _in_front(app: WSGIApplication, console: Flask, start_worker: Callable[[], None]) -> WSGIApplication:
    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path: str = environ.get("PATH_INFO", "")
        if path != PREFIX and not path.startswith(PREFIX + "/"):
            return app(environ, start_response)
        start_worker()
        moved: dict[str, Any] = {
            **environ,
            "SCRIPT_NAME": environ.get("SCRIPT_NAME", "") + PREFIX,
            "PATH_INFO": path[len(PREFIX) :] or "/",
            _AS_THE_APP_HAS_IT: environ,
        }
        return console(moved, start_response)

    return serve
