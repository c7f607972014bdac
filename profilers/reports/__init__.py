"""What the profilers found, as text, JSON, Markdown, HTML, SARIF or a speedscope timeline.

    flask profile report --format html -o report.html

A report is plain data, made once from a store; each format is one file with one `render`, which draws and
decides nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from profilers.profile import Profile
from profilers.store import EndpointRow, FindingRow, Period, Reader, StatementRow

VERSION = 1
"""Of the JSON format; rises when a member changes its meaning."""


@dataclass(frozen=True)
class Report:
    """Everything that is said about a period."""

    made_at: float
    """Seconds since the epoch."""
    period: Period
    endpoints: Sequence[EndpointRow]
    findings: Sequence[FindingRow]
    statements: Sequence[StatementRow]
    slowest: Sequence[Profile]
    """The slowest requests that were kept with their statements."""
    left_out: Mapping[str, int]


def build(reader: Reader, period: Period = Period(), *, slowest: int = 10) -> Report:
    """Ask the store everything that a report says."""
    rows = sorted(reader.profiles(period, limit=1000), key=lambda row: -row.duration)[:slowest]
    profiles = (reader.profile(row.id) for row in rows)
    return Report(
        made_at=time.time(),
        period=period,
        endpoints=reader.endpoints(period),
        findings=reader.findings(period),
        statements=reader.statements(period),
        slowest=[profile for profile in profiles if profile is not None],
        left_out={kind: count for kind, count in reader.left_out().items() if count},
    )


def formats() -> Mapping[str, Callable[[Report], str]]:
    """How to draw a report, by the name of the format."""
    from profilers.reports import html, json, markdown, sarif, speedscope, text

    modules = (html, json, markdown, sarif, speedscope, text)
    return {module.__name__.rpartition(".")[2].replace("markdown", "md"): module.render for module in modules}
