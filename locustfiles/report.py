"""A run and its verdict as a table for the terminal, as Markdown for a pull request and as JSON for tools."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Iterable
from typing import Any

from locustfiles import processes
from locustfiles.gate import Measured, percentile
from locustfiles.profiled import ProfiledRoute
from locustfiles.result import Result

COLUMNS = ("route", "requests", "failed", "average", "p50", "p95", "p99", "max")
PROFILED_COLUMNS = ("route", "profiled", "statements p50", "max", "database")
NOTE = "Times in milliseconds, percentiles to half a percent."


def terminal(result: Result) -> str:
    """The routes as a table, each threshold with what was measured, and the verdict."""
    run, verdict, seen, held = result.run, result.verdict, result.seen, result.held
    lines = table([COLUMNS, *map(_row, run.routes)], _row(run.total))
    lines += ["", NOTE, ""]
    if seen.routes:
        lines += table([PROFILED_COLUMNS, *map(_profiled_row, seen.routes)])
        lines += [f"  finding: {finding}" for finding in seen.findings]
        lines += [""]
    if held.answer:
        lines += [f"memory: {held.text}", ""]
    lines += [
        f"  {'ok  ' if check.held else 'FAIL'}  {check.subject}: {check.threshold} ({check.measured})"
        for check in verdict.checks
        if check.subject in ("the run", "all routes") or not check.held
    ]
    lines += [f"  failure: {failure}" for failure in run.failures[:10]]
    lines += ["", *result.costs, *(f"no verdict: {reason}" for reason in verdict.void)]
    lines += ["", headline(result)]
    return "\n".join(lines)


def markdown(result: Result) -> str:
    """What a pull-request comment shows."""
    run, verdict, seen, held = result.run, result.verdict, result.seen, result.held
    lines = [f"## {text(headline(result))}", ""]
    lines += [f"- **{text(reason)}**" for reason in verdict.void or verdict.reasons]
    lines += ["", "| threshold | measured | |", "|---|---|---|"]
    lines += [
        f"| {text(check.threshold)} | {text(check.measured)} | {'held' if check.held else '**not held**'} |"
        for check in verdict.checks
        if check.subject in ("the run", "all routes")
    ]
    lines += ["", *markdown_table([COLUMNS, *map(_row, (*run.routes, run.total))]), "", NOTE, ""]
    if seen.routes:
        lines += ["What the profilers saw, in a sample of the requests:", ""]
        lines += [*markdown_table([PROFILED_COLUMNS, *map(_profiled_row, seen.routes)]), ""]
        lines += [*(f"- {text(finding)}" for finding in seen.findings or ("No findings.",)), ""]
    if held.answer:
        lines += ["Memory:", "", *(f"    {line}" for line in held.text.splitlines()), ""]
        lines += ["![Memory of each worker against its requests](memory.svg)", ""]
    if run.failures:
        lines += ["Failures:", "", *(f"- {text(failure)}" for failure in run.failures[:20]), ""]
    lines += [*(f"- {text(cost)}" for cost in result.costs), ""]
    lines += [", ".join(f"{name}: {text(str(value))}" for name, value in result.facts.items())]
    return "\n".join(lines) + "\n"


def as_json(result: Result) -> dict[str, Any]:
    """Everything, for tools; `version` rises when a member changes its meaning."""
    run, verdict = result.run, result.verdict
    return {
        "version": 1,
        "passed": verdict.passed,
        "reasons": verdict.reasons,
        "no_verdict": list(verdict.void),
        "scenario": dataclasses.asdict(result.scenario),
        "facts": dict(result.facts),
        "checks": [dataclasses.asdict(check) for check in verdict.checks],
        "total": dataclasses.asdict(run.total),
        "routes": [dataclasses.asdict(route) for route in run.routes],
        "failures": list(run.failures),
        "profiled": dataclasses.asdict(result.seen),
        "memory": {"answer": result.held.answer, "text": result.held.text},
        "generators": [dataclasses.asdict(one) for one in run.generators],
        "course": [
            {
                "at": second.at,
                "users": second.users,
                "requests": second.requests,
                "failures": second.failures,
                **{f"p{share}_ms": percentile(second.response_times, share / 100) for share in (50, 95, 99)},
            }
            for second in run.course
        ],
        "service_cpu": processes.cpu(result.usage, database=False),
        "database_cpu": processes.cpu(result.usage, database=True),
        "seconds": run.seconds,
    }


def figures(result: Result) -> dict[str, dict[str, float]]:
    """What the history keeps of a run, by figure and route."""
    run = result.run
    times = {one.name: one.p95_ms for one in (*run.routes, run.total)}
    statements = {one.name: one.statements_p50 for one in result.seen.routes}
    rate = {run.total.name: run.total.requests / run.seconds} if run.seconds else {}
    return {"p95 ms": times, "requests a second": rate, "statements": statements}


def headline(result: Result) -> str:
    """The scenario and its verdict."""
    return f"{result.scenario.name}: {result.outcome}"


def _row(measured: Measured) -> tuple[str, ...]:
    times = (measured.average_ms, measured.p50_ms, measured.p95_ms, measured.p99_ms, measured.max_ms)
    counts = (str(measured.requests), str(measured.failures))
    return (measured.name, *counts, *(f"{milliseconds:.1f}" for milliseconds in times))


def _profiled_row(route: ProfiledRoute) -> tuple[str, ...]:
    statements = (f"{route.statements_p50:g}", str(route.statements_max))
    return (route.name, str(route.requests), *statements, f"{route.database_share:.0%}")


def table(rows: list[tuple[str, ...]], last: tuple[str, ...] | None = None) -> list[str]:
    """Aligned lines below a header; the last row, when there is one, below a line of its own."""
    table = [*rows, *([last] if last else [])]
    widths = [max(len(row[column]) for row in table) for column in range(len(rows[0]))]
    header, *lines = [_aligned(row, widths) for row in table]
    rule = "-" * len(header)
    return [header, rule, *lines[:-1], rule, lines[-1]] if last else [header, rule, *lines]


def markdown_table(rows: list[tuple[str, ...]]) -> list[str]:
    header, *lines = ["| " + " | ".join(map(text, row)) + " |" for row in rows]
    return [header, "|---" + "|---:" * (len(rows[0]) - 1) + "|", *lines]


def _aligned(row: Iterable[str], widths: list[int]) -> str:
    first, *rest = row
    return "  ".join([first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))])


def text(value: str) -> str:
    """Text that Markdown shows as it is."""
    return html.escape(value, quote=False).replace("|", "\\|")
