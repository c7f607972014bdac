"""What one request, or one `record` block, left behind: statements, findings, timings.

Everything here is plain data. Collecting fills it, examining adds findings to it, the store keeps it and
the reports draw it; none of them needs to know how the others work.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Location(NamedTuple):
    """A line of the project: where a statement was caused."""

    file: str
    """Path below the app's root, or the whole path when it lies elsewhere."""
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


@dataclass(slots=True)
class Statement:
    """One statement that the driver executed. Bind values are never kept."""

    shape: str
    """SQL text without values: equal shapes are the same statement asked again."""
    started: float
    """Seconds since the profile began."""
    duration: float = 0.0
    """Seconds in the driver."""
    rows: int = -1
    """Rows returned or changed; -1 where the driver does not say."""
    location: Location | None = None
    """Innermost line of the project; None when no frame of the project is on the stack."""
    parameters: int = 0
    """Keyed hash of the bind values, new in each process: tells *same* from *different*, nothing else."""
    executemany: bool = False
    database: str = ""
    """Name of the engine's database, where an app has several."""
    error: str = ""
    """Class name of the exception that ended it, else empty."""


@dataclass(slots=True)
class Finding:
    """One thing to mend, with the lines to mend it on."""

    kind: str
    """`n_plus_one`, `slow_query`, `over_budget`, `duplicate_query`, …"""
    cause: str
    """`lazy_relationship`, `deferred_column`, `get_in_loop`, …"""
    subject: str
    """`Post.author`, or the statement's shape."""
    count: int
    """How many statements it stands for."""
    location: Location | None = None
    """Where it was caused: the line that touched the attribute or sent the statement."""
    origin: Location | None = None
    """Where the parents were queried: the line that the fix belongs on."""
    fix: str = ""
    """Valid code, or one plain instruction."""
    message: str = ""
    """All of it in one readable paragraph."""
    duration: float = 0.0
    """Seconds that the statements it stands for took together."""
    details: dict[str, Any] = field(default_factory=dict)
    """More facts by name (JSON types only): `parents`, `chain`, `plan`, …"""

    @property
    def fingerprint(self) -> str:
        """The same finding in another request, another worker and another run has the same fingerprint."""
        lines = (str(place.file) + ":" + place.function for place in (self.origin, self.location) if place)
        return "|".join((self.kind, self.cause, self.subject, *lines))


@dataclass(slots=True)
class Profile:
    """What one request or block left behind."""

    name: str
    """`GET /services/<uuid:service_id>` (method and rule, never the URL), or the name given to `record`."""
    started_at: float
    """Seconds since the epoch."""
    id: str = ""
    kind: str = "request"
    """`request` or `block`."""
    duration: float = 0.0
    """Seconds until the response's body was closed."""
    status: int = 0
    """HTTP status; 0 for a block."""
    host: str = ""
    worker: int = 0
    """Process id of the worker."""
    outcome: str = "finished"
    """`finished`, `raised`, `killed` or `timed_out`."""
    statements: list[Statement] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds by layer: `database`, `pool_wait`, `connection_hold`, …"""
    counters: dict[str, int] = field(default_factory=dict)
    """Counts by name: `commits`, `rollbacks`, …"""
    sections: dict[str, Any] = field(default_factory=dict)
    """What a profiler adds beyond statements and findings, by the profiler's name; JSON types only."""
    left_out: int = 0
    """Statements that were counted but not kept, because the profile was full."""

    @property
    def noted(self) -> Sequence[Any]:
        """The kept statements, as they were noted."""
        return self.statements

    @property
    def statement_count(self) -> int:
        """How many statements ran, kept or not."""
        return len(self.noted) + self.left_out

    def costs(self) -> Iterable[tuple[str, float, int]]:
        """Shape, seconds and rows of each kept statement."""
        return [(each.shape, each.duration, each.rows) for each in self.statements]

    def to_json(self) -> dict[str, Any]:
        """The profile as JSON types; `from_json` is its inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Profile:
        """Rebuild a profile from `to_json`.

        Raises:
            TypeError, KeyError: the data is not of this shape.
        """
        return cls(
            **{
                **data,
                "statements": [Statement(**_located(item)) for item in data["statements"]],
                "findings": [Finding(**_located(item)) for item in data["findings"]],
            }
        )


def _located(item: dict[str, Any]) -> dict[str, Any]:
    places = {key: Location(*item[key]) for key in ("location", "origin") if item.get(key)}
    return {**item, **places}
