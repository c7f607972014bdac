"""The plans of slow statements over time, in the store: a row for each, until another takes its place."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from profilers.storage import schema
from profilers.storage.database import Connection

MAX_PLANS = 1_000
MAX_LINES = 200
"""Of one plan."""

Planned = tuple[int, str, float, Sequence[str]]
"""A statement's id, its database, when its plan was asked for, and the lines of `profilers.plans.outline`."""

_ESTIMATE = re.compile(r" \(cost \d+, \d+ rows\)$")


def structure(outline: Sequence[str]) -> list[str]:
    """A plan without its estimates: these change with every row, which is no other plan."""
    return [_ESTIMATE.sub("", line) for line in outline]


def note_plans(connection: Connection, plans: Sequence[Planned]) -> None:
    """Add plans, or confirm those that are known; within a writing transaction.

    Workers ask for plans at different times: one that was asked for before the newest known one says nothing.
    """
    for shape, source, at, outline in sorted(plans, key=lambda plan: plan[2]):
        known = connection.execute(
            """SELECT first_seen, last_seen, body FROM plan
                WHERE shape_id = ? AND source = ? ORDER BY last_seen DESC LIMIT 1""",
            (shape, source),
        ).fetchone()
        if known and at <= known[1]:
            continue
        lines = [line.replace("\0", "") for line in outline[:MAX_LINES]]
        body = json.dumps(lines, separators=(",", ":"))
        if known and structure(json.loads(known[2])) == structure(lines):
            connection.execute(
                """UPDATE plan SET last_seen = ?, body = ?
                    WHERE shape_id = ? AND source = ? AND first_seen = ?""",
                (at, body, shape, source, known[0]),
            )
        else:
            connection.insert(schema.ADD_PLANS, [(shape, source, at, at, body)])


def keep_plans_bounded(connection: Connection, before: float) -> None:
    """Drop those last seen before a moment, and the oldest of too many; within a writing transaction."""
    connection.execute("DELETE FROM plan WHERE last_seen < ?", (before,))
    first = connection.execute(
        "SELECT last_seen FROM plan ORDER BY last_seen DESC LIMIT 1 OFFSET ?", (MAX_PLANS,)
    ).fetchone()
    if first:
        connection.execute("DELETE FROM plan WHERE last_seen <= ?", first)
