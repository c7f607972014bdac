"""What the console draws, worked out: positions and sizes, and not one tag."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from profilers.profile import Location, Profile, Statement
from profilers.storage.plan_history import structure
from profilers.store import MemorySample, PlanRow

WIDTH = 1000.0
"""All positions across are shares of this; the page stretches it to its width."""


@dataclass(frozen=True)
class Layer:
    """A part of a request's time."""

    name: str
    seconds: float
    x: float
    width: float


def layers(profile: Profile) -> list[Layer]:
    """Where a request's time went, end to end: waiting for a connection, the database, the rest."""
    total = profile.duration
    if total <= 0:
        return []
    found: list[Layer] = []
    x = 0.0
    for name in ("pool_wait", "database"):
        seconds = min(profile.timings.get(name, 0.0), total - sum(layer.seconds for layer in found))
        if seconds > 0:
            found.append(Layer(name.replace("_", " "), seconds, x, seconds / total * WIDTH))
            x += found[-1].width
    rest = total - sum(layer.seconds for layer in found)
    return [*found, Layer("Python and the rest", rest, x, WIDTH - x)]


@dataclass
class Run:
    """Statements of one shape from one line, one after the other."""

    number: int
    """Of the first, counted from one."""
    statement: Statement
    """The first."""
    count: int = 0
    duration: float = 0.0
    rows: int = 0
    ticks: list[tuple[float, float]] = field(default_factory=list)
    """Where each is in the request: start and width."""


MOST_TICKS = 60


def runs(profile: Profile) -> list[Run]:
    """The statements in order; what an N+1 sends is one run."""
    found: list[Run] = []
    whole = max(profile.duration, 1e-9)
    for number, statement in enumerate(profile.statements, 1):
        last = found[-1] if found else None
        if last is None or _kind(last.statement) != _kind(statement):
            last = Run(number, statement)
            found.append(last)
        last.count += 1
        last.duration += statement.duration
        last.rows += max(statement.rows, 0)
        if len(last.ticks) < MOST_TICKS:
            x = min(statement.started / whole * WIDTH, WIDTH - 2)
            last.ticks.append((round(x, 1), round(max(2.0, statement.duration / whole * WIDTH), 1)))
    return found


def _kind(statement: Statement) -> tuple[str, Location | None, str]:
    return statement.shape, statement.location, statement.error


@dataclass(frozen=True)
class Step:
    """A line of a plan."""

    depth: int
    text: str
    is_node: bool
    """Not a condition of the node above it."""
    differs: bool = False
    """From the plan it is compared with."""


MOST_STEPS = 100


def plan_steps(outline: Iterable[object], other: Sequence[str] | None = None) -> list[Step]:
    """The indented lines of `profilers.plans.outline` as steps of a tree, compared with those of another."""
    lines = [str(line) for line in outline][:MOST_STEPS]
    common = set(structure(lines) if other is None else structure(other))
    steps = []
    for text, kept in zip(lines, structure(lines), strict=True):
        body = text.lstrip()
        depth = min((len(text) - len(body)) // 2, 12)
        steps.append(Step(depth, body, "(cost " in body, kept not in common))
    return steps


@dataclass(frozen=True)
class Flip:
    """A statement's plan that gave way to another."""

    shape: str
    database: str
    after: float
    """When the old plan was last seen."""
    at: float
    """When the new one was first seen."""
    old: tuple[str, ...]
    new: tuple[str, ...]


def flips(plans: Sequence[PlanRow]) -> list[Flip]:
    """Where the plan of a statement changed, newest first."""
    found = [
        Flip(new.shape, new.database, old.last_seen, new.first_seen, old.outline, new.outline)
        for old, new in pairwise(plans)
        if (old.shape, old.database) == (new.shape, new.database)
    ]
    return sorted(found, key=lambda flip: -flip.at)


def line(values: Sequence[float], width: float = 120, height: float = 28) -> str:
    """A line through the values as SVG's `points`, the lowest at zero; empty of fewer than two."""
    if len(values) < 2:
        return ""
    top = max(*values, 1e-9)
    step = width / (len(values) - 1)
    return " ".join(
        f"{i * step:.1f},{height - 1 - max(value, 0) / top * (height - 2):.1f}"
        for i, value in enumerate(values)
    )


def own(sample: MemorySample) -> int:
    """Bytes of a worker's own; where the system does not say, all that is resident."""
    return sample.uss or sample.rss


def bars(values: Sequence[float], width: float = 120, height: float = 28) -> str:
    """A bar for each value as the path of an SVG; nothing for zero."""
    top = max(*values, 1e-9) if len(values) > 1 else 1e-9
    step = width / max(len(values), 1)
    return "".join(
        f"M{(i + 0.5) * step:g} {height:g}v-{max(value / top * (height - 2), 2):.3g}"
        for i, value in enumerate(values)
        if value > 0
    )


def readable_path(file: str, root: Path | None) -> str:
    """A file of a call stack without what is the same for all: where the app, or a library, is installed."""
    for mark in ("/site-packages/", "/dist-packages/"):
        if mark in file:
            return file.rpartition(mark)[2]
    if root is not None and file.startswith(f"{root}/"):
        return file[len(str(root)) + 1 :]
    return file


_OURS = f"{Path(__file__).resolve().parents[1]}/"


def is_library(file: str) -> bool:
    """Whether a frame is none of the app's own."""
    return file.startswith(("<", _OURS)) or "-packages/" in file or "/lib/python" in file


@dataclass
class Frame:
    """A function in a flame graph: all that was seen below the same callers."""

    function: str
    file: str
    line: int
    seconds: float = 0.0
    own: float = 0.0
    x: float = 0.0
    width: float = 0.0
    depth: int = 0
    below: dict[int, Frame] = field(default_factory=dict)


@dataclass(frozen=True)
class Flame:
    """A call stack as a picture, callers on top of what they called."""

    seconds: float
    frames: Sequence[Frame]
    depth: int
    hottest: Sequence[Frame]
    """By the time that they took themselves."""


THINNEST = 2.0
MOST_FRAMES = 500


def flame(section: dict[str, Any]) -> Flame | None:
    """What `pyinstrument` saw, of its stored section; None when there is nothing to draw."""
    samples, nodes, names = (section.get(key) for key in ("samples", "nodes", "frames"))
    if not (samples and nodes and names):
        return None
    root = Frame("", "", 0)
    chain: list[Frame] = []
    parents: list[int] = []
    for parent, name in nodes:
        parents.append(parent if 0 <= parent < len(chain) else -1)
        above = chain[parent] if parents[-1] >= 0 else root
        if name not in above.below:
            above.below[name] = _frame(names[name])
        chain.append(above.below[name])
    for node, microseconds in samples:
        if not 0 <= node < len(chain):
            continue
        seconds = microseconds / 1e6
        root.seconds += seconds
        chain[node].own += seconds
        while node >= 0:
            chain[node].seconds += seconds
            node = parents[node]
    if not root.seconds:
        return None
    # The server's frames above the app call nothing else: the last of them is enough.
    top = root
    while len(top.below) == 1 and (only := next(iter(top.below.values()))).own == 0 and len(only.below) == 1:
        top = only
    drawn: list[Frame] = []
    _place(top, 0.0, 0, root.seconds, drawn)
    drawn = sorted(drawn, key=lambda frame: -frame.width)[:MOST_FRAMES]
    hottest = sorted({id(frame): frame for frame in chain}.values(), key=lambda frame: -frame.own)[:8]
    return Flame(
        root.seconds,
        sorted(drawn, key=lambda frame: (frame.depth, frame.x)),
        1 + max((frame.depth for frame in drawn), default=0),
        [frame for frame in hottest if frame.own],
    )


def _place(frame: Frame, x: float, depth: int, whole: float, drawn: list[Frame]) -> None:
    for child in sorted(frame.below.values(), key=lambda each: -each.seconds):
        child.x, child.width, child.depth = x, child.seconds / whole * WIDTH, depth
        if child.width >= THINNEST:
            drawn.append(child)
            _place(child, x, depth + 1, whole, drawn)
        x += child.width


def _frame(text: str) -> Frame:
    """pyinstrument's `function NUL file NUL line SOH attributes`."""
    function, _, rest = text.partition("\0")
    file, _, rest = rest.partition("\0")
    number = rest.partition("\x01")[0]
    return Frame(function, file, int(number) if number.isdigit() else 0)
