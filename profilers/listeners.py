"""Listens to SQLAlchemy while a request or block is profiled.

Works for plain SQLAlchemy, Flask-SQLAlchemy and Flask-SQLAlchemy-Lite, for several engines and threads.

What the ORM was loading is read from the execution itself: its load options name the instance that a lazy
load or a refresh is for, and the compiled statement knows the relationship. That costs no event of the
session, and touches neither the statement nor its cache key.

Where the parents of a lazy load came from is told by the number that SQLAlchemy gives to each load (`runid`):
an instance carries that of the load which filled it, and a number drawn after each statement bounds it from
below. So the statement that queried the parents is found without following a single instance.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.orm import Session, loading
from sqlalchemy.pool import Pool

from profilers.collect import COLUMNS, LAZY, MAX_RECORDS, MAX_TEXT, Record, Recording, current
from profilers.location import find_site_at, find_way
from profilers.plugin import Need

log = logging.getLogger("profilers")

_new = tuple.__new__
_new_run = loading._new_runid


def _before_cursor_execute(
    conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
) -> tuple[str, Any]:
    recording = current.get()
    if recording is None or not recording.needs or _failures >= MAX_FAILURES:
        return statement, parameters
    entered = time.thread_time() if recording.timed else 0.0
    try:
        sql = context.compiled
        way = getattr(sql, "_profilers_way", None)
        site = find_site_at(*way) if way is not None else None
        if site is None:
            site, depth = find_way(sys._getframe(1))
            if sql is not None and site is not None:
                sql._profilers_way = (depth, site.call)
        context._profilers_begun = (recording, site, time.perf_counter())
        if entered:
            recording.hooks += time.thread_time() - entered
    except Exception:  # noqa: BLE001 - logged by _failed; nothing may escape into the app
        _failed()
    return statement, parameters


def _after_cursor_execute(
    conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
) -> None:
    if "_profilers_begun" in context.__dict__:
        _note(context, statement, parameters, cursor.rowcount, executemany, "")


def _handle_error(failure: ExceptionContext) -> None:
    context: Any = failure.execution_context
    if context is not None and "_profilers_begun" in context.__dict__:
        error = type(failure.original_exception).__name__
        _note(context, failure.statement or "", failure.parameters, -1, False, error)


def _note(context: Any, statement: str, parameters: Any, rows: int, executemany: bool, error: str) -> None:
    ended = time.perf_counter()
    try:
        recording, site, started = context.__dict__.pop("_profilers_begun")
        entered = time.thread_time() if recording.timed else 0.0
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
                # An instance that is not stored yet has no key: the object itself tells it from others.
                parent = state.key or id(state)
                run = -1 if state.runid is None else state.runid
        sql = context.compiled
        if sql is None or (len(statement) > MAX_TEXT and len(str(sql)) > MAX_TEXT):
            sql = statement[:MAX_TEXT]
        record = _new(
            Record,
            (
                started,
                ended,
                rows,
                0 if executemany else _hash(parameters, statement),
                len(parameters) if parameters else 0,
                site,
                sql,
                load,
                parent,
                run,
                expired,
                _new_run(),
                recording.flushes if site is not None and site.call == "flush" else 0,
                executemany,
                context.root_connection.engine,
                error,
            ),
        )
        within: Recording | None = recording
        while within is not None:
            if within.dialect is None or within.dialect is context.dialect:
                within.add(record)
            within = within.outer
        if entered:
            recording.hooks += time.thread_time() - entered
    except Exception:  # noqa: BLE001 - logged by _failed; nothing may escape into the app
        _failed()


def _hash(parameters: Any, statement: str) -> int:
    """Of the values; of the text, which then holds them, where there are none."""
    values = tuple(parameters.values()) if isinstance(parameters, dict) else parameters
    try:
        return hash(values) if values else hash(statement)
    except TypeError:
        return hash(repr(values))


def _guarded(listener: Callable[..., None]) -> Callable[..., None]:
    """A listener that never raises: an error of ours must not end a transaction of the app's."""

    def run(*args: Any) -> None:
        try:
            listener(*args)
        except Exception:  # noqa: BLE001 - logged by _failed
            _failed()

    return run


@_guarded
def _commit(conn: Any) -> None:
    _boundary("commit")


@_guarded
def _rollback(conn: Any) -> None:
    _boundary("rollback")


def _boundary(name: str) -> None:
    recording = current.get()
    while recording is not None:
        recording.count(name + "s")
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
def _engine_connect(conn: Any) -> None:
    """Times an engine's pool from its first connection on."""
    if "connect" not in conn.engine.pool.__dict__:
        _time_pool(conn.engine)
        _held_from(conn.connection.dbapi_connection, time.perf_counter())


@_guarded
def _time_pool(engine: Any) -> None:
    """There is no event before a connection is taken from the pool, so its `connect` is wrapped."""
    engine.pool.connect = _timed(engine.pool.connect)


def _held_from(dbapi_connection: Any, taken: float) -> None:
    recording = current.get()
    while recording is not None:
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
        recording.timings["pool_wait"] = recording.timings.get("pool_wait", 0.0) + taken - began
        if connection is None:
            recording.count("pool_timeouts")
        recording = recording.outer
    if connection is not None:
        _held_from(connection.dbapi_connection, taken)


@_guarded
def _checkin(dbapi_connection: Any, connection_record: Any) -> None:
    recording = current.get()
    while recording is not None:
        taken = recording.held.pop(id(dbapi_connection), None)
        if taken is not None:
            recording.held_for(time.perf_counter() - taken)
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


_LISTENERS: dict[Need, tuple[tuple[Any, str, Callable[..., object]], ...]] = {
    "statements": (
        (Engine, "before_cursor_execute", _before_cursor_execute),
        (Engine, "after_cursor_execute", _after_cursor_execute),
        (Engine, "handle_error", _handle_error),
    ),
    "orm": (
        (Engine, "commit", _commit),
        (Engine, "rollback", _rollback),
        (Session, "before_flush", _before_flush),
    ),
    "pool": (
        (Engine, "commit", _commit),
        (Engine, "rollback", _rollback),
        (Engine, "engine_connect", _engine_connect),
        (Engine, "engine_disposed", _time_pool),
        (Pool, "checkin", _checkin),
    ),
}
ALL: frozenset[Need] = frozenset(_LISTENERS)
_installing = threading.Lock()


def install(needs: frozenset[Need]) -> None:
    """Register the listeners, once per process; best before threads run SQL, as SQLAlchemy asks."""
    with _installing:
        for need, listeners in _LISTENERS.items():
            if need not in needs and (need != "statements" or not needs):
                continue
            for target, name, listener in listeners:
                if not event.contains(target, name, listener):
                    event.listen(target, name, listener, retval=name == "before_cursor_execute")
