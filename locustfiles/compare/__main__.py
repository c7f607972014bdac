"""`python -m locustfiles.compare --base main`: is this version slower than that one, and which line did it?

The exit status is 0 when nothing got worse, 1 when something did, 2 when there was nothing to judge. What
could not be told is said, and does not fail.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import NoReturn

from locustfiles import history, service
from locustfiles.compare import comparison, counting, report, routes, sides, timing
from locustfiles.compare.comparison import Comparison
from locustfiles.compare.routes import Route
from locustfiles.compare.sides import Side
from locustfiles.compare.timing import Measured
from locustfiles.service import ServiceError


def main(arguments: list[str] | None = None) -> int:
    """Compare; the exit status."""
    options = options_of(arguments)
    signal.signal(signal.SIGTERM, interrupted)
    folder: Path = options.output.resolve()
    try:
        compared = _compare(options)
    except ServiceError as error:
        print(f"no comparison: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("no comparison: interrupted; what was started is stopped", file=sys.stderr)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    summary = json.dumps(report.as_json(compared), indent=2)
    (folder / "summary.json").write_text(summary + "\n", encoding="utf-8")
    (folder / "summary.md").write_text(report.markdown(compared), encoding="utf-8")
    history.add("compare", str(compared.facts["head"]), report.figures(compared))
    print(report.terminal(compared))
    print(f"report: {os.path.relpath(folder)}/ (summary.md, summary.json)")
    return 0 if compared.passed else 1


def options_of(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m locustfiles.compare", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--base", default="main", help="a commit, or the folder of a checkout (main)")
    parser.add_argument("--head", help="the same; this checkout, with what is not committed, when left out")
    parser.add_argument("--pairs", type=_count, default=5, help="starts of both versions, at least (5)")
    parser.add_argument("--most-pairs", type=_count, default=10, help="while something cannot be told (10)")
    parser.add_argument("--rounds", type=_count, default=16, help="of each route in a pair (16)")
    parser.add_argument("--counts-only", action="store_true", help="no times: statements, bytes, allocations")
    parser.add_argument("--routes", type=Path, default=routes.FILE, help="requests and tolerances")
    parser.add_argument("--only", default="", help="routes whose name begins so")
    parser.add_argument("--seed", type=int, default=1, help="of which requests are sent, and in which order")
    parser.add_argument("--output", type=Path, default=service.ROOT / "reports" / "compare")
    options = parser.parse_args(arguments)
    if options.pairs < 2:
        parser.error("--pairs: expected 2 or more, one pair does not tell how far pairs differ")
    return options


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a number from 1, not {text}")
    return int(text)


def _compare(options: argparse.Namespace) -> Comparison:
    wanted = [route for route in routes.read(options.routes) if route.name.startswith(options.only)]
    if not wanted:
        raise ServiceError(f"--only {options.only}: no route of {options.routes} begins so")
    _say(f"base {options.base}, head {options.head or 'this checkout'}: the same data for both")
    with sides.prepared(options.base, options.head) as both:
        return measure(both, wanted, options)


def measure(both: tuple[Side, Side], wanted: Sequence[Route], options: argparse.Namespace) -> Comparison:
    """Count and time two versions that are prepared. Times are taken until all is told, or `--most-pairs`.

    Raises:
        ServiceError: a version does not run, or cannot be counted.
    """
    began = time.monotonic()
    _say("counting statements, rows, plans, bytes and allocations")
    with ThreadPoolExecutor() as side_by_side:
        base, head = side_by_side.map(lambda side: counting.count(side, wanted, options.seed), both)
    shared = [
        route
        for route in wanted
        if comparison.answered(base[route.name]) and comparison.answered(head[route.name])
    ]
    measured: Mapping[str, Measured] = {}
    if shared and not options.counts_only:
        for pairs, measured in enumerate(
            timing.measure(both, shared, options.most_pairs, options.rounds, options.seed, _say), 1
        ):
            if pairs >= options.pairs and not comparison.undecided(shared, measured):
                break
    facts = {side.name: side.version for side in both} | {
        "pairs": next((one.pairs for one in measured.values()), 0),
        "rounds": options.rounds,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "seconds": round(time.monotonic() - began),
    }
    return comparison.compare(wanted, base, head, measured, facts)


def _say(text: str) -> None:
    print(f"==> {text}", file=sys.stderr, flush=True)


def interrupted(signum: int, frame: FrameType | None) -> NoReturn:
    """End as Ctrl-C does: what was started is stopped."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
