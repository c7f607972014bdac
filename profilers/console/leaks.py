"""Whether the running workers leak, said on the page Workers.

The verdict (`profilers.leak_verdict`) needs a library of statistics, which would show in the memory of the
worker that loads it: it is reached in a short-lived process of its own, of low priority, at most twice a
minute for all workers together, and only while somebody looks. The answer is kept in the store for all.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profilers import switches
from profilers.storage.memory_samples import decode_sample
from profilers.store import MemorySample, Period, Store

if TYPE_CHECKING:
    from profilers.leak_verdict import Verdict

log = logging.getLogger("profilers")

AGAIN_SECONDS = 30.0
"""Age of a verdict from which another is reached."""
PATIENCE_SECONDS = 60.0
"""For the process that judges; it takes two seconds."""
LOOKED_BACK = 6 * 3600.0
MOST_JUDGED = 200
"""Samples of a worker: the statistics compare each with each."""
_NAME = "leak_verdict"


@dataclass(frozen=True)
class LeakVerdict:
    """What is said of the workers; sizes in bytes for each request."""

    answer: str
    """`leak`, `no leak`, `not enough data`; empty when there was nothing to judge by."""
    reason: str
    kind: str = ""
    bytes_per_request: float = 0.0
    low: float = 0.0
    high: float = 0.0
    route: str = ""
    seconds_more: float = 0.0
    """How much longer to measure for an answer."""
    workers: dict[str, str] = field(default_factory=dict)
    """The answer of each, by `host:pid`."""
    at: float = 0.0
    """When it was reached."""


def shown(verdict: Verdict, at: float) -> LeakVerdict:
    """What the page says of a verdict."""
    return LeakVerdict(
        verdict.answer, verdict.reason, verdict.kind, verdict.bytes_per_request, verdict.low, verdict.high,
        verdict.route, verdict.seconds_more,
        {f"{each.host}:{each.pid}": each.growth.answer for each in verdict.workers}, at,
    )  # fmt: skip


def judged(samples: Sequence[MemorySample], at: float) -> LeakVerdict | None:
    """The verdict at once, in this process; None without samples, or without the extra `memory`."""
    if not samples:
        return None
    try:
        from profilers.leak_verdict import judge
    except ImportError:
        return None
    return shown(judge(thinned(samples)), at)


def thinned(samples: Sequence[MemorySample]) -> list[MemorySample]:
    """As many samples of each worker as are judged, of those that were taken as the newest was: tracemalloc
    changes all figures.
    """
    by_worker: defaultdict[tuple[str, int, float], list[MemorySample]] = defaultdict(list)
    for sample in samples:
        if sample.tracing == samples[-1].tracing:
            by_worker[sample.host, sample.pid, sample.born].append(sample)
    return [sample for life in by_worker.values() for sample in life[:: 1 + len(life) // MOST_JUDGED]]


def live_verdict(store: Store) -> LeakVerdict | None:
    """The newest verdict on the workers that run; None until there is one.

    Where it is not of now, another is begun: the page that is asked for next has it.
    """
    now = time.time()
    kept = _kept(store)
    if now > kept.get("at", 0.0) + AGAIN_SECONDS and now > kept.get("claimed", 0.0) + PATIENCE_SECONDS:
        _keep(store, {**kept, "claimed": now})
        threading.Thread(target=_renew, args=(store,), name="profilers-leaks", daemon=True).start()
    return LeakVerdict(**kept["verdict"]) if "verdict" in kept else None


def _renew(store: Store) -> None:
    try:
        alive = {(status.host, status.pid) for status in switches.status(store).workers}
        since = time.time() - LOOKED_BACK
        samples = [each for each in store.memory(Period(since=since)) if (each.host, each.pid) in alive]
        if samples:
            verdict = _ask(thinned(samples))
        else:
            verdict = LeakVerdict("", "The profiler `memory` is off: switch it on, and send requests.")
    except Exception as error:
        log.exception("the console cannot judge the memory of the workers")
        why = f"It cannot be judged here ({type(error).__name__}); `python -m profilers memory` can."
        verdict = LeakVerdict("", why)
    now = time.time()
    try:
        _keep(store, {"at": now, "verdict": {**asdict(verdict), "at": now}})
    except Exception:  # The store may be away by now; this thread's errors reach nobody else.
        log.exception("the console cannot keep the verdict on the memory of the workers")


def _ask(samples: Sequence[MemorySample]) -> LeakVerdict:
    rows = [[each.at, each.host, each.pid, each.born, json.dumps(_rest(each))] for each in samples]
    here = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), here]))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "profilers.console.leaks"],
        input=json.dumps(rows),
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )
    return LeakVerdict(**json.loads(done.stdout))


def _rest(sample: MemorySample) -> dict[str, Any]:
    key = ("at", "host", "pid", "born")
    return {name: value for name, value in asdict(sample).items() if name not in key}


def _kept(store: Store) -> dict[str, Any]:
    connection = store.database.connect()
    try:
        with connection.transaction(write=False):
            row = connection.execute("SELECT body FROM control WHERE name = ?", (_NAME,)).fetchone()
    finally:
        connection.close()
    return json.loads(row[0]) if row else {}


def _keep(store: Store, body: dict[str, Any]) -> None:
    connection = store.database.connect()
    try:
        with connection.transaction(write=True):
            connection.insert(
                ("INSERT INTO control VALUES ", 2, " ON CONFLICT (name) DO UPDATE SET body = excluded.body"),
                [(_NAME, json.dumps(body))],
            )
    finally:
        connection.close()


def main() -> None:
    """Judge the samples that come in, and write the verdict."""
    if hasattr(os, "nice"):
        os.nice(10)
    samples = [decode_sample(row) for row in json.load(sys.stdin)]
    verdict = judged(samples, 0.0)
    missing = LeakVerdict("", "The extra `memory` is not installed: pip install 'flask-profilers[memory]'.")
    json.dump(asdict(verdict or missing), sys.stdout)


if __name__ == "__main__":
    main()
