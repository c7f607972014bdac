"""What a store answers: the questions of the CLI, the reports and the console, each answer plain data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from profilers.profile import Finding, Profile


def matches(pattern: str, name: str) -> bool:
    """Whether an endpoint's name fits a pattern: equal, or with a `*` at the end, any rest."""
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


@dataclass(frozen=True, slots=True)
class Period:
    """Which profiles an answer is about; both ends are seconds since the epoch, None is open.

    Sums are kept in slots of ten seconds (older than a quarter of an hour: a minute, older than three hours:
    an hour), so `endpoints`, `findings` and `statements` answer for whole slots.
    """

    since: float | None = None
    until: float | None = None
    name: str | None = None
    """Only this endpoint (`GET /services`); a `*` at the end matches any rest."""

    def names(self, name: str) -> bool:
        """Whether an endpoint is meant."""
        return self.name is None or matches(self.name, name)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a store keeps; what goes beyond is dropped, oldest first, and counted as left out."""

    profiles: int = 100_000
    """Summary lines."""
    detailed: int = 20_000
    """Profiles with their statements."""
    megabytes: int = 100
    """Of statements, findings and sections."""
    days: float = 7.0
    endpoints: int = 1_000
    """Different names of requests and blocks."""
    shapes: int = 5_000
    """Different statements."""
    findings: int = 2_000
    """Different findings."""
    memory_samples: int = 50_000
    """Looks at the memory of a worker: of four workers, one every five seconds, those of 17 hours."""


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """One line of `list`: a profile without its statements."""

    id: str
    name: str
    kind: str
    started_at: float
    duration: float
    status: int
    outcome: str
    host: str
    worker: int
    statements: int
    rows: int
    database: float
    """Seconds in the driver."""
    findings: int


class Bounds(NamedTuple):
    """Where a figure lies with 95 % confidence."""

    low: float
    high: float


UNKNOWN = Bounds(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """One line of `endpoints`; times in seconds.

    Percentiles are off by at most 2.5 %; numbers of statements up to 100 are exact.
    """

    name: str
    requests: int
    duration_p50: float
    duration_p95: float
    statements_p50: float
    statements_p95: float
    statements_max: int
    rows: int
    timings: dict[str, float]
    """Seconds by layer, summed over the requests; `total` is all of it."""
    findings: int
    """Distinct findings."""
    errors: int
    """Answers of 500 and above, and requests that raised or were killed."""
    trend: tuple[int, ...] = ()
    """Requests in equal parts of the period, oldest first, when they were asked for."""
    statements: int = 0
    """Of all requests together."""
    median: Bounds = UNKNOWN
    """Seconds between which `duration_p50` lies with 95 % confidence; of six requests or more."""


@dataclass(frozen=True, slots=True)
class FindingRow:
    """One line of `findings`: equal fingerprints grouped."""

    finding: Finding
    """The newest of the group."""
    fingerprint: str
    endpoints: tuple[str, ...]
    requests: int
    statements: int
    duration: float
    first_seen: float
    last_seen: float
    last_profile: str


@dataclass(frozen=True, slots=True)
class StatementRow:
    """One statement shape across all endpoints."""

    shape: str
    calls: int
    duration: float
    duration_max: float
    rows: int
    endpoints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlanRow:
    """A plan that PostgreSQL chose for a slow statement, from the time it was first seen to the last."""

    shape: str
    database: str
    outline: tuple[str, ...]
    """Indented lines, with the newest estimates."""
    first_seen: float
    last_seen: float


@dataclass(frozen=True, slots=True)
class MemorySample:
    """One look at one worker's memory. Sizes in bytes; numbers that only rise begin with the worker."""

    at: float
    """Seconds since the epoch."""
    host: str
    pid: int
    born: float
    """When the process started: another process may get the same id."""
    rss: int = 0
    """Resident: pages that several workers share count in each."""
    uss: int = 0
    """Unique: what would be free again if the worker ended."""
    pss: int = 0
    """Proportional: shared pages in equal parts; 0 where the system does not say (all but Linux)."""
    blocks: int = 0
    """Blocks of Python's own allocator in use (`sys.getallocatedblocks`); larger ones are not among them."""
    threads: int = 0
    collections: tuple[int, ...] = ()
    """Garbage collections by generation, since the process began."""
    pauses: float = 0.0
    """Seconds that garbage collections took, since the profiler was switched on."""
    longest_pause: float = 0.0
    requests: dict[str, int] = field(default_factory=dict)
    """Requests by route, `GET /services/<id>`, all of them, since the profiler was switched on."""
    tracing: str = ""
    """Which run of tracemalloc was on; empty for none."""
    traced: int = 0
    """Bytes that Python has allocated since that run began, and still holds."""
    overhead: int = 0
    """What tracemalloc takes for itself; part of `rss`, `uss` and `pss`."""


class Reader(Protocol):
    """What the CLI, the reports, the console and the load gate ask of a store."""

    def profiles(
        self, period: Period = Period(), *, limit: int = 100, before: str | None = None
    ) -> Sequence[ProfileRow]:
        """Newest first; `before` is the id of the last row of the page before."""

    def profile(self, profile_id: str) -> Profile | None:
        """One profile with its statements and findings."""

    def every_profile(self, period: Period = Period()) -> Iterator[Profile]:
        """All profiles of the period, oldest first, one at a time."""

    def endpoints(self, period: Period = Period(), *, points: int = 0) -> Sequence[EndpointRow]:
        """Most total time first; with `points`, each with its requests in so many parts of the period."""

    def findings(self, period: Period = Period()) -> Sequence[FindingRow]:
        """Most time lost first."""

    def statements(self, period: Period = Period(), *, limit: int = 100) -> Sequence[StatementRow]:
        """Most total time first."""

    def plans(self) -> Sequence[PlanRow]:
        """The plans of slow statements, one after the other as they changed."""

    def memory(self, period: Period = Period()) -> Sequence[MemorySample]:
        """Looks at the memory of the workers, oldest first; empty unless the profiler `memory` was on."""

    def left_out(self) -> dict[str, int]:
        """What the store's bounds made it drop, by kind: `profiles`, `statements`, `bytes`."""
