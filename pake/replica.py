"""Reads from a standby, for the routes that say so by `@from_replica`, right above the function.

Who has written sees it. Each account counts its transactions in `users.writes`, in the transaction that is
counted: a standby that has the count of an account has all that the account wrote before. So a read asks the
primary for the count, by primary key, and the standby for its own; then the standby does the work. That holds
for every worker, host and sign-in of the account, needs nothing of the client, and outlives a failover, which
a position in the write-ahead log does not.

What others wrote is seen at most `DATABASE_REPLICA_LAG_SECONDS` later. A standby that is behind, silent, dead
or promoted is passed over: the primary answers, and after a failure the standby is left alone for a second.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import sqlalchemy as sa
import structlog
from flask import Flask, current_app, g
from sqlalchemy.exc import DBAPIError, TimeoutError
from sqlalchemy.orm import Session

from pake.auth.models import User
from pake.auth.tokens import current_account
from pake.breaker import Breaker, KnownSilent
from pake.config import Settings
from pake.database import autocommit, engine_options, longest_wait
from pake.extensions import db
from pake.metrics import meters

log = structlog.get_logger(__name__)

BIND = "replica"
SECONDS = 1
"""How long the standby may take for a connection or a statement: the primary is there."""

_WRITES = sa.select(User.writes).where(User.id == sa.bindparam("user_id"))

# A standby that has replayed all it received is up to date, if it still receives. Otherwise it may be behind
# by the age of the last transaction that it replayed.
_STATE = sa.text("""
    SELECT pg_is_in_recovery() AS standby,
           CASE WHEN pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn()
                     AND EXISTS (SELECT FROM pg_stat_wal_receiver) THEN 0
                ELSE coalesce(extract(epoch FROM now() - pg_last_xact_replay_timestamp()), 'infinity')
           END::float AS behind,
           (SELECT writes FROM users WHERE id = :user_id) AS writes
""")

View = TypeVar("View", bound=Callable[..., Any])


def bind(settings: Settings) -> dict[str, dict[str, object]]:
    """Flask-SQLAlchemy's binds: the replica's, if there is one."""
    if settings.database_replica_url is None:
        return {}
    impatient = _impatient(settings)
    return {BIND: {"url": settings.database_replica_url.get_secret_value(), **engine_options(impatient)}}


def init_app(app: Flask, settings: Settings) -> None:
    """Read from the replica, if there is one."""
    if settings.database_replica_url is not None:
        with app.app_context():
            app.extensions["pake_replica"] = Replica(db.engines[BIND], settings)


class Replica:
    """The standby, as one process sees it."""

    def __init__(self, engine: sa.Engine, settings: Settings) -> None:
        self.engine = engine
        self._most_behind = settings.database_replica_lag_seconds
        self._breaker = Breaker(2 * longest_wait(_impatient(settings)), server="the replica")

    def read(self, view: Callable[[], Any]) -> Any:
        """The view's answer: from the standby, unless it cannot give a right one."""
        user_id = current_account().id
        with autocommit() as connection:
            writes = connection.scalar(_WRITES, {"user_id": user_id}) or 0
        outcome = "away"
        try:
            self._breaker.ask()
            with autocommit(self.engine) as connection:
                standby, behind, replayed = connection.execute(_STATE, {"user_id": user_id}).one()
                if not standby:
                    self._breaker.silent()
                    log.error("DATABASE_REPLICA_URL leads to no standby: it was promoted, or never was one")
                elif behind > self._most_behind or replayed is None or replayed < writes:
                    self._breaker.answered()
                    outcome = "behind"
                else:
                    g.reading = connection
                    answer = view()
                    self._breaker.answered()
                    meters.replica_reads.labels("replica").inc()
                    return answer
        except KnownSilent:
            pass
        except (DBAPIError, TimeoutError) as error:
            self._breaker.silent()
            log.warning("read from the primary in place of the replica", kind=type(error).__name__)
        finally:
            g.pop("reading", None)
        meters.replica_reads.labels(outcome).inc()
        return view()


def from_replica(view: View) -> View:
    """Let the route read from the standby. It reads by `read_connection()` alone, and may be called twice."""

    @wraps(view)
    def read(*args: Any, **kwargs: Any) -> Any:
        replica: Replica | None = current_app.extensions.get("pake_replica")
        if replica is None:
            return view(*args, **kwargs)
        return replica.read(lambda: view(*args, **kwargs))

    return cast(View, read)


@sa.event.listens_for(db.session, "before_commit")
def _count(session: Session) -> None:
    """Count the transaction of whoever is asking. Last of all: the row is locked for a moment only."""
    if "pake_replica" in current_app.extensions and (account := g.get("account")) is not None:
        session.flush()
        one_more = sa.update(User).where(User.id == account.id).values(writes=User.writes + 1)
        session.execute(one_more, execution_options={"synchronize_session": False})


def _impatient(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "database_connect_timeout_seconds": SECONDS,
            "database_statement_timeout_ms": SECONDS * 1000,
        }
    )
