"""Loops that are meant: allowed in code or by pattern, and reported when the allowance is idle.

    with allow_n_plus_one("Post.author", reason="three posts at most, and the authors are cached"):
        ...

    PROFILE_NPLUSONE_ALLOW = "Post.author, AuditLog.*"

A subject is what the finding names: `Post.author`, `Customer`, a table, a statement's shape; `*` is any text.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase

from profilers.collect import Record, Recording, current
from profilers.location import Site, find_site, resolve
from profilers.profile import Finding

NOTES = "nplusone"
STALE_AFTER = 100
"""Requests in which an allowance matched nothing before it is reported; a block reports it at once."""
MAX_BLOCKS = 1_000


@dataclass(slots=True)
class Allowance:
    """One `with allow_n_plus_one(…)` that was run through, or one pattern of the configuration."""

    pattern: str
    reason: str
    site: Site | None
    began: float
    ended: float
    used: bool = False

    def covers(self, subject: str, record: Record) -> bool:
        return self.began <= record.started <= self.ended and fnmatchcase(subject, self.pattern)

    @property
    def key(self) -> tuple[str, str]:
        return self.pattern, str(resolve(self.site)) if self.site else ""


@contextmanager
def allow_n_plus_one(subject: str, *, reason: str) -> Iterator[None]:
    """Let the block (or, as a decorator, the function) load `subject` one at a time without a finding.

    Args:
        subject: what the finding names, such as `Post.author`; `*` matches any text.
        reason: why; for the reader, and for the report when the allowance is no longer needed.
    """
    recording = current.get()
    allowances = []
    if recording is not None:
        began = time.perf_counter()
        site = find_site(sys._getframe(2))
        while recording is not None:
            kept = recording.notes.setdefault(NOTES, [])
            if len(kept) < MAX_BLOCKS:
                allowances.append(Allowance(subject, reason, site, began, float("inf")))
                kept.append(allowances[-1])
            recording = recording.outer
    try:
        yield
    finally:
        ended = time.perf_counter()
        for allowance in allowances:
            allowance.ended = ended


class Allowances:
    """The allowances of one process: those of the configuration, and what became of those in code."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._patterns = patterns
        self._live: set[tuple[str, str]] = set()
        self._idle: Counter[tuple[str, str]] = Counter()

    def of(self, profile: Recording) -> list[Allowance]:
        """Those that hold in this profile."""
        always = [Allowance(pattern, "", None, 0.0, float("inf")) for pattern in self._patterns]
        return [*profile.notes.get(NOTES, ()), *always]

    def stale(self, profile: Recording, allowances: list[Allowance]) -> list[Finding]:
        """Findings for allowances that matched nothing: at once in a block, else after some requests."""
        self._live |= {allowance.key for allowance in allowances if allowance.used}
        idle = {allowance.key: allowance for allowance in allowances if allowance.key not in self._live}
        at_once = profile.kind == "block"
        findings = []
        for key, allowance in idle.items():
            self._idle[key] += 1
            if self._idle[key] == STALE_AFTER or (at_once and allowance.site is not None):
                findings.append(_stale(allowance, self._idle[key]))
        return findings


def is_allowed(allowances: list[Allowance], subject: str, record: Record) -> bool:
    """Whether one of the allowances covers the statement; it is marked as used."""
    for allowance in allowances:
        if allowance.covers(subject, record):
            allowance.used = True
            return True
    return False


def _stale(allowance: Allowance, times: int) -> Finding:
    location = resolve(allowance.site) if allowance.site else None
    where = f"at {location}" if location else "in PROFILE_NPLUSONE_ALLOW"
    fix = f"Remove the allowance of {allowance.pattern!r} {where}"
    because = f" (its reason was: {allowance.reason})" if allowance.reason else ""
    return Finding(
        kind="stale_allowance",
        cause="stale_allowance",
        subject=allowance.pattern,
        count=0,
        location=location,
        fix=fix,
        message=f"Nothing needs the allowance of {allowance.pattern!r} {where}{because}. {fix}.",
        details={"times": times},
    )
