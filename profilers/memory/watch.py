"""Measures a running service: tracemalloc on in all workers, off again whatever happens, and a verdict."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from profilers import switches
from profilers.leak_verdict import LineGrowth, Verdict, judge
from profilers.memory import tracing
from profilers.memory.growth import consumers, grown_lines, leaking
from profilers.memory.service import ServiceError, is_alive, is_of, workers_of
from profilers.memory.snapshots import Snapshot, read_snapshots
from profilers.memory.tracing import Tracing
from profilers.options import installation
from profilers.store import MemorySample, Period, Store

FORMAT = "flask-profilers memory run 1"
LEASE_SECONDS = 15.0
"""tracemalloc goes off by itself so long after its last renewal."""
RENEW_SECONDS = 4.0
OFF_SECONDS = 15.0
"""How long to wait for the workers to say that it is off."""
SAMPLES = 40
"""Of each worker, in the shortest run."""
SHOWN = 50

Say = Callable[[str], None]


class RunError(ValueError):
    """A file is not a run's; the message is one line for the user."""


@dataclass(frozen=True)
class Run:
    """What was measured, and what it means."""

    started: float
    """Seconds since the epoch."""
    seconds: float
    verdict: Verdict
    grown: tuple[LineGrowth, ...]
    """Lines that hold more than before, most first."""
    consumers: tuple[LineGrowth, ...]
    """Lines that hold most."""
    samples: tuple[MemorySample, ...]
    snapshots: int

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return {"format": FORMAT, **asdict(self)}


def watch(
    store: Store, folder: Path, *, seconds: float, interval: float, frames: int, pid: int | None, say: Say
) -> Run:
    """Measure for so many seconds, with a snapshot of each worker every `interval`; Ctrl-C ends it early.

    Args:
        folder: where the workers write their snapshots.
        say: is told of the progress, a line at a time.

    Raises:
        ServiceError: there is no worker to measure, or none that answers.
        StoreError: the store cannot be used.
    """
    expected = workers_of(store, pid)
    run = Tracing(
        id=f"{os.getpid():x}{time.time_ns():x}",
        until=0.0,
        frames=frames,
        snapshot_every=interval,
        sample_every=max(0.25, min(interval / 5, seconds / SAMPLES)),
    )
    started = time.time()
    progress = _Progress(run, {worker.pid for worker in expected}, started, seconds, say, pid)
    many = f"{len(expected)} worker{'s'[: len(expected) != 1]}"
    say(f"tracemalloc goes on in {many} for {seconds:g} s: {', '.join(str(one.pid) for one in expected)}")
    try:
        _hold(store, run)
        renew_at, told_at = started + RENEW_SECONDS, started + interval
        while (now := time.time()) < started + seconds:
            time.sleep(min(0.5, max(0.01, started + seconds - now)))
            if now >= renew_at:
                renew_at = now + RENEW_SECONDS
                _hold(store, run)
                progress.look(store.memory(Period(since=started)))
            if now >= told_at:
                told_at += interval
                progress.tell()
    except KeyboardInterrupt:
        say("interrupted: what was seen so far is judged")
    finally:
        _let_go(store, run, started, say)
    samples = _of_family(store.memory(Period(since=started)), run, progress.expected if pid else None)
    if not samples:
        raise ServiceError(
            f"no worker answered in {seconds:g} s: is `{installation('memory')}` missing there?"
        )
    taken = [one for one in read_snapshots(folder, run.id) if not pid or one.pid in progress.expected]
    return evaluate(samples, taken)


def stored(store: Store, folder: Path) -> Run:
    """What the store has of the last 24 hours, judged; nothing is measured.

    Raises:
        ServiceError: it has nothing.
        StoreError: it cannot be read.
    """
    samples = store.memory(Period(since=time.time() - 86400))
    if not samples:
        raise ServiceError(f"{store.database} has no samples: start the service with FLASK_PROFILE=memory")
    run = next((sample.tracing for sample in reversed(samples) if sample.tracing), "")
    return evaluate(samples, read_snapshots(folder, run) if run else [])


def evaluate(samples: Sequence[MemorySample], snapshots: Sequence[Snapshot]) -> Run:
    """What samples and snapshots of some time mean together."""
    grown = grown_lines(snapshots)
    return Run(
        started=samples[0].at,
        seconds=samples[-1].at - samples[0].at,
        verdict=judge(samples, leaking(grown)),
        grown=tuple(grown[:SHOWN]),
        consumers=tuple(consumers(snapshots, SHOWN)),
        samples=tuple(samples),
        snapshots=len(snapshots),
    )


def write_run(run: Run, path: Path) -> None:
    """Write it as JSON that only its owner may read.

    Raises:
        OSError: it cannot be written.
    """
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
        json.dump(run.to_json(), file)


def read_lines(path: Path) -> dict[tuple[str, ...], tuple[float, int]]:
    """Of a written run: bytes per request and bytes of each line that grew.

    Raises:
        RunError: it is not a run's file.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise ValueError(f"its format is not {FORMAT!r}")  # noqa: TRY301
        return {
            tuple(map(str, line["frames"])): (float(line["bytes_per_request"]), int(line["bytes"]))
            for line in data["grown"]
        }
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"{path} was not written by `memory`: {error}") from None


def _hold(store: Store, run: Tracing) -> None:
    """Keep the profiler and tracemalloc on for a while longer."""
    on = switches.status(store).switches.on
    until = time.time() + LEASE_SECONDS
    if not any("memory" in switch.profilers and switch.until > until for switch in on):
        switches.turn_on(store, ("memory",), seconds=LEASE_SECONDS + OFF_SECONDS)
    tracing.turn(store, Tracing(**{**asdict(run), "until": until}))


def _let_go(store: Store, run: Tracing, started: float, say: Say) -> None:
    tracing.turn(store, run)
    deadline = time.monotonic() + OFF_SECONDS
    on: set[int] = set()
    with contextlib.suppress(KeyboardInterrupt):
        while time.monotonic() < deadline:
            last = {sample.pid: sample for sample in store.memory(Period(since=started))}
            on = {one.pid for one in last.values() if one.tracing == run.id and is_alive(one.host, one.pid)}
            if not on:
                say("tracemalloc is off again in all workers")
                return
            time.sleep(0.2)
    pids = ", ".join(map(str, sorted(on)))
    say(f"not yet off in worker {pids}, which has not looked at the switch: it goes off with its next look")


def _of_family(
    samples: Sequence[MemorySample], run: Tracing, pids: set[int] | None
) -> tuple[MemorySample, ...]:
    return tuple(one for one in samples if one.tracing == run.id and (pids is None or one.pid in pids))


class _Progress:
    """Tells how far it is, which workers went and which came."""

    def __init__(
        self, run: Tracing, expected: set[int], started: float, seconds: float, say: Say, pid: int | None
    ) -> None:
        self.expected = expected
        self._pid = pid
        self._run = run
        self._started = started
        self._seconds = seconds
        self._say = say
        self._gone: set[int] = set()
        self._samples: list[MemorySample] = []

    def look(self, samples: Sequence[MemorySample]) -> None:
        """See who is there."""
        self._samples = [sample for sample in samples if sample.tracing == self._run.id]
        last = {sample.pid: sample for sample in self._samples}
        for pid in sorted(self.expected - self._gone):
            host = last[pid].host if pid in last else self._samples[0].host if self._samples else ""
            if host and not is_alive(host, pid):
                self._gone.add(pid)
                self._say(f"worker {pid} is gone (killed or recycled); the others are measured on")
        for pid in sorted(last.keys() - self.expected):
            if self._pid is not None and not is_of(pid, self._pid):
                continue
            self.expected.add(pid)
            self._say(f"worker {pid} has come, and is measured from now on")

    def tell(self) -> None:
        """A line of progress."""
        first: dict[tuple[int, float], MemorySample] = {}
        last: dict[tuple[int, float], MemorySample] = {}
        for sample in self._samples:
            first.setdefault((sample.pid, sample.born), sample)
            last[sample.pid, sample.born] = sample
        requests = sum(_served(last[key]) - _served(first[key]) for key in last)
        python = sum(last[key].traced for key in last)
        self._say(
            f"{time.time() - self._started:5.0f} of {self._seconds:.0f} s: {len(last)} workers, "
            f"{requests} requests, {python / 1e6:.1f} MB allocated since and held"
        )


def _served(sample: MemorySample) -> int:
    return sum(sample.requests.values())
