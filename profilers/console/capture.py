"""A capture: what the console shows of a period, in one JSON file that opens anywhere, without the app.

    curl -OJ -H "X-Profile-Token: …" 'http://127.0.0.1:8000/__profilers__/capture.json?last=1h'
    python -m profilers view capture-20261123-183005.json

A file may come from anybody, so each member is checked against the type of the record that it becomes;
nothing in it is ever run, imported or unpickled.
"""

from __future__ import annotations

import json
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from profilers.console import figures
from profilers.profile import Profile
from profilers.store import (
    EndpointRow,
    FindingRow,
    MemorySample,
    Period,
    PlanRow,
    ProfileRow,
    Reader,
    StatementRow,
)

FORMAT = "flask-profilers capture"
VERSION = 2
LARGEST = 200_000_000
"""Bytes of a file that is opened."""
ROWS, DETAILS, STATEMENTS, SAMPLES = 5_000, 300, 1_000, 20_000
"""What is saved at most: single requests, those with their statements, statement shapes, looks at memory."""
WHOLE = 60_000
"""Statements of those requests."""


class CaptureError(Exception):
    """The file is no capture; the message is one line."""


@dataclass(frozen=True)
class Capture:
    """A `Reader` of one file. The period is the file's: only the endpoint is chosen among."""

    made_at: float
    endpoint_rows: tuple[EndpointRow, ...]
    finding_rows: tuple[FindingRow, ...]
    statement_rows: tuple[StatementRow, ...]
    profile_rows: tuple[ProfileRow, ...]
    details: tuple[Profile, ...]
    samples: tuple[MemorySample, ...]
    dropped: dict[str, int]
    plan_rows: tuple[PlanRow, ...] = ()

    def profiles(
        self, period: Period = Period(), *, limit: int = 100, before: str | None = None
    ) -> Sequence[ProfileRow]:
        """Newest first."""
        rows = [row for row in self.profile_rows if period.names(row.name)]
        first = next((i + 1 for i, row in enumerate(rows) if row.id == before), 0)
        return rows[first : first + limit]

    def profile(self, profile_id: str) -> Profile | None:
        """One that was saved with its statements."""
        return next((each for each in self.details if each.id == profile_id), None)

    def every_profile(self, period: Period = Period()) -> Iterator[Profile]:
        """Those that were saved with their statements."""
        return (each for each in self.details if period.names(each.name))

    def endpoints(self, period: Period = Period(), *, points: int = 0) -> Sequence[EndpointRow]:
        """Most total time first."""
        return [row for row in self.endpoint_rows if period.names(row.name)]

    def findings(self, period: Period = Period()) -> Sequence[FindingRow]:
        """Most time lost first."""
        return [row for row in self.finding_rows if any(map(period.names, row.endpoints))]

    def statements(self, period: Period = Period(), *, limit: int = 100) -> Sequence[StatementRow]:
        """Most total time first."""
        return [row for row in self.statement_rows if any(map(period.names, row.endpoints))][:limit]

    def plans(self) -> Sequence[PlanRow]:
        """Those of its statements, one after the other as they changed."""
        return self.plan_rows

    def memory(self, period: Period = Period()) -> Sequence[MemorySample]:
        """Oldest first."""
        return self.samples

    def left_out(self) -> dict[str, int]:
        """What the store had dropped."""
        return self.dropped


def build(reader: Reader, period: Period, made_at: float) -> Capture:
    """A period as a capture: all sums, the newest requests; the statements of the slowest and of those with
    findings.
    """
    rows = reader.profiles(period, limit=ROWS)
    telling = [row for row in rows if row.findings]
    slowest = sorted(rows, key=lambda row: -row.duration)
    wanted = dict.fromkeys(row.last_profile for row in reader.findings(period)[:DETAILS])
    wanted |= dict.fromkeys(row.id for row in (*telling[: DETAILS // 2], *slowest[: DETAILS // 2]))
    details: list[Profile] = []
    left = WHOLE
    for identity in wanted:
        found = reader.profile(identity)
        if found is not None and len(found.statements) <= left:
            left -= len(found.statements)
            details.append(found)
    statements = reader.statements(period, limit=STATEMENTS)
    shapes = {row.shape for row in statements}
    return Capture(
        made_at=float(made_at),
        endpoint_rows=tuple(reader.endpoints(period, points=24)),
        finding_rows=tuple(reader.findings(period)),
        statement_rows=tuple(statements),
        profile_rows=tuple(rows),
        details=tuple(details),
        samples=tuple(reader.memory(period)[-SAMPLES:]),
        dropped=reader.left_out(),
        plan_rows=tuple(row for row in reader.plans() if row.shape in shapes),
    )


def dump(capture: Capture) -> str:
    """The text of its file; `parse` is the inverse."""
    return json.dumps({"format": FORMAT, "version": VERSION, **asdict(capture)})


def save(reader: Reader, period: Period, made_at: float) -> str:
    """A period as the text of a capture."""
    return dump(build(reader, period, made_at))


def load(path: Path) -> Capture:
    """Read a file that `save` wrote.

    Raises:
        CaptureError: it cannot be read, or is not one.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.stat().st_size <= LARGEST else ""
        return parse(text)
    except (OSError, UnicodeDecodeError) as error:
        raise CaptureError(f"{path}: {error}") from None
    except CaptureError as error:
        raise CaptureError(f"{path}: {error}") from None


def parse(text: str) -> Capture:
    """The text of a file, checked.

    Raises:
        CaptureError: it is not a capture; the message says which member is wrong.
    """
    try:
        data = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise CaptureError(f"not JSON: {error}") from None
    if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
        raise CaptureError("not a capture of flask-profilers")
    if (version := data.pop("version", None)) != VERSION:
        raise CaptureError(f"a capture of version {version!r}; this release reads version {VERSION}")
    capture: Capture = _build(Capture, data, "capture")
    for profile in capture.details:
        _check_drawn(profile)
    return capture


def _check_drawn(profile: Profile) -> None:
    """Members of any JSON type that are drawn."""
    try:
        figures.flame(profile.sections.get("pyinstrument", {}))
        memory = profile.sections.get("memory", {})
        math.fsum(memory.get(name, 0) for name in ("peak", "kept"))
        for finding in profile.findings:
            list(figures.plan_steps(finding.details.get("plan", ())))
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, RecursionError):
        raise CaptureError(f"details: the sections of {profile.id} cannot be drawn") from None


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    return typing.get_type_hints(kind)


def _build(wanted: Any, value: Any, where: str) -> Any:
    """`value` as the type of an annotation: records from objects, all the way down.

    Raises:
        CaptureError: it is of another type.
    """
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if wanted is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _build(next(each for each in arguments if each is not type(None)), value, where)
    if is_dataclass(wanted) and isinstance(wanted, type):
        return _record(wanted, value, where)
    if isinstance(wanted, type) and issubclass(wanted, tuple) and hasattr(wanted, "_fields"):
        hints = _hints(wanted)
        if isinstance(value, list) and len(value) == len(hints):
            return wanted(
                *(_build(hint, item, where) for hint, item in zip(hints.values(), value, strict=True))
            )
    elif origin in (tuple, list) and isinstance(value, list):
        return origin(_build(arguments[0], item, where) for item in value)
    elif origin is dict and isinstance(value, dict):
        return {key: _build(arguments[1], item, f"{where}.{key[:40]}") for key, item in value.items()}
    elif wanted is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if math.isfinite(value) and abs(value) < 1e15:
            return float(value)
    elif wanted is int and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) < 2**63:
            return value
    elif wanted in (str, bool) and isinstance(value, wanted):
        return value
    expected = getattr(wanted, "__name__", wanted)
    raise CaptureError(f"{where}: expected {expected}, got {type(value).__name__}")


def _record(wanted: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise CaptureError(f"{where}: expected an object, got {type(value).__name__}")
    hints = _hints(wanted)
    known = {field.name: field for field in fields(wanted)}
    if unknown := value.keys() - known.keys():
        raise CaptureError(f"{where}: unknown member {min(unknown)[:40]!r}")
    for name, field in known.items():
        if name not in value and field.default is MISSING and field.default_factory is MISSING:
            raise CaptureError(f"{where}: there is no {name!r}")
    return wanted(**{name: _build(hints[name], item, f"{where}.{name}") for name, item in value.items()})
