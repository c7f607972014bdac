"""Start and stop a capture: profilers on in all workers for a while, then what they saw in one file.

    curl -H "X-Profile-Token: …" -d profiler=queries -d for=5m https://app.example/__profilers__/captures/start

The file is kept in the store, so that any worker of any host can hand it out. It is made a moment after the
end, when the workers have written what they had, by whichever of them looks first: nobody has to wait for it,
or to be there when the time is up.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from profilers import switches
from profilers.console import capture
from profilers.storage import schema
from profilers.storage.batch import new_id
from profilers.storage.keeper import Keeper
from profilers.store import Period, Store
from profilers.switches import ALL, SwitchError

MAX_SECONDS = 3600.0
KEPT = 10
"""Captures, the newest."""
SAVE_AFTER = 2.0
"""Seconds from the end of a capture until it is saved: the writers of all workers come round meanwhile."""
LOOK_SECONDS = 1.0
CLAIM_SECONDS = 120.0
"""A worker that ended while it saved a capture leaves it to another after so long."""


@dataclass(frozen=True)
class CaptureRow:
    """One capture of the store."""

    id: str
    started_at: float
    ends_at: float
    """When it was stopped, or will be."""
    profilers: tuple[str, ...]
    """That it switched on; none where those of the configuration were enough."""
    endpoint: str
    requests: int
    bytes: int
    """Of the file; 0 until it is saved."""

    @property
    def state(self) -> Literal["running", "being saved", "saved"]:
        """Where it stands."""
        if self.bytes:
            return "saved"
        return "running" if self.ends_at > time.time() else "being saved"

    @property
    def period(self) -> Period:
        """What it is about."""
        return Period(self.started_at, self.ends_at, None if self.endpoint == ALL else self.endpoint)


def captures(store: Store) -> list[CaptureRow]:
    """All of them, newest first."""
    query = "SELECT id, started_at, ends_at, scope, LENGTH(body) FROM capture ORDER BY started_at DESC"
    connection = store.database.connect()
    try:
        with connection.transaction(write=False):
            return [_row(row) for row in connection.execute(query).fetchall()]
    finally:
        connection.close()


def text(store: Store, identity: str) -> str | None:
    """The file of a capture; None when there is no such one, or it is not saved yet."""
    connection = store.database.connect()
    try:
        with connection.transaction(write=False):
            row = connection.execute("SELECT body FROM capture WHERE id = ?", (identity,)).fetchone()
    finally:
        connection.close()
    return row[0] or None if row else None


def start(
    store: Store,
    profilers: Sequence[str] = (),
    endpoint: str = ALL,
    seconds: float = 300.0,
    *,
    known: Collection[str] | None = None,
) -> None:
    """Begin a capture in all workers of the store; it ends by itself.

    Raises:
        SwitchError: one runs already, the time is not between a second and an hour, or as for
            `switches.turn_on`.
        StoreError: the store cannot be written to.
    """
    if not 1 <= seconds <= MAX_SECONDS:
        raise SwitchError(f"time {seconds:g} s: expected from 1 second to 1 hour")
    now = time.time()
    scope = json.dumps({"profilers": list(profilers), "endpoint": endpoint})
    if any(row.state == "running" for row in captures(store)):
        raise SwitchError("a capture is running already: stop it first")
    if profilers:
        switches.turn_on(store, profilers, endpoint, seconds=seconds, known=known)
    connection = store.database.connect()
    try:
        with connection.transaction(write=True):
            connection.insert(schema.ADD_CAPTURES, [(new_id(now), now, now + seconds, scope, 0.0, "")])
            connection.execute(
                """DELETE FROM capture
                    WHERE id NOT IN (SELECT id FROM capture ORDER BY started_at DESC LIMIT ?)""",
                (KEPT,),
            )
    finally:
        connection.close()


def stop(store: Store) -> None:
    """End the capture that is running; without one, nothing happens.

    Raises:
        StoreError: the store cannot be written to.
    """
    now = time.time()
    running = [row for row in captures(store) if row.state == "running"]
    _write(store, "UPDATE capture SET ends_at = ? WHERE ends_at > ?", (now, now))
    for row in running:
        if row.profilers:
            switches.withdraw(store, row.profilers, row.endpoint)


def delete(store: Store, identity: str) -> None:
    """Forget a capture that has ended.

    Raises:
        StoreError: the store cannot be written to.
    """
    _write(store, "DELETE FROM capture WHERE id = ? AND ends_at <= ?", (identity, time.time()))


class Saver:
    """Saves the captures that have ended: a chore of the writer's."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._next_look = 0.0

    def __call__(self, keeper: Keeper | None) -> None:
        """Look whether one has to be saved, and save it unless another worker does."""
        if keeper is None or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_SECONDS
        now = time.time()
        with keeper.connection.transaction(write=False) as connection:
            rows = connection.execute(
                """SELECT id, started_at, ends_at, scope, 0 FROM capture
                    WHERE ends_at < ? AND claimed_at < ? AND body = ''""",
                (now - SAVE_AFTER, now - CLAIM_SECONDS),
            ).fetchall()
        for row in map(_row, rows):
            with keeper.connection.transaction(write=True) as connection:
                claim = "UPDATE capture SET claimed_at = ? WHERE id = ? AND claimed_at < ?"
                claimed = connection.execute(claim, (now, row.id, now - CLAIM_SECONDS)).rowcount
            if claimed:
                self._save(keeper, row)

    def _save(self, keeper: Keeper, row: CaptureRow) -> None:
        made = capture.build(self._store, row.period, row.ends_at)
        requests = sum(each.requests for each in made.endpoint_rows)
        scope = {"profilers": row.profilers, "endpoint": row.endpoint, "requests": requests}
        with keeper.connection.transaction(write=True) as connection:
            connection.execute(
                "UPDATE capture SET scope = ?, body = ? WHERE id = ?",
                (json.dumps(scope), capture.dump(made), row.id),
            )


def _row(row: Sequence[Any]) -> CaptureRow:
    identity, started_at, ends_at, scope, size = row
    found = json.loads(scope)
    requests = found.get("requests", 0)
    return CaptureRow(
        identity, started_at, ends_at, tuple(found["profilers"]), found["endpoint"], requests, size
    )


def _write(store: Store, sql: str, parameters: Sequence[Any]) -> None:
    connection = store.database.connect()
    try:
        with connection.transaction(write=True):
            connection.execute(sql, parameters)
    finally:
        connection.close()
