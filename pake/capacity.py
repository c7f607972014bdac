"""Whether PostgreSQL has room for every connection that the service may open: `flask pake check-capacity`.

A worker's pool opens its connections one by one, so a sum that is too large shows under load and not at the
start; `watch` says so then. While Gunicorn reloads, old and new workers run side by side and each may have
all of its own.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
import structlog

log = structlog.get_logger(__name__)

FOR_PLANS = 1
"""Connections of a worker beside its pool: its profilers ask for a plan now and then."""


@dataclass(frozen=True)
class Room:
    """What PostgreSQL grants."""

    max_connections: int
    kept_back: int
    """Of these, for superusers and roles that the server keeps some for."""
    limit: int | None
    """Of the role or of the database, the lower one; None for no limit."""
    others: int
    """Connections that other roles have at this moment."""

    @property
    def ours(self) -> int:
        """How many connections the service's role may have."""
        free = self.max_connections - self.kept_back - self.others
        return free if self.limit is None else min(free, self.limit)


@dataclass(frozen=True)
class Demand:
    """What the service may open: a request has a thread and a connection, so there is one for each thread."""

    hosts: int
    workers: int
    """Of each host."""
    pool: int
    """Of each worker."""

    @property
    def serving(self) -> int:
        """Connections of all workers."""
        return self.hosts * self.workers * (self.pool + FOR_PLANS)

    @property
    def reloading(self) -> int:
        """The same while all hosts reload at once."""
        return 2 * self.serving


_ROOM = sa.text("""
    SELECT current_setting('max_connections')::int,
           current_setting('superuser_reserved_connections')::int
               + current_setting('reserved_connections', true)::int,
           (SELECT least(nullif(rolconnlimit, -1), nullif(datconnlimit, -1)) FROM pg_roles, pg_database
            WHERE rolname = current_user AND datname = current_database()),
           (SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL AND usename <> current_user)::int
""")


def room(connection: sa.Connection) -> Room:
    """Ask PostgreSQL. Through a connection pooler it is the server's answer, not the pooler's."""
    return Room(*connection.execute(_ROOM).one())


def report(demand: Demand, room: Room) -> list[str]:
    """The sum, line by line."""
    limit = "" if room.limit is None else f", role or database limited to {room.limit}"
    return [
        f"{demand.hosts} hosts x {demand.workers} workers x ({demand.pool} threads, a connection each, "
        f"+ {FOR_PLANS} for plans) = {demand.serving} connections",
        f"while all hosts reload at once, twice that = {demand.reloading}",
        f"PostgreSQL has {room.ours} for this role: max_connections {room.max_connections}, "
        f"{room.kept_back} kept back, {room.others} in use by others{limit}",
    ]


def shortage(demand: Demand, room: Room) -> str | None:
    """What does not fit and what to do, in one line; None when everything fits."""
    if demand.reloading <= room.ours:
        return None
    enough = demand.reloading + room.kept_back + room.others
    when = "" if demand.serving > room.ours else " while it reloads"
    pool = room.ours // (2 * demand.hosts * demand.workers) - FOR_PLANS
    smaller = f"DATABASE_POOL_SIZE to {pool} at most" if pool > 0 else "fewer workers"
    return (
        f"the service may open more connections{when} than PostgreSQL has: set max_connections to {enough} "
        f"at least (in postgresql.conf), or {smaller}, or put PgBouncer between (docs/scaling.md)"
    )


_NONE_LEFT = re.compile("too many (clients|connections)|remaining connection slots")
"""SQLSTATE 53300, which psycopg2 does not tell when it could not connect."""

SECONDS_BETWEEN_WARNINGS = 10


def watch(engine: sa.Engine, demand: Demand) -> None:
    """Log the sum when PostgreSQL has no connection left for a worker's pool, at most every 10 seconds."""
    max_connections: str | None = None
    next_warning = 0.0

    def connected(driver: Any, _record: object) -> None:
        nonlocal max_connections
        with driver.cursor() as cursor:
            cursor.execute("SHOW max_connections")
            (max_connections,) = cursor.fetchone()
        driver.rollback()

    def failed(context: sa.ExceptionContext) -> None:
        nonlocal next_warning
        now = time.monotonic()
        if now < next_warning or not _NONE_LEFT.search(str(context.original_exception)):
            return
        next_warning = now + SECONDS_BETWEEN_WARNINGS
        log.error(
            "PostgreSQL has no connection left: see `flask pake check-capacity`",
            pools=demand.serving,
            of=f"{demand.workers} workers x ({demand.pool} + {FOR_PLANS} for plans)",
            max_connections=int(max_connections) if max_connections else "unknown, none was ever got",
        )

    sa.event.listen(engine, "first_connect", connected)
    sa.event.listen(engine, "handle_error", failed)
