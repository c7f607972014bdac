"""A run as one page that opens from disk: no network, no script, dark and light, wide and narrow."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from locustfiles import charts, processes, timeline
from locustfiles.charts import Chart, Points
from locustfiles.result import Result

TEMPLATES = Environment(
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
    loader=FileSystemLoader(Path(__file__).parent),
)
"""All pages of the lab; everything from outside is shown as text."""


def render(result: Result) -> str:
    """The whole page."""
    profiled = {route.name: route for route in result.seen.routes}
    return TEMPLATES.get_template("page.html").render(
        result=result, charts=drawings(result), profiled=profiled, frame=charts
    )


def drawings(result: Result) -> list[Chart]:
    """The charts of a run: those that have something to show."""
    parts = timeline.parts(result.run.course)
    began = result.run.course[0].at if result.run.course else 0

    def since(points: Points) -> Points:
        return [(max(at - began, 0.0), value) for at, value in points]

    answered = [part for part in parts if part.requests_per_second]  # nothing was measured in the others
    latency = {
        "p50": [(part.at, part.p50_ms) for part in answered],
        "p95": [(part.at, part.p95_ms) for part in answered],
        "p99": [(part.at, part.p99_ms) for part in answered],
    }
    rates = {"requests": [(part.at, part.requests_per_second) for part in parts]}
    if any(part.failures_per_second for part in parts):
        rates["failures"] = [(part.at, part.failures_per_second) for part in parts]
    cpu: dict[str, Points] = {
        name: since(processes.cpu(result.usage, database=database))
        for name, database in (("service", False), ("database", True))
    }
    for one in result.run.generators:
        cpu[f"generator {one.name}"] = list(enumerate(one.cpu_by_second, 1))
    memory = {name: since(points) for name, points in processes.memory(result.usage).items()}
    found = [
        charts.chart("Response times", latency, "ms"),
        charts.chart("Requests a second", rates, "/s"),
        charts.chart("Users", {"users": [(part.at, part.users) for part in parts]}, ""),
        charts.chart("CPU, in cores", cpu, ""),
        charts.chart("Memory of each worker, resident", memory, "MB"),
    ]
    return [one for one in found if one is not None]
