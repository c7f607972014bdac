"""What is collected while a request or block is profiled: one tuple for each statement, and sums.

Every statement pays for what is noted, so a `Record` holds what is there anyway; text, lines and verdicts are
made of it after the response was sent, if anybody asks. `profilers.listeners` fills it.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from profilers.location import Site, resolve
from profilers.plugin import Need
from profilers.profile import Finding, Profile, Statement
from profilers.shapes import normalise

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from flask import Response

_now, _clock = time.time, time.perf_counter
_new = tuple.__new__

MAX_RECORDS = 2_000
"""Statements kept of one profile; of the rest only sums by line and statement are kept."""
MAX_SUMS = 1_000
MAX_TEXT = 64_000
"""Characters kept of one statement's text."""

LAZY, COLUMNS = 1, 2
"""What a statement loads for an instance that is there already: a relationship, or columns."""


class Record(NamedTuple):
    """One statement as it was noted; `Statement` is what becomes of it."""

    started: float
    """`time.perf_counter()`, as `ended`."""
    ended: float
    rows: int
    parameters: int
    """Hash of the values."""
    values: int
    """How many values: a list of 500 keys is not a single one."""
    site: Site | None
    sql: Any
    """The compiled statement (shared by all its executions), or the text."""
    load: int
    """`LAZY`, `COLUMNS` or 0."""
    parent: Any
    """Identity key of the instance that is loaded for."""
    parent_run: int
    """Number of the load that filled that instance; -1 when it was not loaded."""
    expired: frozenset[str] | None
    """Attributes of the instance that had been expired; None when all had."""
    mark: int
    """Loads numbered from here up to the next mark come from this statement."""
    flush: int
    """Which flush of the profile it belongs to; 0 for none."""
    executemany: bool
    engine: Any
    error: str

    @property
    def text(self) -> str:
        """The statement's text as compiled; empty for text, which may hold values."""
        return "" if isinstance(self.sql, str) else self.sql.string or ""


class Sum:
    """Statements of one line beyond `MAX_RECORDS`."""

    __slots__ = ("count", "duration", "rows", "sample")

    def __init__(self, sample: Record) -> None:
        self.sample = sample
        self.count = 0
        self.duration = 0.0
        self.rows = 0

    def add(self, record: Record) -> None:
        self.count += 1
        self.duration += record.ended - record.started
        self.rows += max(record.rows, 0)


class _Made:
    """An attribute that is made when it is first asked for, and costs nothing where nobody does."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, recording: Recording, owner: type) -> Any:
        made = self._make()
        setattr(recording, self._name, made)
        return made


class Recording(Profile):
    """A profile that is being collected. `statements` are made of the records when they are first read.

    Defaults of the class, and containers made when they are first asked for, cost a request nothing; so
    `Profile.__init__`, which sets each, is not called: `new_recording` makes one. Nor is there a
    `__getattr__`: with one, Python looks every attribute up the long way. An attribute that most requests
    come to have is named in `_share_names`.
    """

    __init__ = object.__init__  # Python calls one of its own at once

    begun: float
    """`time.perf_counter()`."""
    noted: list[tuple[Any, ...]] = []  # noqa: RUF012 - only ever replaced
    """What becomes the `records`: to make those takes longer, so it is done off the request."""
    outer: Recording | None
    """The block or request around it, whose statements these are as well."""
    needs: frozenset[Need]
    endpoint = ""
    """Flask's name of the view."""
    environ: WSGIEnvironment = {}  # noqa: RUF012 - only ever replaced
    """Of a request, while it runs."""
    response: Response | None
    """Flask's, of a request, until it has been sent."""
    slot = -1
    """What ends the note of a request, see `WorkerSlots`."""
    active: Any = None
    """Which profilers run for it (`recording.Active`); None for a block."""
    dialect: Any
    """Only the statements of the engine that this dialect belongs to are collected; None for all."""
    flushes: int
    finished: bool
    dropped: bool
    """Nobody wants it: nothing more is collected, and it is not handed on."""
    held: dict[int, float] | None
    """Since when each connection is held, by its id."""
    timed: bool
    """Its own cost is measured, for the brake."""
    hooks = 0.0
    """CPU seconds spent in the profilers' hooks, when timed."""
    pool_wait = connection_hold = 0.0
    """Seconds; `complete` puts them into `timings`."""
    commits = rollbacks = pool_timeouts = 0
    """`complete` puts them into `counters`."""
    longest = 0.0
    """Seconds that the slowest kept statement took; set by `complete`."""
    _read = 0
    """How many of `noted` are records already."""
    _statements: list[Statement] | None = None
    timings: dict[str, float] = _Made(dict)  # type: ignore[assignment]
    counters: dict[str, int] = _Made(dict)  # type: ignore[assignment]
    findings: list[Finding] = _Made(list)  # type: ignore[assignment]
    sections: dict[str, Any] = _Made(dict)  # type: ignore[assignment]
    overflow: dict[tuple[Any, ...], Sum] = _Made(dict)  # type: ignore[assignment]
    boundaries: list[tuple[float, str]] = _Made(list)  # type: ignore[assignment]
    """When a transaction ended, and how: `commit` or `rollback`."""
    notes: dict[str, Any] = _Made(dict)  # type: ignore[assignment]
    """What a profiler keeps from one hook to the next, by the profiler's name; not stored."""

    @property
    def records(self) -> list[Record]:
        """The statements that were noted, in their order."""
        noted = self.noted
        if self._read < len(noted):
            for position in range(self._read, len(noted)):
                noted[position] = _new(Record, noted[position])
            self._read = len(noted)
        return noted  # type: ignore[return-value] # all of them are records now

    @property
    def statements(self) -> list[Statement]:
        if self._statements is None or (not self.finished and len(self._statements) != len(self.noted)):
            self._statements = [_statement(record, self.begun) for record in self.records]
        return self._statements

    @statements.setter
    def statements(self, value: list[Statement]) -> None:
        self._statements = value or None

    def costs(self) -> Iterable[tuple[str, float, int]]:
        """As of any profile, without making statements of the records: most are only summed up."""
        return [(shape_of(each), each.ended - each.started, each.rows) for each in self.records]

    def leave_out(self, record: Record) -> None:
        """Count a record for which there is no room among the `MAX_RECORDS`."""
        self.left_out += 1
        site = record.site
        key: tuple[Any, ...] = (site and (id(site.code), site.instruction), record.text, record.load)
        total = self.overflow.get(key)
        if total is None:
            if len(self.overflow) >= MAX_SUMS:
                key = ()
            total = self.overflow.setdefault(key, Sum(record))
        total.add(record)

    def finish(self) -> None:
        """Take the time; nothing is added to the profile afterwards."""
        ended = _clock()
        self.duration = ended - self.begun
        if self.held:
            for since in self.held.values():
                self.connection_hold += ended - since
        self.held = None
        self.finished = True

    def complete(self) -> None:
        """Sum up what was collected: `timings`, `counters`. Called once, off the request."""
        if self.noted:
            seconds, longest, rows = 0.0, 0.0, 0
            for record in self.records:
                taken = record.ended - record.started
                seconds += taken
                if taken > longest:
                    longest = taken
                if record.rows > 0:
                    rows += record.rows
            self.longest = longest
            for total in self.overflow.values() if self.left_out else ():
                seconds += total.duration
                rows += total.rows
            self.timings["database"] = seconds
            self.counters["rows"] = rows
        if self.pool_wait:
            self.timings["pool_wait"] = self.pool_wait
        if self.connection_hold:
            self.timings["connection_hold"] = self.connection_hold
        if self.commits:
            self.counters["commits"] = self.commits
        if self.rollbacks:
            self.counters["rollbacks"] = self.rollbacks
        if self.pool_timeouts:
            self.counters["pool_timeouts"] = self.pool_timeouts


def new_recording(name: str, kind: str, needs: frozenset[Need], outer: Recording | None) -> Recording:
    """A recording that begins now."""
    recording: Recording = Recording()
    recording.begun = _clock()
    recording.name = name
    recording.started_at = _now()
    recording.kind = kind
    recording.id = recording.host = ""
    recording.outcome = "finished"
    recording.duration = 0.0
    recording.status = recording.worker = recording.left_out = 0
    recording.noted = []
    recording.outer = outer
    # Each statement or request asks for these, and what is only in the class takes Python longer to find.
    recording.timed = recording.finished = recording.dropped = False
    recording.flushes = 0
    recording.dialect = recording.held = recording.response = None
    recording.needs = needs | outer.needs if outer else needs
    return recording


def _share_names() -> None:
    """Let all recordings share one table of their attributes' names.

    CPython puts there what the first instances of a class set, up to 29 names (Objects/dictobject.c,
    `SHARED_KEYS_MAX_SIZE`). An attribute that is set later, by the first commit perhaps, gives its instance a
    dictionary: 800 bytes more, and from then on each of its attributes is looked up the long way.
    """
    first = new_recording("", "block", frozenset(), None)
    for name in (
        "active", "environ", "endpoint", "slot", "hooks", "boundaries", "commits", "rollbacks", "pool_wait",
        "connection_hold", "timings", "counters", "longest", "_read", "_statements", "findings", "sections",
        "notes",
    ):  # fmt: skip
        setattr(first, name, None)


_share_names()


def shape_of(record: Record) -> str:
    """The statement's text without values."""
    sql = record.sql
    if isinstance(sql, str):
        return normalise(sql, record.engine.dialect.name)
    shape: str | None = sql.__dict__.get("_profilers_shape")
    if shape is None:
        shape = sql._profilers_shape = normalise(str(sql)[:MAX_TEXT], sql.dialect.name)
    return shape


_KEY = os.urandom(16)


def keyed_hash(value: int) -> int:
    """A number that tells equal from different in this process, and nothing else to anybody."""
    digest = hashlib.blake2b(value.to_bytes(8, "little", signed=True), key=_KEY, digest_size=6)
    return int.from_bytes(digest.digest(), "little")


def _statement(record: Record, begun: float) -> Statement:
    return Statement(
        shape=shape_of(record),
        started=record.started - begun,
        duration=record.ended - record.started,
        rows=record.rows,
        location=resolve(record.site) if record.site else None,
        parameters=keyed_hash(record.parameters),
        executemany=record.executemany,
        database=record.engine.url.database or "",
        error=record.error,
    )


current: ContextVar[Recording | None] = ContextVar("profilers_recording", default=None)
"""The innermost recording of this thread or task."""
