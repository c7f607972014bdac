"""`make bench-overhead`: what profilers cost a request, ours and others, side by side over PostgreSQL.

Processes of all variants live at the same time and take turns, a few requests each, in random order: whatever
else the machine does hits all of them alike. Several generations of processes follow each other, because two
processes of the very same code differ; `no profiler, again` shows by how much.

    make bench-overhead                          all variants; writes the tables to docs/overhead.md
    make bench-overhead ARGS=--quick             ours only, under a minute
    make bench-overhead ARGS=--instructions      exact CPU instructions instead of times (needs valgrind)
    make bench-overhead ARGS="--only 'ours, queries' --processes 4"
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import IO

from benchmarks.overhead import instructions
from benchmarks.overhead.app import REQUESTS, create_app, fill
from benchmarks.overhead.summary import Batch, tables
from benchmarks.overhead.variants import AGAIN, BASELINE, QUICK, VARIANTS, profilers_of
from pake import embedded

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv-bench" / "bin" / "python"
PAGE = ROOT / "docs" / "overhead.md"
BEGIN, END = "<!-- measured -->", "<!-- end -->"
BATCH = {"no SQL": 100, "2 statements, 110 rows": 20, "11 statements": 15}
"""Requests in a row, so that a batch of each kind takes about as long."""
WARM_UP = 30


class Process:
    """A running child of one variant."""

    def __init__(self, variant: str, database_url: str, folder: Path) -> None:
        self.variant = variant
        self._log = (folder / "log").open("w+b")
        self._process = subprocess.Popen(
            command(variant, database_url),
            env=environment(folder),
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def batch(self, generation: int, number: int, request: str, count: int) -> Batch:
        """Let it serve some requests in a row."""
        stdin, stdout = _pipes(self._process)
        stdin.write(f"{request} {count}\n")
        stdin.flush()
        answer = stdout.readline()
        if not answer:
            self._log.seek(0)
            sys.exit(f"{self.variant}: {self._log.read().decode()[-2000:]}")
        return Batch(generation, number, self.variant, request, **json.loads(answer))

    def end(self) -> None:
        """Its input is over, so it ends; one that does not within a while is killed."""
        try:
            self._process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._log.close()


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def command(variant: str, database_url: str) -> list[str]:
    return [str(PYTHON), "-m", "benchmarks.overhead.child", variant, database_url]


def environment(folder: Path) -> dict[str, str]:
    """What a child inherits: nothing that would switch a profiler on."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLASK_", "OTEL_"))}
    return kept | {"PYTHONPATH": str(ROOT), "FLASK_PROFILE_STORE": str(folder / "profiles")}


@contextmanager
def running(variants: Sequence[str], database_url: str) -> Iterator[list[Process]]:
    """One process of each variant, warmed up, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, ExitStack() as stack:
        processes = []
        for number, variant in enumerate(variants):
            own = Path(folder) / str(number)
            own.mkdir()
            process = Process(variant, database_url, own)
            stack.callback(process.end)
            for request in REQUESTS:
                process.batch(0, 0, request, WARM_UP)
            processes.append(process)
        yield processes


def measure(variants: Sequence[str], database_url: str, generations: int, rounds: int) -> list[Batch]:
    """Let the variants take turns."""
    batches = []
    for generation in range(generations):
        with running(variants, database_url) as processes:
            for number in range(rounds):
                print(f"\r{generation + 1}/{generations} {number + 1}/{rounds} ", end="", file=sys.stderr)
                for request in random.sample(list(REQUESTS), len(REQUESTS)):
                    for process in random.sample(processes, len(processes)):
                        batches.append(process.batch(generation, number, request, BATCH[request]))  # noqa: PERF401
    print(file=sys.stderr)
    order = {variant: position for position, variant in enumerate(variants)}
    requests = list(REQUESTS)
    return sorted(batches, key=lambda each: (order[each.variant], requests.index(each.request)))


def count_instructions(variants: Sequence[str], database_url: str) -> str:
    """Instructions of one request of each kind, as Markdown, and how many more than without a profiler."""
    lines = ["| variant | " + " | ".join(REQUESTS) + " |", "|---|" + "---|" * len(REQUESTS)]
    baseline: list[int] = []
    for variant in variants:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            counts = instructions.count(
                command(variant, database_url), list(REQUESTS), environment(Path(folder)), Path(folder)
            )
        baseline = baseline or counts
        cells = [f"{n:,} ({n - base:+,})" for n, base in zip(counts, baseline, strict=True)]
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
        print(lines[-1], file=sys.stderr)
    return "\n".join(lines)


def installed(variant: str) -> bool:
    """Whether all our profilers that a variant switches on are there."""
    return profilers_of(variant) <= {entry.name for entry in entry_points(group="flask_profilers")}


def write(result: str) -> None:
    """Put the result into the page, between its two marks."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{result}\n{END}{after}", encoding="utf-8")
    print(f"written to {PAGE.relative_to(ROOT)}", file=sys.stderr)


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(
        "bench_overhead", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="ours, off and together, few processes")
    parser.add_argument("--only", action="append", choices=VARIANTS, metavar="VARIANT", default=[])
    parser.add_argument("--processes", type=int, help="of each variant, one after the other (12; quick: 3)")
    parser.add_argument("--rounds", type=int, help="batches of each kind in each process (10; quick: 8)")
    parser.add_argument(
        "--instructions", action="store_true", help="count instead of time; implies ours only"
    )
    options = parser.parse_args()
    names = list(QUICK if options.quick or options.instructions else VARIANTS)
    if options.only:
        names = [BASELINE, AGAIN, *(name for name in options.only if name not in (BASELINE, AGAIN))]
    if missing := [name for name in names if not installed(name)]:
        print("not installed here:", "; ".join(missing), file=sys.stderr)
    names = [name for name in names if name not in missing]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, embedded.server(Path(folder) / "pg") as url:
        app, db = create_app(url)
        with app.app_context():
            fill(db.session)  # type: ignore[arg-type]
            db.engine.dispose()
        if options.instructions:
            print(count_instructions([name for name in names if name != AGAIN], url))
            return
        quick = options.quick
        processes, rounds = options.processes or (3 if quick else 12), options.rounds or (8 if quick else 10)
        batches = measure(names, url, processes, rounds)
    result = (
        f"{processes} processes of each variant, {rounds} rounds: median of the ratios to `{BASELINE}`, "
        f"with quartiles.\n\n{tables(batches, BASELINE)}"
    )
    print(result)
    if not (quick or options.only):
        write(result)


if __name__ == "__main__":
    main()
