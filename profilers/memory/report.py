"""A run as text: the verdict, the lines that grew, the lines that hold most, and the workers."""

from __future__ import annotations

import linecache
from collections.abc import Mapping, Sequence
from itertools import groupby

from profilers.growth import PROCESS, PYTHON
from profilers.leak_verdict import LineGrowth, Verdict
from profilers.location import shown_path
from profilers.memory.watch import Run
from profilers.reports.units import plural, shortened

LINES = 10

Grown = Mapping[tuple[str, ...], tuple[float, int]]
"""Bytes per request, and bytes, by the frames of a line."""


def render(run: Run) -> str:
    """Everything that a person wants to see of it."""
    parts = [verdict(run.verdict), ""]
    if run.grown:
        parts += ["Grew most:", *_lines(run.grown, per_request=True), ""]
    if run.consumers:
        parts += ["Hold most:", *_lines(run.consumers, per_request=False), ""]
    parts += ["Workers:", *_workers(run), ""]
    parts.append(
        f"{run.seconds:.0f} s, {plural(len(run.samples), 'sample')}, {plural(run.snapshots, 'snapshot')}"
    )
    return "\n".join(parts)


def verdict(found: Verdict) -> str:
    """The answer in one paragraph, the lines that leak below it."""
    said = [f"{found.answer.upper()}."]
    if found.answer == "leak":
        where = f" in {found.route}" if found.route else ""
        said.append(f"{_rate(found)} a request{where} ({found.kind}).")
    said.append(found.reason)
    if found.answer == "no leak" and found.growths:
        said.append(f"A leak of {_bounds(found)} would have shown.")
    if found.seconds_more:
        said.append(f"Run for {found.seconds_more:.0f} s more.")
    routes = [
        f"  {route.route}: {size(route.bytes_per_request)} for each of its requests, "
        f"{route.share:.0%} of the growth"
        for route in found.routes[:3]
    ]
    lines = [text for line in found.lines for text in _line(line, per_request=True)]
    return "\n".join([" ".join(said), *routes, *lines])


def _bounds(found: Verdict) -> str:
    """The process is known less exactly than Python's memory, which is known only while it is traced."""
    process = f"more than {size(found.growths[PROCESS.name].bound)} a request"
    python = found.growths.get(PYTHON.name)
    return f"more than {size(python.bound)} a request, in native code one of {process}" if python else process


def compared(before: Grown, after: Grown) -> str:
    """Two runs side by side, by line: what grows faster than before comes first."""
    change = {key: after.get(key, (0.0, 0))[0] - before.get(key, (0.0, 0))[0] for key in {*before, *after}}
    ranked = sorted(change, key=lambda key: -change[key])
    rows = [
        f"  {size(change[key], sign=True):>10} a request  ({size(before.get(key, (0.0, 0))[0])} -> "
        f"{size(after.get(key, (0.0, 0))[0])})  {_shown(key[0])}"
        for key in ranked
        if abs(change[key]) >= 1
    ]
    return "\n".join(["Growth by line, B against A:", *(rows or ["  no line grows differently"])])


def size(value: float, *, sign: bool = False) -> str:
    """`1.5 kB`, `-3 MB`."""
    number, unit = abs(value), "B"
    for larger in ("kB", "MB", "GB"):
        if number < 1000:
            break
        number, unit = number / 1000, larger
    mark = "-" if value < 0 else "+" if sign else ""
    return f"{mark}{number:.3g} {unit}"


def _rate(found: Verdict) -> str:
    if found.low == found.high == 0:
        return size(found.bytes_per_request)
    return f"{size(found.bytes_per_request)} ({size(found.low)} to {size(found.high)})"


def _lines(lines: Sequence[LineGrowth], *, per_request: bool) -> list[str]:
    return [text for line in lines[:LINES] for text in _line(line, per_request=per_request)]


def _line(line: LineGrowth, *, per_request: bool) -> list[str]:
    rate = f", {size(line.bytes_per_request)} a request" if per_request else ""
    route = f"  [{line.route}]" if line.route else ""
    first, *above = line.frames
    texts = [f"  {size(line.bytes):>8} in {line.blocks} blocks{rate}{route}", f"      {_shown(first)}"]
    file, _, number = first.rpartition(":")
    if source := linecache.getline(file, int(number)).strip():
        texts.append(f"          {shortened(source, 90)}")
    if above:
        texts.append(f"      from {', '.join(map(_shown, above[:3]))}")
    return texts


def _shown(frame: str) -> str:
    file, _, line = frame.rpartition(":")
    return f"{shown_path(file)}:{line}"


def _workers(run: Run) -> list[str]:
    judged = {(one.host, one.pid): one.growth for one in run.verdict.workers}
    ordered = sorted(run.samples, key=lambda one: (one.host, one.pid, one.born, one.at))
    rows = []
    for (host, pid, _), group in groupby(ordered, lambda one: (one.host, one.pid, one.born)):
        samples = list(group)
        first, last = samples[0], samples[-1]
        requests = sum(last.requests.values()) - sum(first.requests.values())
        pauses = last.pauses - first.pauses
        growth = judged.get((host, pid))
        rows.append(
            f"  {pid}: {requests} requests, RSS {size(last.rss)} ({size(last.rss - first.rss, sign=True)}), "
            f"USS {size(last.uss)}, {last.blocks} blocks ({last.blocks - first.blocks:+d}), "
            f"garbage collection {pauses * 1000:.0f} ms, longest pause {last.longest_pause * 1000:.1f} ms: "
            f"{growth.answer if growth else 'not judged'}"
        )
    return rows
