"""A profile's statements, findings and sections as one compact JSON text, and back.

A statement is `[shape, place, started, duration, rows, parameters]`, then `{…}` with what is rarely set:
shape, place and parameters are positions in lists of the profile, times are microseconds. Shapes are named by
their id in the store, so that a long statement is kept once.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from profilers.profile import Finding, Location, Profile, Statement

_json = json.JSONEncoder(separators=(",", ":"), default=str).encode

MAX_STATEMENTS = 2_000
"""Statements kept of one profile; the rest are counted in its `left_out`."""


def encode(profile: Profile, shape_id: Callable[[str], int]) -> str:
    """Return the detail text of a profile; `shape_id` gives the store's id of a shape."""
    shapes: dict[str, int] = {}
    places: dict[Location | None, int] = {}
    parameters: dict[int, int] = {0: 0}
    rows = []
    for item in profile.statements[:MAX_STATEMENTS]:
        row: list[Any] = [
            shapes.setdefault(item.shape, len(shapes)),
            places.setdefault(item.location, len(places)),
            int(item.started * 1e6),
            int(item.duration * 1e6),
            item.rows,
            parameters.setdefault(item.parameters, len(parameters)),
        ]
        if item.error or item.database or item.executemany:
            row.append({"error": item.error, "database": item.database, "executemany": item.executemany})
        rows.append(row)
    return _json(
        {
            "shapes": [shape_id(shape) for shape in shapes],
            "places": list(places),
            "statements": rows,
            "findings": [encode_finding(item) for item in profile.findings],
            "timings": profile.timings,
            "counters": profile.counters,
            "sections": profile.sections,
        }
    )


def encode_finding(finding: Finding) -> dict[str, Any]:
    """A finding as JSON types, without what is empty."""
    return {name: value for name in _FINDING if (value := getattr(finding, name))}


def decode_finding(data: dict[str, Any]) -> Finding:
    """The inverse of `encode_finding`."""
    places = {key: Location(*data[key]) for key in ("location", "origin") if data.get(key)}
    return Finding(**{"cause": "", "subject": "", "count": 0, **data, **places})


def decode(summary: Profile, statement_count: int, text: str | None, shapes: Mapping[int, str]) -> Profile:
    """Fill a summary with its detail; without one, all its statements are `left_out`."""
    data = json.loads(text) if text else {"statements": []}
    places = [Location(*place) if place else None for place in data.get("places", ())]
    for shape, place, started, duration, rows, parameters, *rest in data["statements"]:
        summary.statements.append(
            Statement(
                shape=shapes.get(data["shapes"][shape], "(statement left out)"),
                started=started / 1e6,
                duration=duration / 1e6,
                rows=rows,
                location=places[place],
                parameters=parameters,
                **(rest[0] if rest else {}),
            )
        )
    summary.findings = [decode_finding(item) for item in data.get("findings", ())]
    summary.timings = data.get("timings", summary.timings)
    summary.counters = data.get("counters", {})
    summary.sections = data.get("sections", {})
    summary.left_out = statement_count - len(summary.statements)
    return summary


_FINDING = tuple(field.name for field in dataclasses.fields(Finding))
