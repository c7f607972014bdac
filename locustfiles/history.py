"""What earlier runs measured: a line of JSON for each in one file, and where the figures changed for good.

`PERF_HISTORY` names the file, `perf-history.jsonl` in the checkout when unset; an empty value keeps none.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ruptures

from locustfiles.service import ROOT

SETTING = "PERF_HISTORY"
LEAST_RUNS = 3
"""On each side of a change: fewer may be a bad day."""
LEAST_CHANGE = 0.05
"""A smaller share is not worth a look."""
STRICTNESS = 8.0
"""Of the penalty, in variances and logarithms of the number of runs (the Bayesian criterion takes 2).

Of eight steady runs one series in thirty is said to change, of twenty none in 300.
"""

Figures = Mapping[str, Mapping[str, float]]
"""Values by figure (`p95 ms`) and route."""


class HistoryError(Exception):
    """The history cannot be read; the message is for a person."""


@dataclass(frozen=True)
class Change:
    """From one run on, a figure is another than before."""

    run: int
    """The first of the runs that differ, from 0."""
    before: float
    after: float

    @property
    def share(self) -> float:
        """By how much, 0.2 for a fifth more."""
        return self.after / self.before - 1 if self.before else math.inf


@dataclass(frozen=True)
class Series:
    """One figure of one route in one kind of run, oldest first."""

    kind: str
    """`smoke`, `compare`, …"""
    figure: str
    route: str
    values: tuple[float, ...]
    commits: tuple[str, ...]
    times: tuple[float, ...]
    """Seconds since the epoch."""

    @property
    def changes(self) -> list[Change]:
        """Where it changed for good."""
        return list(changes(self.values))


def path() -> Path | None:
    """The file; None when no history is kept."""
    named = os.environ.get(SETTING, "perf-history.jsonl")
    return ROOT / named if named else None


def add(kind: str, commit: str, figures: Figures) -> None:
    """Append a run."""
    file = path()
    if file is not None:
        line = json.dumps({"at": time.time(), "run": kind, "commit": commit, "figures": figures})
        with file.open("a", encoding="utf-8") as history:
            history.write(line + "\n")


def read(file: Path | None) -> list[Series]:
    """All series of a file.

    Raises:
        HistoryError: there is none, or a line of it is not of `add`.
    """
    if file is None:
        raise HistoryError(f"{SETTING} is empty, so no history is kept")
    found: dict[tuple[str, str, str], list[tuple[float, str, float]]] = {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise HistoryError(
            f"{SETTING}={file}: {error.strerror}; each `make perf-…` adds a line to it"
        ) from None
    for number, line in enumerate(lines, 1):
        try:
            run = json.loads(line)
            for figure, routes in run["figures"].items():
                for route, value in routes.items():
                    moment = (float(value), str(run["commit"]), float(run["at"]))
                    found.setdefault((run["run"], figure, route), []).append(moment)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise HistoryError(f"{SETTING}={file}: line {number} is no run of the history") from None
    return [Series(*key, *zip(*moments, strict=True)) for key, moments in found.items()]


def changes(values: Sequence[float]) -> Iterator[Change]:
    """Where a series changes its level: PELT (Killick 2012, doi:10.1080/01621459.2012.737745) on logarithms.

    Noise is estimated from neighbours, so that a change does not hide itself.
    """
    if len(values) < 2 * LEAST_RUNS:
        return
    levels = np.log(np.maximum(np.asarray(values, dtype=float), 1e-9))
    noise = float(np.median(np.abs(np.diff(levels)))) / (0.6745 * math.sqrt(2))
    penalty = STRICTNESS * max(noise, LEAST_CHANGE / 10) ** 2 * math.log(len(values))
    ends = ruptures.Pelt(model="l2", min_size=LEAST_RUNS, jump=1).fit(levels).predict(pen=penalty)
    for start, middle, end in zip([0, *ends], ends, ends[1:], strict=False):
        change = Change(middle, *(float(np.median(values[a:b])) for a, b in ((start, middle), (middle, end))))
        if abs(change.share) >= LEAST_CHANGE:
            yield change
