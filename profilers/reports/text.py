"""The report for a terminal. A finding says all that is needed to mend the code."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from profilers.profile import Profile
from profilers.reports import Report
from profilers.reports.units import moment, plural, seconds, share, shortened, visible
from profilers.store import EndpointRow, FindingRow, ProfileRow, StatementRow

MOST = 1000
"""Characters of a name or a finding's subject that are shown."""
NOTHING = "Nothing that was profiled matches."
EMPTY = "Nothing was profiled yet. Start the app with FLASK_PROFILE=queries,nplusone and send it requests."


def render(report: Report) -> str:
    """The whole report."""
    if not report.endpoints and not report.findings:
        return EMPTY
    parts = [endpoints(report.endpoints), findings(report.findings), statements(report.statements[:20])]
    if report.left_out:
        left_out = ", ".join(f"{count} {kind}" for kind, count in report.left_out.items())
        parts.append(f"Left out, because the store is bounded: {left_out}")
    return "\n\n".join(parts)


def endpoints(rows: Sequence[EndpointRow]) -> str:
    """One line an endpoint."""
    header = (
        "endpoint",
        "requests",
        "p50",
        "p95",
        "stmts p50",
        "p95",
        "max",
        "database",
        "errors",
        "findings",
    )
    return _table(
        header,
        [
            (
                row.name,
                str(row.requests),
                seconds(row.duration_p50),
                seconds(row.duration_p95),
                f"{row.statements_p50:g}",
                f"{row.statements_p95:g}",
                str(row.statements_max),
                share(row.timings.get("database", 0.0), row.timings.get("total", 0.0)),
                str(row.errors),
                str(row.findings),
            )
            for row in rows
        ],
    )


def findings(rows: Sequence[FindingRow]) -> str:
    """One paragraph a finding."""
    return "\n\n".join(map(_finding, rows)) if rows else "No findings."


def statements(rows: Sequence[StatementRow]) -> str:
    """One line a statement shape."""
    if not rows:
        return "No statements."
    width = max(shutil.get_terminal_size().columns - 40, 60)
    header = ("statement", "calls", "total", "longest", "rows")
    return _table(
        header,
        [
            (
                shortened(row.shape, width),
                str(row.calls),
                seconds(row.duration),
                seconds(row.duration_max),
                str(row.rows or "-"),  # no driver counts them all
            )
            for row in rows
        ],
    )


def profiles(rows: Sequence[ProfileRow]) -> str:
    """One line a request."""
    header = ("id", "when", "endpoint", "status", "time", "stmts", "database", "findings", "worker")
    return _table(
        header,
        [
            (
                row.id,
                moment(row.started_at),
                row.name,
                str(row.status) if row.outcome == "finished" else row.outcome,
                seconds(row.duration),
                str(row.statements),
                share(row.database, row.duration),
                str(row.findings),
                f"{row.host}:{row.worker}",
            )
            for row in rows
        ],
    )


def profile(one: Profile) -> str:
    """One request with its statements and findings."""
    width = max(shutil.get_terminal_size().columns - 6, 74)
    lines = [
        f"{shortened(one.name, MOST)}  {one.outcome} {one.status or ''}".rstrip(),
        f"{moment(one.started_at)}, {seconds(one.duration)}, {plural(one.statement_count, 'statement')}, "
        f"worker {one.host}:{one.worker}, id {one.id}",
    ]
    lines += [f"  {layer}: {seconds(spent)}" for layer, spent in one.timings.items()]
    lines += [f"  {name}: {count}" for name, count in one.counters.items() if count]
    for number, statement in enumerate(one.statements, 1):
        place = f"  at {statement.location}" if statement.location else ""
        rows = "" if statement.rows < 0 else f", {plural(statement.rows, 'row')}"
        failed = f", failed: {statement.error}" if statement.error else ""
        lines.append(f"{number:4}  {seconds(statement.duration)}{rows}{failed}{place}")
        lines.append(f"      {shortened(statement.shape, width)}")
    if one.left_out:
        lines.append(f"      and {one.left_out} more that were counted but not kept")
    lines += [f"\n{finding.message}" for finding in one.findings]
    return visible("\n".join(lines))


def _finding(row: FindingRow) -> str:
    finding = row.finding
    lines = [
        f"{finding.cause.replace('_', ' ')}: {shortened(finding.subject, 100)}",
        f"  {plural(row.statements, 'statement')} in {plural(row.requests, 'request')} of "
        f"{shortened(', '.join(row.endpoints), MOST)}, {seconds(row.duration)} in all; "
        f"first seen {moment(row.first_seen)}, last {moment(row.last_seen)}; one of them: {row.last_profile}",
    ]
    if finding.origin:
        lines.append(f"  queried at {finding.origin}")
    if finding.location:
        lines.append(f"  caused at {finding.location}")
    if finding.fix:
        lines.append(f"  fix: {finding.fix}")
    return visible("\n".join(lines))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width: the first to the left, numbers to the right."""
    rows = [[shortened(cell, MOST) for cell in row] for row in rows]
    table = [header, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    numeric = [column > 0 and all(_is_number(row[column]) for row in rows) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in table
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _is_number(cell: str) -> bool:
    return (cell[:1].isdigit() and (cell[-1:].isdigit() or cell.endswith(("s", "%")))) or cell == "-"
