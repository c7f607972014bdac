"""Which PostgreSQL the service uses, how its connections are made, and what happens when it is away.

No request waits for ever: an established connection to a frozen server would, whatever `statement_timeout`,
`tcp_user_timeout` and keep-alives say, so psycopg2 waits here, with a deadline. A read that loses its
connection is tried once more.
"""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import sqlalchemy as sa
import structlog
from apiflask import APIFlask
from flask import g, request
from flask.typing import ResponseReturnValue
from psycopg2 import OperationalError
from psycopg2.extensions import POLL_OK, POLL_READ, connection, cursor, set_wait_callback
from sqlalchemy.exc import DBAPIError

from pake import embedded
from pake.config import Settings, SettingsError
from pake.extensions import db

log = structlog.get_logger(__name__)

GRACE_SECONDS = 0.5
"""How much longer than its time limit a statement is waited for: PostgreSQL's word says more than ours."""


class NoAnswer(OperationalError):  # noqa: N818 - what happened, in the log
    """The server is silent: frozen, or the network swallows what is sent. The connection is given up."""


class Connection(connection):
    """psycopg2's connection, that waits a limited time."""

    patience: float = math.inf
    """Seconds to wait for one answer."""

    autonomous: bool = False
    """Whether it is lent by `autocommit`."""

    told: tuple[Callable[[float], object], ...] = ()
    """Called after each statement with the seconds until its answer."""


class Cursor(cursor):
    """Tells how long each answer took. SQLAlchemy's own events for it cost as much as a short statement."""

    connection: Connection

    def execute(self, query: Any, vars: Any = None) -> None:
        """Send one statement."""
        began = time.perf_counter()
        super().execute(query, vars)
        self._answered(began)

    def executemany(self, query: Any, vars_list: Any) -> None:
        """Send one statement for each set of values."""
        began = time.perf_counter()
        super().executemany(query, vars_list)
        self._answered(began)

    def _answered(self, began: float) -> None:
        seconds = time.perf_counter() - began
        for tell in self.connection.told:
            tell(seconds)


def after_each_statement(engine: sa.Engine, tell: Callable[[float], object]) -> None:
    """Have it called, in the statement's thread, with the seconds that an answer to this engine took.

    SQLAlchemy's questions to a new server are not among them.
    """

    def connected(connection: Connection, _: object) -> None:
        connection.cursor_factory = Cursor
        connection.told = (*connection.told, tell)

    sa.event.listen(engine, "connect", connected)


def wait(connection: connection) -> None:
    """Until the server has answered. psycopg2 calls it, and closes the connection when it raises NoAnswer."""
    patience = getattr(connection, "patience", math.inf)
    deadline = time.monotonic() + patience
    while (state := connection.poll()) != POLL_OK:
        poller = select.poll()
        poller.register(connection.fileno(), select.POLLIN if state == POLL_READ else select.POLLOUT)
        remaining = None if patience == math.inf else max(0, deadline - time.monotonic()) * 1000
        if not poller.poll(remaining):
            raise NoAnswer(f"no answer from PostgreSQL within {patience:g} s")


def take_any_time(connection: sa.Connection) -> None:
    """Lift the limits that are for requests, from a transaction that is meant to be long."""
    connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
    if isinstance(driver := connection.connection.driver_connection, Connection):
        driver.patience = math.inf


class Service(APIFlask):
    """The app: a read whose connection breaks is tried once more, on a new one.

    Not after NoAnswer: its client has waited long enough.
    """

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """The function itself: none here is async, and Flask would look at eight of them in each request."""
        return func

    def dispatch_request(self) -> ResponseReturnValue:
        """Call the view."""
        try:
            return super().dispatch_request()
        except DBAPIError as error:
            broken = error.connection_invalidated and not isinstance(error.orig, NoAnswer)
            if not broken or request.method not in ("GET", "HEAD"):
                raise
            log.warning("connection lost, read again", route=str(request.url_rule))
            db.session.rollback()
            return super().dispatch_request()


@contextmanager
def autocommit(engine: sa.Engine | None = None) -> Iterator[sa.Connection]:
    """A connection outside the request's transaction: a statement is a transaction, and all that travels.

    SQLAlchemy's AUTOCOMMIT would cost a round trip each time to change the isolation level and back; this is
    psycopg2's own switch, which costs none, and stays as it is until `begin_transaction` needs the other.
    Leave the block before anything slow.
    """
    with (engine or db.engine).connect() as connection:
        driver: Any = connection.connection.driver_connection
        driver.autonomous = True
        if not driver.autocommit:
            driver.autocommit = True
        try:
            yield connection
        finally:
            driver.autonomous = False


@contextmanager
def read_connection() -> Iterator[sa.Connection]:
    """A connection for reading: the replica's where the route reads from it (`pake.replica`)."""
    if (reading := g.get("reading")) is not None:
        yield reading
        return
    with autocommit() as connection:
        yield connection


def begin_transaction(connection: sa.Connection) -> None:
    """For SQLAlchemy's event "begin": what `autocommit` does not lend has transactions again."""
    driver: Any = connection.connection.driver_connection
    if driver.autocommit and not driver.autonomous:
        asked_for = connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"
        driver.autocommit = asked_for


def database_url(settings: Settings) -> str:
    """The URL that is set, else that of the embedded PostgreSQL, which must be running.

    Raises SettingsError when there is neither, or it belongs to another user.
    """
    if settings.database_url:
        return settings.database_url.get_secret_value()
    folder = settings.instance_path / "postgres"
    try:
        url = embedded.status(folder).url
    except embedded.EmbeddedPostgresError as error:
        raise SettingsError(str(error)) from error
    if url:
        return url
    raise SettingsError(
        f"DATABASE_URL is not set and no embedded PostgreSQL runs in {folder}: start one with "
        f"`python -m pake.embedded --folder {folder} run`, or run `gunicorn`, which starts it"
    )


def longest_wait(settings: Settings) -> float:
    """Seconds after which a request has heard from PostgreSQL, or gets its 503."""
    return max(
        settings.database_connect_timeout_seconds,
        settings.database_statement_timeout_ms / 1000 + GRACE_SECONDS,
    )


def engine_options(settings: Settings) -> dict[str, object]:
    """What SQLAlchemy's engine is created with: a bounded pool, and a time limit on everything."""
    set_wait_callback(wait)

    class Patient(Connection):
        patience = float(settings.database_connect_timeout_seconds)

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.patience = settings.database_statement_timeout_ms / 1000 + GRACE_SECONDS

    return {
        "pool_size": settings.database_pool_size,
        "max_overflow": 0,
        "hide_parameters": True,
        "skip_autocommit_rollback": True,
        "json_deserializer": orjson.loads,
        "connect_args": {
            "connect_timeout": settings.database_connect_timeout_seconds,
            "options": f"-c statement_timeout={settings.database_statement_timeout_ms} -c timezone=UTC",
            "application_name": "pake",
            "connection_factory": Patient,
        },
    }


def end_transaction(_error: BaseException | None) -> None:
    """Before a session is closed: the answer is made, and a connection that breaks now is no error of it."""
    if db.session.registry.has():
        try:
            db.session.rollback()
        except DBAPIError:
            log.warning("connection lost after the answer was made")
            db.session().invalidate()
