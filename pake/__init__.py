"""The PAKE service: `create_app()` is the factory, and nothing else is here."""

from __future__ import annotations

import sys

from apiflask import APIFlask
from flask import g, request
from sqlalchemy import event
from structlog.contextvars import bind_contextvars, clear_contextvars

from pake import capacity, errors, logs, metrics, replica
from pake.auth import hashing, tokens
from pake.auth.views import bp as auth
from pake.breaker import Breaker
from pake.cli import cli
from pake.config import Settings, SettingsError, load_settings
from pake.database import (
    Service,
    begin_transaction,
    database_url,
    end_transaction,
    engine_options,
    longest_wait,
)
from pake.extensions import db, limiter, limiter_config, migrate
from pake.guard import REQUEST_ID, Guard
from pake.json import OrjsonProvider
from pake.registry.views import bp as registry
from pake.system import openapi
from pake.system.views import bp as system
from profilers import ConfigError, Profilers

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

    app = Service(
        __name__,
        static_folder=None,  # type: ignore[arg-type]  # Flask's own type allows it
        title="PAKE",
        version=__version__,
        json_errors=False,
        docs_path=None,
    )
    app.json = OrjsonProvider(app)
    meters = metrics.Meters()
    breaker = Breaker(longest_wait(settings))
    pool = breaker.pool_class(meters.pool_class(settings.database_pool_timeout_seconds))
    app.extensions["pake"] = settings
    app.config.update(
        MAX_CONTENT_LENGTH=settings.max_content_length,
        SQLALCHEMY_DATABASE_URI=url,
        SQLALCHEMY_ENGINE_OPTIONS=engine_options(settings) | {"poolclass": pool},
        SQLALCHEMY_BINDS=replica.bind(settings),
        PROFILE_STORE=str(settings.instance_path.resolve() / "profiles"),
        PROFILE_CONSOLE=settings.flask_profile_console,
        PROFILE_CONSOLE_TOKEN=settings.console_token,
        PROFILE_QUERIES_MAX_STATEMENTS=settings.max_queries_per_request,
        PROFILE_SLOW_QUERIES_THRESHOLD_MS=settings.slow_query_threshold_ms,
        **limiter_config(settings),
    )

    @app.before_request
    def name_the_request() -> None:
        g.request_id = request.environ[REQUEST_ID]
        clear_contextvars()
        bind_contextvars(request_id=g.request_id)

    db.init_app(app)
    app.teardown_appcontext(end_transaction)
    migrate.init_app(app)
    limiter.init_app(app)
    tokens.init_app(app, settings)
    hashing.init_app(app, settings)
    errors.init_app(app)
    openapi.init_app(app)
    app.register_blueprint(system)
    app.register_blueprint(auth)
    app.register_blueprint(registry)
    app.cli.add_command(cli)
    try:
        Profilers(app, settings.profilers)
    except ConfigError as error:
        sys.exit(error.message)

    host = settings.bind.rpartition(":")[0]
    app.wsgi_app = Guard(  # type: ignore[method-assign]
        app.wsgi_app, {*settings.allowed_hosts, host}, settings.max_content_length
    )
    metrics.init_app(app, meters)
    replica.init_app(app, settings)
    with app.app_context():
        meters.watch(db.engine)
        breaker.watch(db.engine)
        event.listen(db.engine, "begin", begin_transaction)
        demand = capacity.Demand(1, settings.workers, settings.database_pool_size)
        capacity.watch(db.engine, demand)
    return app
