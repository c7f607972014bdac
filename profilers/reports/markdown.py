"""The report for a pull request or a wiki."""

from __future__ import annotations

import html
from collections.abc import Sequence

from profilers.reports import Report
from profilers.reports.units import plural, seconds, share, shortened
from profilers.store import EndpointRow, FindingRow


def render(report: Report) -> str:
    """The whole report."""
    parts = ["## Endpoints", endpoints(report.endpoints), "## Findings", findings(report.findings)]
    if report.left_out:
        parts.append("Left out: " + ", ".join(f"{count} {kind}" for kind, count in report.left_out.items()))
    return "\n\n".join(parts) + "\n"


def endpoints(rows: Sequence[EndpointRow]) -> str:
    """A table, a row an endpoint."""
    lines = [
        "| endpoint | requests | p50 | p95 | statements p50 | max | database | findings |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {as_text(row.name)} | {row.requests} | {seconds(row.duration_p50)} | {seconds(row.duration_p95)} "
        f"| {row.statements_p50:g} | {row.statements_max} "
        f"| {share(row.timings.get('database', 0.0), row.timings.get('total', 0.0))} | {row.findings} |"
        for row in rows
    ]
    return "\n".join(lines)


def findings(rows: Sequence[FindingRow]) -> str:
    """A list, a point a finding, the fix below it."""
    return "\n".join(map(_finding, rows)) if rows else "None."


def as_text(value: str) -> str:
    """Text that Markdown shows as it is, in a table too."""
    escaped = html.escape(shortened(value, 300), quote=False)
    return "".join(f"\\{character}" if character in "\\`*_[]|#!~" else character for character in escaped)


def _finding(row: FindingRow) -> str:
    finding = row.finding
    lines = [
        f"- **{as_text(finding.subject)}** ({as_text(finding.cause.replace('_', ' '))}): "
        f"{plural(row.statements, 'statement')} in {plural(row.requests, 'request')} of "
        f"{as_text(', '.join(row.endpoints))}, {seconds(row.duration)}"
    ]
    if finding.origin:
        lines.append(f"  - queried at {as_text(str(finding.origin))}")
    if finding.location:
        lines.append(f"  - caused at {as_text(str(finding.location))}")
    if finding.fix:
        lines.append(f"  - fix: <code>{as_text(finding.fix)}</code>")
    return "\n".join(lines)
