"""The PAKE service: `create_app()` is the factory, and nothing else is here."""

from __future__ import annotations

import sys

from apiflask import APIFlask
from flask import g, request
from structlog.contextvars import bind_contextvars, clear_contextvars

from pake import embedded, errors, logs
from pake.auth import models as auth_models  # noqa: F401 - so that migrations see its tables
from pake.config import Settings, SettingsError, load_settings
from pake.extensions import db, jwt, limiter, migrate
from pake.guard import REQUEST_ID, Guard
from pake.registry import models as registry_models  # noqa: F401 - so that migrations see its tables
from pake.system.views import bp as system

__version__ = "0.1.0"


def create_app(settings: Settings | None = None) -> APIFlask:
    """The service as a Flask app. Without settings they are read from the environment and `.env`.

    Mistakes in the environment end the process with one line each.
    """
    try:
        settings = settings or load_settings()
        url = database_url(settings)
    except SettingsError as error:
        sys.exit(str(error))
    logs.configure(settings)

    app = APIFlask(__name__, title="PAKE", version=__version__, json_errors=False, docs_path=None)
    app.extensions["pake"] = settings
    app.config.update(
        MAX_CONTENT_LENGTH=settings.max_content_length,
        SQLALCHEMY_DATABASE_URI=url,
        SQLALCHEMY_ENGINE_OPTIONS={
            "pool_size": settings.database_pool_size,
            "max_overflow": 0,
            "pool_timeout": settings.database_pool_timeout_seconds,
            "hide_parameters": True,
            "connect_args": {
                "connect_timeout": settings.database_connect_timeout_seconds,
                "options": f"-c statement_timeout={settings.database_statement_timeout_ms} -c timezone=UTC",
                "application_name": "pake",
            },
        },
        JWT_SECRET_KEY="x" * 32,
        RATELIMIT_STORAGE_URI="memory://",
        RATELIMIT_ENABLED=False,
    )
    db.init_app(app)
    migrate.init_app(app)
    jwt.init_app(app)
    limiter.init_app(app)
    errors.init_app(app)
    app.register_blueprint(system)

    @app.before_request
    def name_the_request() -> None:
        g.request_id = request.environ[REQUEST_ID]
        clear_contextvars()
        bind_contextvars(request_id=g.request_id)

    app.wsgi_app = Guard(app.wsgi_app)  # type: ignore[method-assign]
    return app


def database_url(settings: Settings) -> str:
    """The URL that is set, else that of the embedded PostgreSQL, which must be running.

    Raises SettingsError when there is neither.
    """
    if settings.database_url:
        return settings.database_url.get_secret_value()
    folder = settings.instance_path / "postgres"
    if url := embedded.status(folder).url:
        return url
    raise SettingsError(
        f"DATABASE_URL is not set and no embedded PostgreSQL runs in {folder}: start one with "
        f"`python -m pake.embedded run {folder}`, or run `gunicorn`, which starts it"
    )
