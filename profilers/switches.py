"""Turns profilers on and off while the app runs, in all its workers at once, for a limited time.

    flask profile on nplusone --endpoint 'GET /services*' --sample 5% --for 10m
    flask profile off
    flask profile status

A switch is a line in the store, which every worker's writer reads twice a second. Turning one adds or removes
no listener: it changes which profilers a request is given. Each switch ends by itself.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from profilers.storage.database import Connection
from profilers.store import Store

MAX_SECONDS = 24 * 3600.0
ALL = "*"

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class SwitchError(ValueError):
    """What was asked for makes no sense; the message is one line for the user."""


@dataclass(frozen=True)
class Switch:
    """Some profilers, on for some requests, for some time."""

    profilers: tuple[str, ...]
    endpoint: str = ALL
    """`GET /services`, or with a `*` at the end any rest."""
    sample: float = 1.0
    """Share of the matching requests."""
    until: float = 0.0
    """Seconds since the epoch."""


@dataclass(frozen=True)
class Switches:
    """All that was turned at run time."""

    on: tuple[Switch, ...] = ()
    off: Mapping[str, float | None] = field(default_factory=dict)
    """Profilers of the configuration that rest, and until when (None: until turned on); `*` is all."""

    def at(self, now: float) -> Switches:
        """What is left of it at a moment."""
        return Switches(
            tuple(switch for switch in self.on if switch.until > now),
            {name: until for name, until in self.off.items() if until is None or until > now},
        )

    def configured(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those profilers of the configuration that do not rest."""
        return () if ALL in self.off else tuple(name for name in names if name not in self.off)


def names_on(state: Switches) -> list[str]:
    """The profilers that were switched on, for whichever requests."""
    return list(dict.fromkeys(name for switch in state.on for name in switch.profilers))


@dataclass(frozen=True)
class WorkerStatus:
    """What a worker last said of itself."""

    host: str
    pid: int
    seen: float
    """Seconds since the epoch."""
    sampling: float
    """Share of requests that the brake lets through to the profilers."""
    cost: float
    """Share of a profiled request's time that profiling it took."""
    left_out: int
    """Profiles that this worker could not write."""


@dataclass(frozen=True)
class Status:
    """What `flask profile status` shows."""

    switches: Switches
    workers: tuple[WorkerStatus, ...]


def turn_on(
    store: Store,
    profilers: Sequence[str] = (),
    endpoint: str = ALL,
    sample: float = 1.0,
    seconds: float = 600.0,
    *,
    known: Collection[str] | None = None,
) -> Switches:
    """Switch profilers on in all workers of the store; without names, resume those of the configuration.

    Raises:
        SwitchError: an unknown profiler (when `known` is given), a sample outside 0 to 1, a time that is
            not between a second and a day.
        StoreError: the store cannot be written to.
    """
    _check_names(profilers, known)
    if not 0 < sample <= 1:
        raise SwitchError(f"sample {sample:g}: expected more than 0 and at most 1 (100%)")
    _check_seconds(seconds)
    if not endpoint or "*" in endpoint[:-1]:
        raise SwitchError(
            f"endpoint {endpoint!r}: expected a name such as 'GET /services', with * at its end only"
        )

    def change(now: float, state: Switches) -> Switches:
        if not profilers:
            return Switches(state.on)
        new = Switch(tuple(profilers), endpoint, sample, now + seconds)
        same = (new.profilers, new.endpoint)
        others = tuple(switch for switch in state.on if (switch.profilers, switch.endpoint) != same)
        return Switches((*others, new), {name: t for name, t in state.off.items() if name not in profilers})

    return _change(store, change)


def turn_off(
    store: Store,
    profilers: Sequence[str] = (),
    seconds: float | None = None,
    *,
    known: Collection[str] | None = None,
) -> Switches:
    """End switches, and let profilers of the configuration rest, in all workers; without names, all of them.

    They rest for `seconds`, or until `turn_on` names them (or nothing).

    Raises:
        SwitchError, StoreError: as for `turn_on`.
    """
    _check_names(profilers, known)
    if seconds is not None:
        _check_seconds(seconds)

    def change(now: float, state: Switches) -> Switches:
        until = None if seconds is None else now + seconds
        if not profilers:
            return Switches((), {ALL: until})
        left = (
            Switch(tuple(name for name in switch.profilers if name not in profilers), *_scope(switch))
            for switch in state.on
        )
        rest = {**state.off, **dict.fromkeys(profilers, until)}
        return Switches(tuple(switch for switch in left if switch.profilers), rest)

    return _change(store, change)


def withdraw(store: Store, profilers: Sequence[str], endpoint: str = ALL) -> Switches:
    """End one switch before its time, in all workers; all else stays as it is.

    Raises:
        StoreError: the store cannot be written to.
    """

    def change(now: float, state: Switches) -> Switches:
        ended = (tuple(profilers), endpoint)
        return Switches(tuple(on for on in state.on if (on.profilers, on.endpoint) != ended), state.off)

    return _change(store, change)


def status(store: Store) -> Status:
    """What is switched on and off, and what the workers say of themselves.

    Raises:
        StoreError: the store cannot be read.
    """
    now = time.time()
    connection = store.database.connect()
    try:
        with connection.transaction(write=False):
            state = read(connection)
            rows = connection.execute(
                "SELECT host, pid, seen, body FROM worker WHERE seen > ? ORDER BY host, pid", (now - 30,)
            ).fetchall()
    finally:
        connection.close()
    workers = tuple(WorkerStatus(host, pid, seen, **json.loads(body)) for host, pid, seen, body in rows)
    return Status(state.at(now), workers)


def read(connection: Connection) -> Switches:
    """What was last turned, expired or not; within a transaction."""
    row = connection.execute("SELECT body FROM control WHERE name = 'switches'").fetchone()
    return _decode(row[0]) if row else Switches()


def say(connection: Connection, worker: WorkerStatus) -> None:
    """Tell the others how this worker is; within a writing transaction."""
    body = {"sampling": worker.sampling, "cost": worker.cost, "left_out": worker.left_out}
    connection.execute("DELETE FROM worker WHERE seen < ?", (worker.seen - 3600,))
    connection.insert(
        ("INSERT INTO worker VALUES ", 4,
         " ON CONFLICT (host, pid) DO UPDATE SET seen = excluded.seen, body = excluded.body"),
        [(worker.host, worker.pid, worker.seen, json.dumps(body))],
    )  # fmt: skip


def parse_seconds(text: str) -> float:
    """`90`, `30s`, `10m` or `2h` in seconds.

    Raises:
        SwitchError: it is none of these.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if not found:
        raise SwitchError(f"time {text!r}: expected such as 30s, 10m or 2h")
    return float(found[1]) * _UNITS[found[2] or "s"]


def parse_share(text: str) -> float:
    """`5%` or `0.05` as a share.

    Raises:
        SwitchError: it is neither.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", text.strip())
    if not found:
        raise SwitchError(f"sample {text!r}: expected such as 5% or 0.05")
    return float(found[1]) / (100 if found[2] else 1)


def _change(store: Store, change: Any) -> Switches:
    connection = store.database.connect()
    try:
        with connection.transaction(write=True):
            now = time.time()
            state: Switches = change(now, read(connection).at(now))
            connection.insert(
                ("INSERT INTO control VALUES ", 2, " ON CONFLICT (name) DO UPDATE SET body = excluded.body"),
                [("switches", json.dumps(asdict(state)))],
            )
    finally:
        connection.close()
    return state


def _decode(text: str) -> Switches:
    data = json.loads(text)
    on = (Switch(**{**item, "profilers": tuple(item["profilers"])}) for item in data["on"])
    return Switches(tuple(on), data["off"])


def _scope(switch: Switch) -> tuple[str, float, float]:
    return switch.endpoint, switch.sample, switch.until


def _check_names(names: Sequence[str], known: Collection[str] | None) -> None:
    unknown = [name for name in names if known is not None and name not in known]
    if unknown:
        raise SwitchError(
            f"unknown profiler {', '.join(unknown)}: known are {', '.join(sorted(known or ()))}"
        )


def _check_seconds(seconds: float) -> None:
    if not 1 <= seconds <= MAX_SECONDS:
        raise SwitchError(f"time {seconds:g} s: expected from 1 second to 24 hours")
