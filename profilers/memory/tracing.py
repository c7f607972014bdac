"""The switch that turns tracemalloc on in all workers: a line in the store, which ends by itself.

Whoever turns it holds it only for a short time and renews it, so that tracemalloc goes off again even when
that process is killed.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass

from profilers.storage.database import Connection
from profilers.store import Store

_NAME = "tracing"


@dataclass(frozen=True)
class Tracing:
    """One run of tracemalloc in all workers of a store."""

    id: str
    until: float
    """Seconds since the epoch."""
    frames: int = 5
    """That tracemalloc keeps of each allocation."""
    snapshot_every: float = 30.0
    """Seconds between two snapshots of a worker."""
    sample_every: float = 5.0


def turn(store: Store, tracing: Tracing) -> None:
    """Let all workers trace, and go on until its time is over.

    Raises:
        StoreError: the store cannot be written to.
    """
    connection = store.database.connect()
    try:
        with connection.transaction(write=True):
            connection.insert(
                ("INSERT INTO control VALUES ", 2, " ON CONFLICT (name) DO UPDATE SET body = excluded.body"),
                [(_NAME, json.dumps(asdict(tracing)))],
            )
    finally:
        connection.close()


def asked_for(store: Store) -> Tracing | None:
    """What all workers are to do now.

    Raises:
        StoreError: the store cannot be read.
    """
    connection = store.database.connect()
    try:
        with connection.transaction(write=False):
            return read(connection)
    finally:
        connection.close()


def read(connection: Connection) -> Tracing | None:
    """The run that is on; None when there is none or its time is over. Within a transaction."""
    row = connection.execute("SELECT body FROM control WHERE name = ?", (_NAME,)).fetchone()
    tracing = Tracing(**json.loads(row[0])) if row else None
    return tracing if tracing is not None and tracing.until > time.time() else None
