"""Which routes the growth comes from, by the mix of requests that each stretch of the run had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from profilers.growth import PROCESS, Array, Measure
from profilers.storage.rows import MemorySample

CLEARLY = 10.0
"""Difference in the information criterion that is strong evidence (Kass and Raftery 1995)."""


@dataclass(frozen=True)
class RouteGrowth:
    """What a route adds to the growth."""

    route: str
    bytes_per_request: float
    """For each request of this route."""
    share: float
    """Of all growth, 0 to 1."""


def attribute(lives: Sequence[Sequence[MemorySample]], measure: Measure) -> tuple[RouteGrowth, ...]:
    """Lay the growth at the routes' doors, most first; empty when they cannot be told apart.

    A robust regression of the measure over the requests of each route, every worker with a level of its own.
    A route is taken into it only if that explains clearly more (by Bayes's information criterion); the first
    one has to explain more than the number of all requests does.
    """
    names = sorted({name for life in lives for name in life[-1].requests})
    counts = [np.array([[s.requests.get(n, 0) for n in names] for s in life], dtype=float) for life in lives]
    levels = [np.array([measure.value(sample) for sample in life], dtype=float) for life in lives]
    served = np.vstack([of_life - np.median(of_life, axis=0) for of_life in counts])
    values = np.concatenate([of_life - np.median(of_life) for of_life in levels])
    chosen: list[int] = []
    best, slopes = _explained(served.sum(axis=1, keepdims=True), values)
    candidates = [number for number in range(len(names)) if served[:, number].any()]
    while left := [number for number in candidates if number not in chosen]:
        tried = [(*_explained(served[:, [*chosen, number]], values), number) for number in left]
        criterion, found, number = min(tried, key=lambda one: one[0])
        if criterion > best - CLEARLY:
            break
        best, slopes, chosen = criterion, found, [*chosen, number]
    parts = [
        float(slope) * sum(of_life[-1, number] - of_life[0, number] for of_life in counts)
        for number, slope in zip(chosen, slopes, strict=False)
    ]
    grown = [
        RouteGrowth(names[number], float(slope), part / sum(parts))
        for number, slope, part in zip(chosen, slopes, parts, strict=False)
        if part > 0
    ]
    return tuple(sorted(grown, key=lambda route: -route.share))


def agreed(lives: Sequence[Sequence[MemorySample]], measure: Measure) -> tuple[RouteGrowth, ...]:
    """The attribution over all workers; from the process's pages only if no worker contradicts it alone."""
    routes = attribute(lives, measure)
    if measure.name != PROCESS.name:
        return routes
    alone = [found[0].route for life in lives if (found := attribute([life], measure))]
    return routes if routes and set(alone) <= {routes[0].route} else ()


def _explained(columns: Array, values: Array) -> tuple[float, Array]:
    """How badly these columns explain the values (the criterion, less is better), and their slopes, >= 0."""
    scale = np.linalg.norm(columns, axis=0)
    scale[scale == 0] = 1.0
    matrix = columns / scale
    start, _ = optimize.nnls(matrix, values)
    spread = float(stats.median_abs_deviation(values - matrix @ start, scale="normal")) or 1.0
    fitted = optimize.least_squares(
        lambda weights: matrix @ weights - values,
        start + spread * 1e-6,
        jac=lambda weights: matrix,
        bounds=(0, np.inf),
        loss="soft_l1",
        f_scale=spread,
    )
    error = float(np.abs(matrix @ fitted.x - values).mean()) or 1e-9
    return 2 * len(values) * np.log(error) + len(fitted.x) * np.log(len(values)), fitted.x / scale
