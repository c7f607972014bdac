"""A comparison as a table for the terminal, as Markdown for a pull request and as JSON for tools."""

from __future__ import annotations

import dataclasses
from typing import Any

from locustfiles.compare.comparison import JUDGED, Compared, Comparison, answered
from locustfiles.report import markdown_table, table, text

COLUMNS = ("route", "verdict", "CPU", "database CPU", "latency", "statements", "rows", "bytes", "allocations")
NOTE = (
    "Ratios of head to base with their interval (95 % for all that is judged together). Counts are of one "
    "request, base → head where they differ. Latency is not judged."
)


def terminal(compared: Comparison) -> str:
    """The table, what is wrong, and the verdict."""
    lines = [*table([COLUMNS, *map(_row, compared.routes)]), "", NOTE, ""]
    lines += _notes(compared)
    lines += [f"  FAIL  {problem}" for problem in compared.problems]
    lines += [f"  cannot tell  {doubt}" for doubt in compared.doubts]
    return "\n".join([*lines, "", headline(compared)])


def markdown(compared: Comparison) -> str:
    """What a pull-request comment shows."""
    lines = [f"## {text(headline(compared))}", ""]
    lines += [f"- **{text(problem)}**" for problem in compared.problems]
    lines += [f"- cannot tell: {text(doubt)}" for doubt in compared.doubts]
    lines += ["", *markdown_table([COLUMNS, *map(_row, compared.routes)]), "", NOTE, ""]
    lines += [*(text(note) for note in _notes(compared)), ""]
    lines += [", ".join(f"{name}: {text(str(value))}" for name, value in compared.facts.items())]
    return "\n".join(lines) + "\n"


def as_json(compared: Comparison) -> dict[str, Any]:
    """Everything, for tools; `version` rises when a member changes its meaning."""
    return {
        "version": 1,
        "passed": compared.passed,
        "problems": compared.problems,
        "cannot_tell": compared.doubts,
        "facts": dict(compared.facts),
        "only_head": list(compared.only_head),
        "in_neither": list(compared.neither),
        "routes": [
            {
                "name": route.name,
                "verdict": route.verdict,
                "problems": list(route.problems),
                "times": {figure: dataclasses.asdict(one) for figure, one in route.times.items()},
                "base": _counts(route, "base"),
                "head": _counts(route, "head"),
            }
            for route in compared.routes
        ],
    }


def figures(compared: Comparison) -> dict[str, dict[str, float]]:
    """What the history keeps of head, by figure and route."""
    heads = {route.name: route.head for route in compared.routes if answered(route.head)}
    return {
        "CPU ms": {route.name: route.cpu_ms for route in compared.routes if route.cpu_ms},
        "statements": {name: head.statement_count for name, head in heads.items()},
        "allocations": {name: head.allocations for name, head in heads.items()},
    }


def headline(compared: Comparison) -> str:
    """The verdict and what it is about."""
    return f"compare: {compared.outcome}"


def _counts(route: Compared, side: str) -> dict[str, Any]:
    counted = route.base if side == "base" else route.head
    return {
        "status": counted.status,
        "statements": counted.statement_count,
        "rows": counted.rows,
        "bytes": counted.bytes,
        "allocations": counted.allocations,
        "allocated_bytes": counted.allocated,
        "lines": {one.shape: one.line for one in counted.statements.values()},
        "findings": list(counted.findings.values()),
    }


def _notes(compared: Comparison) -> list[str]:
    notes = [f"{name}: new in head, nothing to compare with" for name in compared.only_head]
    return notes + [f"{name}: answered by neither version" for name in compared.neither]


def _row(route: Compared) -> tuple[str, ...]:
    base, head = route.base, route.head
    if not answered(head):
        return (route.name, f"answers {head.status}", *("",) * (len(COLUMNS) - 2))
    times = (str(route.times.get(figure, "–")) for figure in (*JUDGED, "latency"))  # noqa: RUF001
    counts = (
        (base.statement_count, head.statement_count),
        (base.rows, head.rows),
        (base.bytes, head.bytes),
        (base.allocations, head.allocations),
    )
    return (route.name, route.verdict, *times, *(_change(*pair) for pair in counts))


def _change(before: int, now: int) -> str:
    return f"{now:,}" if before == now else f"{before:,} → {now:,}"
