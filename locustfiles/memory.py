"""What the memory profiler says of a run: its verdict, and a chart of memory against requests by worker.

Read from what its command writes; nothing of it is imported.
"""

from __future__ import annotations

import html
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from locustfiles.service import Service, ServiceError

NAME = "memory"
LEAK = "leak"
COLOURS = ("#2563eb", "#d97706", "#059669", "#db2777", "#7c3aed", "#0891b2", "#65a30d", "#dc2626")


@dataclass(frozen=True)
class Memory:
    """The verdict on a run, and what the workers held."""

    answer: str = ""
    """`leak`, `no leak` or `not enough data`; empty when memory was not looked at."""
    text: str = ""
    """The verdict in full, with route and lines."""
    curves: Mapping[str, Sequence[tuple[int, float]]] | None = None
    """By worker: requests served, and megabytes held."""


def settings(run_time: int) -> dict[str, str]:
    """How the service is to be looked at in a run of so many seconds, unless the environment says it."""
    chosen = {
        "FLASK_PROFILE_MEMORY_INTERVAL": str(min(10.0, max(1.0, run_time / 100))),
        "FLASK_PROFILE_MEMORY_SNAPSHOT_EVERY": str(min(60.0, max(5.0, run_time / 20))),
    }
    return {name: os.environ.get(name, value) for name, value in chosen.items()}


def read(service: Service, output: Path) -> Memory:
    """Ask the profiler for its verdict on what it has seen.

    Raises:
        ServiceError: there is none.
    """
    command = [sys.executable, "-m", "profilers", "--store", service.profiles, NAME, "--stored"]
    done = subprocess.run(
        [*command, "--output", str(output)],
        env=service.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ServiceError(f"the memory profiler has no verdict: {done.stderr.strip()[-500:]}")
    run = json.loads(output.read_text(encoding="utf-8"))
    text = done.stdout.partition("\n\n")[0]
    return Memory(run["verdict"]["answer"], text, curves(run["samples"]))


def curves(samples: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """By worker: requests served, and megabytes of its own less what tracemalloc takes."""
    found: dict[str, list[tuple[int, float]]] = {}
    for sample in sorted(samples, key=lambda one: one["at"]):
        worker = f"{sample['pid']}"
        held = (sample["uss"] - sample["overhead"]) / 1e6
        found.setdefault(worker, []).append((sum(sample["requests"].values()), held))
    return found


def chart(memory: Memory, width: int = 720, height: int = 320) -> str:
    """The curves as an SVG picture."""
    by_worker = memory.curves or {}
    points = [point for curve in by_worker.values() for point in curve]
    most_requests = max((requests for requests, _ in points), default=0) or 1
    most = max((held for _, held in points), default=0.0) * 1.1 or 1.0
    left, top, right, bottom = 60, 30, width - 20, height - 45

    def place(requests: float, held: float) -> str:
        x = left + (right - left) * requests / most_requests
        return f"{x:.1f},{bottom - (bottom - top) * held / most:.1f}"

    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
        ' font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="18">Memory of each worker by requests: {html.escape(memory.answer)}</text>',
    ]
    for step in range(5):
        held, requests = most * step / 4, most_requests * step / 4
        x, y = place(requests, held).split(",")
        drawn += [
            f'<line x1="{left}" y1="{y}" x2="{right}" y2="{y}" stroke="#ddd"/>',
            f'<text x="{left - 6}" y="{y}" text-anchor="end">{held:.0f} MB</text>',
            f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{requests:.0f}</text>',
        ]
    for number, (worker, curve) in enumerate(by_worker.items()):
        colour = COLOURS[number % len(COLOURS)]
        line = " ".join(place(*point) for point in curve)
        place_of_name = left + 110 * (number % 6)
        drawn += [
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>',
            f'<text x="{place_of_name}" y="{height - 8}" fill="{colour}">worker {html.escape(worker)}</text>',
        ]
    return "\n".join([*drawn, "</svg>", ""])
