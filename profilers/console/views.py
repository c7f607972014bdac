"""What each page of the console shows, gathered as plain data."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import abort, request

from profilers import comparison, options, switches
from profilers.console import capture, capturing, figures, leaks
from profilers.console.source import excerpt
from profilers.console.workers import workers_seen
from profilers.reports.units import moment
from profilers.store import Period, Reader, Store

if TYPE_CHECKING:
    from profilers.worker_slots import WorkerSlots

PERIODS = {"10m": 600.0, "1h": 3600.0, "6h": 6 * 3600.0, "1d": 86400.0, "7d": 7 * 86400.0, "all": None}
POINTS = 24
ENDPOINTS, FINDINGS, REQUESTS, STATEMENTS, RUNS, FLIPS = 100, 20, 50, 60, 80, 10
"""Rows on a page."""
COMPARED = 100
"""Endpoints on a page of the comparison."""
BACK = {"1d": 86400.0, "7d": 7 * 86400.0}
"""How far the earlier of two compared periods may lie, beside right before."""
ALL_STATEMENTS = 5_000
"""As many shapes as a store keeps."""


@dataclass(frozen=True)
class Source:
    """What the console shows."""

    reader: Reader
    store: Store | None = None
    """What can be switched and cleared; None of a capture."""
    slots: WorkerSlots | None = None
    root: Path | None = None
    """Only files below it are quoted; None quotes none."""
    configured: Sequence[str] = ()
    """The profilers of the configuration."""
    before: Reader | None = None
    """A second capture, that this one is compared with."""
    title: str = ""
    """Of a capture."""


Data = dict[str, Any]


def overview(source: Source) -> Data:
    """Endpoints, most total time first."""
    rows = source.reader.endpoints(period_of(source), points=POINTS)
    first = _first()
    return {
        "endpoints": rows[first : first + ENDPOINTS],
        "requests": sum(row.requests for row in rows),
        "errors": sum(row.errors for row in rows),
        "time": sum(row.timings["total"] for row in rows),
        "database": sum(row.timings.get("database", 0.0) for row in rows),
        "findings": len(source.reader.findings(period_of(source))),
        "left_out": {kind: count for kind, count in source.reader.left_out().items() if count},
        "next": _next(rows, first, ENDPOINTS),
    }


def findings(source: Source) -> Data:
    """What to mend, most time lost first, each with its lines of source."""
    rows = source.reader.findings(period_of(source))
    kinds = sorted({row.finding.kind for row in rows})
    if kind := request.args.get("kind"):
        rows = [row for row in rows if row.finding.kind == kind]
    first = _first()
    return {
        "findings": [
            {
                **asdict(row),
                "finding": row.finding,
                "origin_source": excerpt(source.root, row.finding.origin),
                "location_source": excerpt(source.root, row.finding.location),
            }
            for row in rows[first : first + FINDINGS]
        ],
        "kinds": kinds,
        "kind": kind,
        "next": _next(rows, first, FINDINGS),
    }


def requests(source: Source) -> Data:
    """Single requests, newest first; the next page begins before the last row's id."""
    rows = source.reader.profiles(period_of(source), limit=REQUESTS + 1, before=request.args.get("before"))
    return {"requests": rows[:REQUESTS], "before": rows[REQUESTS - 1].id if len(rows) > REQUESTS else None}


def one_request(source: Source, profile_id: str) -> Data:
    """One request: its layers, its statements in order, its findings, its call stack, its memory."""
    profile = source.reader.profile(profile_id)
    if profile is None:
        abort(404, "There is no such request (any more). One that has just ended is here in a second.")
    found = figures.runs(profile)
    first = _first()
    return {
        "profile": profile,
        "layers": figures.layers(profile),
        "runs": found[first : first + RUNS],
        "findings": [
            {
                "finding": finding,
                "origin_source": excerpt(source.root, finding.origin),
                "location_source": excerpt(source.root, finding.location),
            }
            for finding in profile.findings[:FINDINGS]
        ],
        "flame": figures.flame(profile.sections.get("pyinstrument", {})),
        "next": _next(found, first, RUNS),
    }


def statements(source: Source) -> Data:
    """Statement shapes across endpoints, most total time first, with the plans of the slow ones, and which of
    them changed in the period.
    """
    first = _first()
    period = period_of(source)
    rows = source.reader.statements(period, limit=max(first + STATEMENTS, ALL_STATEMENTS) + 1)
    plans = source.reader.plans()
    newest = {row.shape: row.outline for row in plans}
    shapes = {row.shape for row in rows}
    flips = [
        flip
        for flip in figures.flips(plans)
        if flip.shape in shapes and (period.since is None or flip.at >= period.since)
    ]
    return {
        "flips": flips[:FLIPS],
        "more_flips": max(0, len(flips) - FLIPS),
        "statements": [
            {**asdict(row), "plan": newest.get(row.shape, ())} for row in rows[first : first + STATEMENTS]
        ],
        "total": sum(row.duration for row in rows),
        "next": _next(rows, first, STATEMENTS),
    }


def workers(source: Source) -> Data:
    """What each worker does now, what profiling costs it, and its memory over time."""
    period = period_of(source)
    recent = time.time() - 6 * 3600
    if source.store is not None and (period.since is None or period.since < recent):
        period = replace(period, since=recent)
    status = switches.status(source.store) if source.store is not None else None
    running = source.slots.running() if source.slots is not None else []
    memory = source.reader.memory(period)
    seen = workers_seen(status.workers if status else (), running, memory)
    return {
        "workers": seen,
        "held": sum(figures.own(each.memory.newest) for each in seen if each.memory and each.status),
        "leak": (leaks.live_verdict(source.store) if source.store else leaks.judged(memory, time.time())),
        "lost": [
            row for row in source.reader.findings(period_of(source)) if row.finding.kind == "lost_request"
        ],
    }


def compare(source: Source) -> Data:
    """Two periods, or two captures: what changed first, by endpoint.

    The next page begins after the endpoint that the last one ended with.
    """
    chosen = request.args.get("a", ""), request.args.get("b", "")
    if source.before is not None:
        sides: tuple[Any, Any] = (source.before, source.reader)
        labels = ("the capture before", "this capture")
    elif all(chosen) and source.store is not None:
        sides = (_captured(source.store, chosen[0]), _captured(source.store, chosen[1]))
        labels = (f"capture of {moment(sides[0].made_at)}", f"capture of {moment(sides[1].made_at)}")
    else:
        periods = _compared_periods()
        sides = (comparison.Slice(source.reader, periods[0]), comparison.Slice(source.reader, periods[1]))
        labels = (_shown(periods[0]), _shown(periods[1]))
    data: Data = {
        "labels": labels,
        "length": request.args.get("length", "1h"),
        "back": request.args.get("back", ""),
        "until": request.args.get("until", ""),
        "chosen": chosen if all(chosen) else None,
        "captures": _saved(source),
    }
    try:
        compared = comparison.compare(*sides, labels)
    except comparison.ComparisonError as error:
        return {**data, "compared": None, "why": str(error)}
    rows = sorted(compared.differences, key=lambda each: (not each.changed, each.name))
    after = request.args.get("after")
    first = next((place for place, row in enumerate(rows, 1) if row.name == after), 0)
    shown = rows[first : first + COMPARED]
    return {
        **data,
        "compared": replace(compared, differences=shown),
        "endpoints": len(rows),
        "changed": sum(row.changed for row in rows),
        "until": f"{_moment_asked('until') or time.time():.0f}",
        "next": shown[-1].name if len(rows) > first + COMPARED else None,
    }


def _compared_periods() -> tuple[Period, Period]:
    name, back = request.args.get("length", "1h"), request.args.get("back") or None
    length = PERIODS.get(name)
    if length is None or (back is not None and back not in BACK):
        abort(400, f"length={name[:20]}, back={back}: expected lengths {', '.join(PERIODS)}, back 1d or 7d")
    return comparison.periods(
        length, _moment_asked("until"), BACK[back] if back else None, request.args.get("route") or None
    )


def _moment_asked(name: str) -> float | None:
    """Seconds since the epoch, or a local time such as a form's `2026-11-23T18:30`."""
    text = request.args.get(name, "")
    if not text or text.isdigit():
        return _number(name)
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        abort(400, f"{name}={text[:20]}: expected such as 2026-11-23T18:30")


def _captured(store: Store, identity: str) -> capture.Capture:
    text = capturing.text(store, identity)
    if text is None:
        abort(404, "There is no such capture (any more).")
    return capture.parse(text)


def _saved(source: Source) -> list[capturing.CaptureRow]:
    rows = capturing.captures(source.store) if source.store is not None else []
    return [row for row in rows if row.state == "saved"]


def captures(source: Source) -> Data:
    """The capture that runs, those that were saved, and what a new one may switch on."""
    assert source.store is not None
    rows = capturing.captures(source.store)
    now = time.time()
    return {
        "captures": [{**asdict(row), "state": row.state} for row in rows],
        "running": next((row for row in rows if row.state == "running"), None),
        "now": now,
        "runs": running_profilers(source),
        "known": sorted(options.available()),
    }


def running_profilers(source: Source) -> list[str]:
    """Those of the configuration that do not rest, and those that were switched on."""
    assert source.store is not None
    state = switches.status(source.store).switches
    return sorted({*state.configured(source.configured), *switches.names_on(state)})


def switched(source: Source) -> Data:
    """What is on and until when, and what there is to switch."""
    assert source.store is not None
    status = switches.status(source.store)
    now = time.time()
    return {
        "on": [{**asdict(switch), "left": switch.until - now} for switch in status.switches.on],
        "off": [
            {"profiler": name, "left": until and until - now} for name, until in status.switches.off.items()
        ],
        "configured": source.configured,
        "known": sorted(options.available()),
        "workers": len(status.workers),
    }


def ago(at: float) -> str:
    """`now`, `12 s ago`, `3 min ago`, `5 h ago`, `2 days ago`."""
    passed = time.time() - at
    for size, unit in ((86400 * 2, 86400), (7200, 3600), (120, 60), (3, 1)):
        if passed >= size:
            return f"{passed / unit:.0f} {_UNITS[unit]} ago"
    return "now"


_UNITS = {86400: "days", 3600: "h", 60: "min", 1: "s"}


def period_of(source: Source) -> Period:
    name = request.args.get("last") or ("1h" if source.store is not None else "all")
    if name not in PERIODS:
        abort(400, f"last={name[:20]}: expected one of {', '.join(PERIODS)}")
    length = PERIODS[name]
    since = time.time() - length if length else None
    return Period(since=since, name=request.args.get("route") or None)


def _first() -> int:
    return int(_number("from") or 0)


def _number(name: str) -> float | None:
    text = request.args.get(name)
    if not text:
        return None
    if not text.isdigit() or len(text) > 12:
        abort(400, f"{name}={text[:20]}: expected a whole number")
    return float(text)


def _next(rows: Sequence[Any], first: int, size: int) -> int | None:
    return first + size if len(rows) > first + size else None


def _shown(period: Period) -> str:
    since, until = moment(period.since or 0), moment(period.until or 0)
    day = since.partition(" ")[0]
    return f"{since} to {until.removeprefix(f'{day} ')}"
