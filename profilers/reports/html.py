"""The report as one page that opens from disk: no network, no script, dark and light, wide and narrow."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment

from profilers.reports import Report
from profilers.reports.units import moment, plural, seconds, share, visible


def render(report: Report) -> str:
    """The whole page; everything from the app is shown as text."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"seconds": seconds, "moment": moment, "plural": plural}
    environment.globals["share"] = share
    source = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return visible(environment.from_string(source).render(report=report))
