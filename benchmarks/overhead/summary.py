"""Turns what the processes measured into ratios to no profiler, with their spread. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from benchmarks.turns import Spread


@dataclass(frozen=True)
class Batch:
    """Some requests of one kind, served in a row by one process."""

    generation: int
    """Processes of one generation ran side by side."""
    round: int
    """Batches of one generation and round ran one right after the other."""
    variant: str
    request: str
    times: Sequence[int]
    """Nanoseconds of each request."""
    cpu: int
    """CPU nanoseconds of the process meanwhile: most of what a background thread does comes later."""
    cpu_ended: int
    """CPU nanoseconds of the process since it began, when the batch had been served."""
    resident: int
    """Bytes of memory of the process afterwards."""


def wall(batches: Sequence[Batch], baseline: Sequence[Batch]) -> float:
    """Ratio of the time of the median request: the median over rounds, each against the same moment."""
    return _by_round(batches, baseline, lambda batch: median(batch.times))


def cpu(batches: Sequence[Batch], baseline: Sequence[Batch]) -> float:
    """The same for the CPU time of the process while it serves, by request."""
    return _by_round(batches, baseline, lambda batch: batch.cpu / len(batch.times))


def whole_cpu(batches: Sequence[Batch], baseline: Sequence[Batch]) -> float:
    """Ratio of the CPU time from the first batch to the last, with what was done between them."""
    return _whole_cpu(batches) / _whole_cpu(baseline)


def _whole_cpu(batches: Sequence[Batch]) -> int:
    return max(batch.cpu_ended for batch in batches) - min(batch.cpu_ended - batch.cpu for batch in batches)


def _by_round(
    batches: Sequence[Batch], baseline: Sequence[Batch], measure: Callable[[Batch], float]
) -> float:
    then = {batch.round: measure(batch) for batch in baseline}
    return median(measure(batch) / then[batch.round] for batch in batches)


def p99(batches: Sequence[Batch], baseline: Sequence[Batch]) -> float:
    """Ratio of the times that 1 % of the requests exceed."""
    return _p99(batches) / _p99(baseline)


def _p99(batches: Sequence[Batch]) -> float:
    return quantiles((time for batch in batches for time in batch.times), n=100)[98]


def megabytes_more(batches: Sequence[Batch], baseline: Sequence[Batch]) -> float:
    """Memory at the end, in MB more."""
    return (batches[-1].resident - baseline[-1].resident) / 2**20


RATIOS = {"wall": wall, "CPU": cpu, "p99": p99}


def compare(
    batches: Iterable[Batch],
    variant: str,
    baseline: str,
    compared: Callable[[Sequence[Batch], Sequence[Batch]], float],
    request: str | None = None,
) -> Spread:
    """Each process of a variant against the baseline's of its generation; the spread is over generations."""
    groups: dict[tuple[int, str], list[Batch]] = {}
    for batch in batches:
        if request in (None, batch.request):
            groups.setdefault((batch.generation, batch.variant), []).append(batch)
    return Spread.of(
        [
            compared(group, groups[generation, baseline])
            for (generation, each), group in groups.items()
            if each == variant
        ]
    )


def tables(batches: Sequence[Batch], baseline: str) -> str:
    """The whole result as Markdown."""
    variants = list(dict.fromkeys(batch.variant for batch in batches))
    others = [variant for variant in variants if variant != baseline]
    lines = []
    for request in dict.fromkeys(batch.request for batch in batches):
        times = [
            time
            for batch in batches
            if (batch.variant, batch.request) == (baseline, request)
            for time in batch.times
        ]
        lines += [
            f"**{request}** ({median(times) / 1000:.0f} µs a request with {baseline})",
            "",
            "| variant | " + " | ".join(RATIOS) + " |",
            "|---|" + "---|" * len(RATIOS),
        ]
        for variant in others:
            cells = [compare(batches, variant, baseline, ratio, request) for ratio in RATIOS.values()]
            lines.append(f"| {variant} | " + " | ".join(map(str, cells)) + " |")
        lines.append("")
    lines += [
        "**The process as a whole, its background threads included**",
        "",
        f"| variant | CPU of all requests | MB more than {baseline} |",
        "|---|---|---|",
    ]
    for variant in others:
        spent = compare(batches, variant, baseline, whole_cpu)
        more = compare(batches, variant, baseline, megabytes_more)
        lines.append(f"| {variant} | {spent} | {more.middle:.1f} ({more.low:.1f}–{more.high:.1f}) |")  # noqa: RUF001
    return "\n".join(lines)
