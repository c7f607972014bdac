"""Both versions driven in turns with the same requests: CPU of worker and database, and latency.

Processes of one program differ more than rounds of one process do (where its memory lies, which way its
hashes fall), so the services are started anew several times: each start is a pair of processes, base and
head. Within a pair, both are sent the same few requests of a route alternately, in random order: what else
the machine does hits both.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from locustfiles.compare.routes import Client, Route
from locustfiles.compare.sides import Side
from locustfiles.service import ServiceError

FIGURES = ("cpu", "database", "latency")
"""CPU seconds of the worker, of its database connections, and seconds until the answer, for one request."""
WARM_UP = 10
"""Requests of a route."""
ROUND_SECONDS = 0.03
"""Of a side, about: its CPU time decides how many requests a round has, between LEAST and MOST."""
LEAST, MOST = 3, 15
ENDS_SECONDS = 0.002
"""A worker finishes a request after its answer has come."""


@dataclass(frozen=True)
class Measured:
    """One route. Each figure has the shape (sides, pairs, rounds), base first: seconds for one request."""

    figures: dict[str, NDArray[np.float64]]

    @property
    def pairs(self) -> int:
        """How many pairs of processes."""
        return int(self.figures[FIGURES[0]].shape[1])


class Worker:
    """One side's worker and its client."""

    def __init__(self, side: Side, stack: ExitStack, seed: int) -> None:
        running = stack.enter_context(side.serving(seed))
        self.client = Client(side, running, seed)
        stack.callback(self.client.close)
        self.side = side
        assert running.process is not None
        self._server = running.process.pid
        self._worker = self.client.worker()
        self._backends: list[int] = []

    def warm_up(self, route: Route) -> float:
        """Send some requests; the CPU seconds of one of the later ones."""
        for _ in range(WARM_UP):
            self.send(route)
        before = self.clocks()[0]
        for _ in range(LEAST):
            self.send(route)
        return (self.clocks()[0] - before) / LEAST

    def meet_the_database(self) -> None:
        """Find the connections that the worker has by now."""
        self._backends = [
            child.pid
            for child in psutil.Process(self._server).children(recursive=True)
            if "".join(child.cmdline()).startswith("postgres: pake ")
        ]

    def clocks(self) -> tuple[float, float]:
        """CPU seconds so far: the worker's, and its database connections'."""
        return cpu_seconds(self._worker), sum(map(cpu_seconds, self._backends))

    def send(self, route: Route) -> float:
        """Send one request; seconds until the answer."""
        answer = self.client.send(route)
        if not 200 <= answer.status < 300:
            raise ServiceError(f"{self.side.name}: {route.name} was answered with {answer.status}")
        return answer.seconds


def measure(
    sides: Sequence[Side],
    routes: Sequence[Route],
    pairs: int,
    rounds: int,
    seed: int,
    say: Callable[[str], None],
) -> Iterator[dict[str, Measured]]:
    """Drive both sides; after each pair, what has been measured so far by the name of the route.

    Raises:
        ServiceError: a side does not start, or an answer is no success.
    """
    chance = random.Random(seed)
    found: dict[str, dict[str, list[Any]]] = {route.name: {name: [] for name in FIGURES} for route in routes}
    for pair in range(pairs):
        say(f"pair {pair + 1}: {rounds} rounds of {len(routes)} routes")
        with ExitStack() as stack:
            with ThreadPoolExecutor() as both:
                workers = list(both.map(lambda side: Worker(side, stack, seed + pair), sides))  # noqa: B023
            costs = {route.name: [worker.warm_up(route) for worker in workers] for route in routes}
            for worker in workers:
                worker.meet_the_database()
            taken: dict[str, list[list[tuple[float, float, float]]]] = {route.name: [] for route in routes}
            for _ in range(rounds):
                for route in chance.sample(routes, len(routes)):
                    requests = min(max(round(ROUND_SECONDS / max(*costs[route.name], 1e-6)), LEAST), MOST)
                    taken[route.name].append(_round(workers, route, requests, chance))
        for route_name, each in taken.items():  # (rounds, sides, figures)
            for figure, values in zip(FIGURES, np.moveaxis(np.array(each), 2, 0), strict=True):
                found[route_name][figure].append(values.T)
        yield {
            name: Measured({figure: np.stack(values, axis=1) for figure, values in figures.items()})
            for name, figures in found.items()
        }


def _round(
    workers: Sequence[Worker], route: Route, requests: int, chance: random.Random
) -> list[tuple[float, float, float]]:
    """So many requests of each side, alternately; the medians of each of FIGURES by side."""
    clocks: list[list[tuple[float, float]]] = [[] for _ in workers]
    latencies: list[list[float]] = [[] for _ in workers]
    for _ in range(requests):
        for number in chance.sample(range(len(workers)), len(workers)):
            clocks[number].append(workers[number].clocks())
            latencies[number].append(workers[number].send(route))
    time.sleep(ENDS_SECONDS)
    values = []
    for number, worker in enumerate(workers):
        cpu, database = np.median(np.diff([*clocks[number], worker.clocks()], axis=0), axis=0)
        values.append((float(cpu), float(database), median(latencies[number])))
    return values


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, to the nanosecond: Linux's clock id of another process.

    The id is made as in the kernel's include/linux/posix-timers_types.h: `~pid << 3 | CPUCLOCK_SCHED`.
    """
    return time.clock_gettime((~pid << 3) | 2)
