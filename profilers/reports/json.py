"""The report for tools: the members of the rows of `profilers.store` by their names, and a version.

{"version": 1, "endpoints": [{"name": "GET /services", "requests": 12, "statements_p50": 2, …}],
 "findings": [{"fingerprint": …, "finding": {"cause": …, "origin": ["api.py", 41, "show"], …}, …}], …}
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from profilers.reports import VERSION, Report


def render(report: Report) -> str:
    """The report as JSON text."""
    return json.dumps(as_json(report), indent=2)


def as_json(report: Report) -> dict[str, Any]:
    """The report as JSON types."""
    return {"version": VERSION, **dataclasses.asdict(report)}
