"""The Flask extensions, created once and bound to the app by the factory."""

from __future__ import annotations

from pathlib import Path

from flask import Flask, current_app
from flask_jwt_extended import JWTManager
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase
from werkzeug.local import LocalProxy

from pake.config import Settings


class Base(DeclarativeBase):
    """The base of every model; constraints get names that a migration can refer to."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class RouteLimiter(Limiter):
    """Flask-Limiter that works on the routes with a limit alone: those ask for themselves.

    Its hooks for limits of the whole app, headers and deductions afterwards, of which there are none, would
    cost every other route as much time as all its own work.
    """

    def init_app(self, app: Flask) -> None:
        """Bind it to the app."""
        super().init_app(app)
        for hooks in (app.before_request_funcs, app.after_request_funcs, app.teardown_request_funcs):
            hooks[None].pop()


db = SQLAlchemy(model_class=Base)
migrate = Migrate(db=db, directory=str(Path(__file__).with_name("migrations")))
jwt = JWTManager()
limiter = RouteLimiter(get_remote_address)

REDIS_SECONDS = 0.2
"""How long Redis may take to answer: it counts, and that is not worth a wait."""

settings: Settings = LocalProxy(lambda: current_app.extensions["pake"])  # type: ignore[assignment]
"""The settings of the current app."""


def limiter_config(settings: Settings) -> dict[str, object]:
    """Flask-Limiter's configuration: Redis if there is one, and no request fails or waits because it is away.

    The first request that gets no answer from it pays the time-out; then the worker counts for itself, and
    asks again after 1, 2, 4 … 32 seconds.
    """
    if settings.redis_url is None:
        return {"RATELIMIT_STORAGE_URI": "memory://"}
    from redis.backoff import NoBackoff  # installed only where REDIS_URL is set
    from redis.retry import Retry

    url = settings.redis_url.get_secret_value()
    return {
        "RATELIMIT_STORAGE_URI": url.replace("unix://", "redis+unix://", 1),
        "RATELIMIT_STORAGE_OPTIONS": {
            "socket_connect_timeout": REDIS_SECONDS,
            "socket_timeout": REDIS_SECONDS,
            "retry": Retry(NoBackoff(), 0),  # redis-py tries three more times, with pauses
            "wrap_exceptions": True,
        },
        "RATELIMIT_IN_MEMORY_FALLBACK_ENABLED": True,
        "RATELIMIT_SWALLOW_ERRORS": True,
    }
