"""`python -m locustfiles.trend`: all runs so far, drawn, with the runs from which a figure was another.

Writes reports/trend.html and prints the changes, newest first.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from locustfiles import charts, history
from locustfiles.charts import Chart
from locustfiles.history import HistoryError, Series
from locustfiles.page import TEMPLATES
from locustfiles.service import ROOT

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 60
"""Runs that a line of the terminal shows."""


@dataclass(frozen=True)
class Drawing:
    """One series as a chart, and its changes."""

    chart: Chart
    changes: tuple[str, ...]
    marks: tuple[float, ...]
    """Where on the chart they are."""


def drawing(series: Series) -> Drawing | None:
    """None when there is too little to draw."""
    points = list(enumerate(series.values))
    unit = series.figure.rpartition(" ")[2] if " " in series.figure else ""
    title = f"{series.kind}: {series.route}, {series.figure}"
    drawn = charts.chart(title, {series.figure: points}, unit, label=lambda run: f"run {run + 1}")
    if drawn is None:
        return None
    last = len(series.values) - 1
    marks = tuple(
        round(charts.LEFT + (charts.RIGHT - charts.LEFT) * change.run / last, 1) for change in series.changes
    )
    return Drawing(drawn, tuple(said(series)), marks)


def said(series: Series) -> list[str]:
    """Its changes, a line each."""
    return [
        f"{change.before:.4g} → {change.after:.4g} ({change.share:+.0%}) from run {change.run + 1} on, "
        f"{series.commits[change.run]}, {datetime.fromtimestamp(series.times[change.run], UTC):%F %H:%M}"
        for change in series.changes
    ]


def render(found: Sequence[Series]) -> str:
    """The page; series that changed come first."""
    drawings = [drawn for drawn in map(drawing, found) if drawn]
    drawings.sort(key=lambda drawn: not drawn.changes)
    return TEMPLATES.get_template("trend.html").render(drawings=drawings, frame=charts)


def terminal(found: Sequence[Series]) -> str:
    """A line for each series that changed, with its course, and the number of those that did not."""
    changed = [series for series in found if series.changes]
    lines = []
    for series in changed:
        lines += [f"{series.kind}: {series.route}, {series.figure}", f"  {spark(series.values)}"]
        lines += [f"  {line}" for line in said(series)]
    runs = max((len(series.values) for series in found), default=0)
    return "\n".join([*lines, f"{len(changed)} of {len(found)} series changed in {runs} runs"])


def spark(values: Sequence[float]) -> str:
    """The last values as a line of blocks, from zero up."""
    shown = values[-WIDTH:]
    top = max(shown) or 1.0
    return "".join(BLOCKS[min(int(value / top * len(BLOCKS)), len(BLOCKS) - 1)] for value in shown)


def main(arguments: list[str] | None = None) -> int:
    """Draw; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m locustfiles.trend", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--output", type=Path, default=ROOT / "reports" / "trend.html")
    options = parser.parse_args(arguments)
    try:
        found = history.read(history.path())
    except HistoryError as error:
        print(error, file=sys.stderr)
        return 2
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(render(found), encoding="utf-8")
    print(terminal(found))
    print(f"report: {os.path.relpath(options.output)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
