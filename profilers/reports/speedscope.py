"""The slowest requests as timelines for speedscope: their statements, each at its time."""

from __future__ import annotations

import json
from typing import Any

from profilers.profile import Profile
from profilers.reports import Report

SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def render(report: Report) -> str:
    """The report's slowest requests as a speedscope file."""
    frames: dict[tuple[str, str, int], int] = {}
    profiles = [_timeline(profile, frames) for profile in report.slowest]
    shared = [{"name": name, "file": file, "line": line} for name, file, line in frames]
    return json.dumps(
        {"$schema": SCHEMA, "exporter": "flask-profilers", "shared": {"frames": shared}, "profiles": profiles}
    )


def _timeline(profile: Profile, frames: dict[tuple[str, str, int], int]) -> dict[str, Any]:
    """Statements one after the other; those of a request's own threads are cut where they overlap."""

    def frame(name: str, file: str = "", line: int = 0) -> int:
        return frames.setdefault((name, file, line), len(frames))

    whole = frame(profile.name)
    end = profile.duration
    events: list[dict[str, Any]] = [{"type": "O", "frame": whole, "at": 0.0}]
    now = 0.0
    for statement in sorted(profile.statements, key=lambda statement: statement.started):
        opened = min(max(statement.started, now), end)
        now = min(max(statement.started + statement.duration, opened), end)
        place = statement.location
        frame_of = frame(statement.shape, place.file if place else "", place.line if place else 0)
        events.append({"type": "O", "frame": frame_of, "at": opened})
        events.append({"type": "C", "frame": frame_of, "at": now})
    events.append({"type": "C", "frame": whole, "at": end})
    return {
        "type": "evented",
        "name": f"{profile.name} ({profile.id})",
        "unit": "seconds",
        "startValue": 0.0,
        "endValue": end,
        "events": events,
    }
