"""Looks at the memory of the workers, in the store: appended, bounded in number and age."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from profilers.storage import schema
from profilers.storage.database import Connection
from profilers.storage.rows import Limits, MemorySample

_KEY = ("at", "host", "pid", "born")


def append_sample(connection: Connection, sample: MemorySample) -> None:
    """Add one; within a writing transaction."""
    body = {name: value for name, value in asdict(sample).items() if name not in _KEY and value}
    connection.insert(
        schema.ADD_MEMORY_SAMPLES,
        [(sample.at, sample.host, sample.pid, sample.born, json.dumps(body, separators=(",", ":")))],
    )


def keep_samples_bounded(connection: Connection, limits: Limits) -> None:
    """Drop the oldest beyond the limits; age counts back from the newest. Within a writing transaction."""
    (newest,) = connection.execute("SELECT COALESCE(MAX(taken_at), 0) FROM memory_sample").fetchone()
    connection.execute("DELETE FROM memory_sample WHERE taken_at < ?", (newest - limits.days * 86400,))
    first = connection.execute(
        "SELECT taken_at FROM memory_sample ORDER BY taken_at DESC LIMIT 1 OFFSET ?",
        (limits.memory_samples,),
    ).fetchone()
    if first:
        connection.execute("DELETE FROM memory_sample WHERE taken_at <= ?", first)


def decode_sample(row: Sequence[Any]) -> MemorySample:
    """A row of the table as a record."""
    *key, body = row
    values = json.loads(body)
    values["collections"] = tuple(values.get("collections", ()))
    return MemorySample(*key, **values)
