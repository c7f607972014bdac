"""Line charts worked out: where the lines, the grid and the labels go, and not one tag."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 440.0, 215.0
LEFT, TOP, RIGHT, BOTTOM = 62.0, 8.0, 418.0, 186.0
"""Of the area where lines are."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """One line and its name in the legend."""

    name: str
    points: str
    """As SVG has them."""
    last: str
    """Its highest value with its unit."""


@dataclass(frozen=True)
class Tick:
    """A label of an axis and where it is."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """A chart, ready to be drawn."""

    title: str
    lines: tuple[Line, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]


def chart(
    title: str, series: Mapping[str, Points], unit: str, label: Callable[[int], str] | None = None
) -> Chart | None:
    """A line for each series over seconds, from zero up; None when there is nothing to draw.

    Args:
        series: by name: (seconds, value).
        unit: of the values.
        label: what a second is called on the axis, 1:30 when left out.
    """
    drawn = {name: points for name, points in series.items() if len(points) > 1}
    if not drawn:
        return None
    end = max(x for points in drawn.values() for x, _ in points) or 1.0
    step = _step(max(y for points in drawn.values() for _, y in points))
    top = step * 4

    def across(x: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * x / end, 1)

    def up(y: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * y / top, 1)

    return Chart(
        title,
        tuple(
            Line(
                name,
                " ".join(f"{across(x)},{up(y)}" for x, y in points),
                f"{_number(max(y for _, y in points))} {unit}",
            )
            for name, points in drawn.items()
        ),
        tuple(Tick(across(at), (label or _clock)(at)) for at in _times(end)),
        tuple(Tick(up(step * part), f"{_number(step * part)} {unit}") for part in range(5)),
    )


def _step(most: float) -> float:
    """A quarter of the axis: 1, 2, 2.5 or 5 times a power of ten."""
    if most <= 0:
        return 0.25
    power = 10.0 ** math.floor(math.log10(most / 4))
    return next(power * size for size in (1, 2, 2.5, 5, 10) if power * size * 4 >= most * 0.999)


def _times(end: float) -> list[int]:
    """Round times up to the end, six or fewer."""
    every = next((size for size in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900) if end / size < 6), 1800)
    return list(range(0, int(end) + 1, every))


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _clock(seconds: int) -> str:
    """90 seconds as `1:30`."""
    return f"{seconds // 60}:{seconds % 60:02}"
