"""Listens to SQLAlchemy while a request or block is profiled.

Works for plain SQLAlchemy, Flask-SQLAlchemy and Flask-SQLAlchemy-Lite, for several engines and threads.

What the ORM was loading is read from the execution itself: its load options name the instance that a lazy
load or a refresh is for, and the compiled statement knows the relationship. That costs no event of the
session, and touches neither the statement nor its cache key.

A statement is seen where its dialect hands it to the driver: those are the only events that do not make
SQLAlchemy prepare the others (`before_execute`, `before_cursor_execute` …), which costs ten times as much.

Where the parents of a lazy load came from is told by the number that SQLAlchemy gives to each load (`runid`):
an instance carries that of the load which filled it, and a number drawn after each statement bounds it from
below. So the statement that queried the parents is found without following a single instance.
"""

from __future__ import annotations

import itertools
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.engine.interfaces import ExecuteStyle
from sqlalchemy.event.attr import _EmptyListener
from sqlalchemy.orm import Session, loading
from sqlalchemy.pool import Pool
from sqlalchemy.pool.base import _AdhocProxiedConnection, _ConnectionFairy

from profilers.collect import COLUMNS, LAZY, MAX_RECORDS, MAX_TEXT, Record, Recording, current
from profilers.location import find_way, follow
from profilers.plugin import Need

log = logging.getLogger("profilers")


def _without_lock(numbers: Callable[[], int]) -> Callable[[], int]:
    """SQLAlchemy's numbers of loads, drawn without the lock around them, which Python's own does not need."""
    for cell in numbers.__closure__ or ():
        if isinstance(cell.cell_contents, itertools.count):
            return cell.cell_contents.__next__
    return numbers


_new_run = _without_lock(loading._new_runid)
_clock = time.perf_counter
_preparing = threading.Lock()
MAX_WAYS = 4
"""Lines kept in mind for each statement: one that a helper sends is known again whoever called that."""
_pool_reset = _ConnectionFairy._reset.__code__
"""The pool's rollback of a connection that comes back, after a commit as well; it ends no transaction."""


def _executing(name: str) -> Callable[..., bool]:
    """The listener to a dialect's `do_execute`, `do_executemany` or `do_execute_no_params`.

    It runs the statement as the dialect does, and notes it; False leaves that to SQLAlchemy. It is one long
    function since calls are what it costs.
    """
    without_parameters = name == "do_execute_no_params"

    def execute(cursor: Any, statement: str, parameters: Any, context: Any = None) -> bool:
        if without_parameters:
            parameters, context = None, parameters
        recording = current.get()
        if recording is None or context is None or not recording.needs or _failures >= MAX_FAILURES:
            return False
        timed = recording.timed
        entered = time.thread_time() if timed else 0.0
        site = None
        dialect = context.dialect
        sql = context.compiled
        try:
            try:
                ways = sql._profilers_ways
            except AttributeError:  # it has not been sent before
                ways = ()
                if "do_commit" not in dialect.__dict__:
                    if isinstance(context.root_connection.connection, _AdhocProxiedConnection):
                        return False  # SQLAlchemy asks a new server for its version
                    _watch(context.root_connection.engine)
            site = follow(ways)
            if site is None:
                way = find_way(sys._getframe())
                if way is not None:
                    site = way.site
                    if sql is not None:
                        sql._profilers_ways = (way, *ways[: MAX_WAYS - 1])
        except Exception:  # noqa: BLE001 - logged by _failed; nothing may escape into the app
            _failed()
        others = getattr(dialect.dispatch, name)
        error = ""
        if timed:
            recording.hooks += time.thread_time() - entered
        started = _clock()
        try:
            if type(others) is _EmptyListener and len(others.parent_listeners) == 1:
                handled = False
            else:  # who handles the statement ends the chain of listeners, so the others are asked from here
                rest = (context,) if without_parameters else (parameters, context)
                handled = any(other(cursor, statement, *rest) for other in others if other not in _OURS)
            if not handled:
                if without_parameters:
                    dialect.do_execute_no_params(cursor, statement, context)
                else:
                    getattr(dialect, name)(cursor, statement, parameters, context)
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            ended = _clock()
            entered = time.thread_time() if timed else 0.0
            try:
                load = 0
                run = -1
                parent = expired = None
                options = context.execution_options.get("_sa_orm_load_options")
                if options is not None:
                    state = options._lazy_loaded_from
                    if state is not None:
                        load = LAZY
                    else:
                        state = options._refresh_state
                        if state is not None:
                            load = COLUMNS
                            expired = None if state.expired else frozenset(state.expired_attributes)
                    if state is not None:
                        # An instance that is not stored yet has no key: the object itself tells it apart.
                        parent = state.key or id(state)
                        run = -1 if state.runid is None else state.runid
                if sql is None or (len(statement) > MAX_TEXT and len(str(sql)) > MAX_TEXT):
                    sql = statement[:MAX_TEXT]
                executemany = context.execute_style is not _EXECUTE
                values = tuple(parameters.values()) if type(parameters) is dict else parameters
                try:
                    # Text without values holds them itself.
                    hashed = 0 if executemany else hash(values or statement)
                except TypeError:
                    hashed = hash(repr(values))
                noted = (  # the fields of a `Record`, which would take longer to make
                    started,
                    ended,
                    -1 if error else cursor.rowcount,
                    hashed,
                    len(values) if values else 0,
                    site,
                    sql,
                    load,
                    parent,
                    run,
                    expired,
                    _new_run(),
                    recording.flushes if recording.flushes and site and site.call == "flush" else 0,
                    executemany,
                    context.root_connection.engine,
                    error,
                )
                within: Recording | None = recording
                while within is not None:
                    if within.dialect is None or within.dialect is dialect:
                        if len(within.noted) < MAX_RECORDS:
                            within.noted.append(noted)
                        else:
                            within.leave_out(Record(*noted))
                    within = within.outer
                if timed:
                    recording.hooks += time.thread_time() - entered
            except Exception:  # noqa: BLE001 - logged by _failed; nothing may escape into the app
                _failed()
        return True

    return execute


_EXECUTE = ExecuteStyle.EXECUTE
_do_execute = _executing("do_execute")
_do_executemany = _executing("do_executemany")
_do_execute_no_params = _executing("do_execute_no_params")


def _guarded(listener: Callable[..., None]) -> Callable[..., None]:
    """A listener that never raises: an error of ours must not end a transaction of the app's."""

    def run(*args: Any) -> None:
        try:
            listener(*args)
        except Exception:  # noqa: BLE001 - logged by _failed
            _failed()

    return run


def _watch(engine: Any) -> None:
    """Note the ends of an engine's transactions; its events for them would slow each statement down."""
    dialect = engine.dialect
    with _preparing:
        if "do_commit" not in dialect.__dict__:
            dialect.do_rollback = _ending(dialect.do_rollback, "rollback")
            dialect.do_commit = _ending(dialect.do_commit, "commit")
    _time_pool(engine.pool)


def _ending(end: Callable[[Any], None], name: str) -> Callable[[Any], None]:
    def end_transaction(dbapi_connection: Any) -> None:
        end(dbapi_connection)
        try:
            if sys._getframe(1).f_code is not _pool_reset:
                _boundary(name)
        except Exception:  # noqa: BLE001 - logged by _failed
            _failed()

    return end_transaction


def _boundary(name: str) -> None:
    recording = current.get()
    while recording is not None:
        if name == "commit":
            recording.commits += 1
        else:
            recording.rollbacks += 1
        if len(recording.boundaries) < MAX_RECORDS:
            recording.boundaries.append((time.perf_counter(), name))
        recording = recording.outer


@_guarded
def _before_flush(session: Any, flush_context: Any, instances: Any) -> None:
    recording = current.get()
    while recording is not None:
        recording.flushes += 1
        recording = recording.outer


@_guarded
def _connect(dbapi_connection: Any, connection_record: Any) -> None:
    """Times a pool from its first connection on."""
    pool = getattr(connection_record, "_ConnectionRecord__pool", None)
    if pool is not None and _time_pool(pool):
        _held_from(dbapi_connection, time.perf_counter())


def _time_pool(pool: Any) -> bool:
    """There is no event before a connection is taken from a pool, so its `connect` is wrapped, once."""
    with _preparing:
        if "connect" in pool.__dict__:
            return False
        pool.connect = _timed(pool.connect)
        return True


def _held_from(dbapi_connection: Any, taken: float) -> None:
    recording = current.get()
    while recording is not None:
        if recording.held is None:
            recording.held = {}
        recording.held[id(dbapi_connection)] = taken
        recording = recording.outer


def _timed(connect: Callable[[], Any]) -> Callable[[], Any]:
    def timed_connect() -> Any:
        recording = current.get()
        if recording is None or "pool" not in recording.needs:
            return connect()
        began = time.perf_counter()
        try:
            connection = connect()
        except sa.exc.TimeoutError:
            _waited(began, None)
            raise
        _waited(began, connection)
        return connection

    return timed_connect


@_guarded
def _waited(began: float, connection: Any) -> None:
    """A connection was waited for; None if it never came."""
    taken = time.perf_counter()
    recording = current.get()
    while recording is not None:
        recording.pool_wait += taken - began
        if connection is None:
            recording.pool_timeouts += 1
        recording = recording.outer
    if connection is not None:
        _held_from(connection.dbapi_connection, taken)


@_guarded
def _checkin(dbapi_connection: Any, connection_record: Any) -> None:
    recording = current.get()
    while recording is not None:
        taken = recording.held.pop(id(dbapi_connection), None) if recording.held else None
        if taken is not None:
            recording.connection_hold += time.perf_counter() - taken
        recording = recording.outer


MAX_FAILURES = 3
_failures = 0


def _failed() -> None:
    """An error of ours is logged once; after some of them nothing is collected any more."""
    global _failures
    _failures += 1
    if _failures == 1:
        log.exception("collecting a statement failed; the app is not affected")
    if _failures == MAX_FAILURES:
        log.error("collecting failed %d times and is switched off", _failures)


_OURS = frozenset({_do_execute, _do_executemany, _do_execute_no_params})

_LISTENERS: dict[Need, tuple[tuple[Any, str, Callable[..., object]], ...]] = {
    "statements": (
        (Engine, "do_execute", _do_execute),
        (Engine, "do_executemany", _do_executemany),
        (Engine, "do_execute_no_params", _do_execute_no_params),
    ),
    "orm": ((Session, "before_flush", _before_flush),),
    "pool": ((Pool, "connect", _connect), (Pool, "checkin", _checkin)),
}
ALL: frozenset[Need] = frozenset(_LISTENERS)


def install(needs: frozenset[Need]) -> None:
    """Register the listeners, once per process; best before threads run SQL, as SQLAlchemy asks."""
    with _preparing:
        for need, listeners in _LISTENERS.items():
            if need not in needs and (need != "statements" or not needs):
                continue
            for target, name, listener in listeners:
                if not event.contains(target, name, listener):
                    event.listen(target, name, listener)
