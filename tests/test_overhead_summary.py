"""The arithmetic of `make bench-overhead`."""

from __future__ import annotations

import pytest

from benchmarks.overhead.summary import Batch, compare, cpu, megabytes_more, tables, wall, whole_cpu
from benchmarks.turns import Spread


def batch(
    generation: int, number: int, variant: str, microseconds: int, megabytes: int = 50, behind: int = 0
) -> Batch:
    """The second of two in a process begins when 10 ms of CPU are spent, and `behind` on what comes later."""
    times = [microseconds * 1000] * 10
    cpu_ended = sum(times) + number * 10_000_000 + behind * number
    return Batch(generation, number, variant, "request", times, sum(times), cpu_ended, megabytes * 2**20)


# The machine is twice as slow in the second round; the profiler always costs a tenth.
MEASURED = [
    batch(
        generation,
        number,
        variant,
        int(base * (1.1 if variant == "ours" else 1)),
        60 if variant == "ours" else 50,
    )
    for generation in range(3)
    for number, base in enumerate((100, 200))
    for variant in ("none", "ours")
]


@pytest.mark.parametrize("ratio", [wall, cpu])
def test_a_slow_moment_of_the_machine_does_not_show(ratio):
    spread = compare(MEASURED, "ours", "none", ratio, "request")
    assert (spread.low, spread.middle, spread.high) == pytest.approx((1.1, 1.1, 1.1))


def test_what_is_done_between_the_batches_counts_for_the_whole_process():
    """10 ms up to the second batch and 2 ms in it, against 11 and 2.2."""
    none = [batch(0, 0, "none", 100), batch(0, 1, "none", 200)]
    ours = [batch(0, 0, "ours", 110), batch(0, 1, "ours", 220, behind=1_000_000)]
    assert compare([*none, *ours], "ours", "none", cpu).middle == pytest.approx(1.1)
    assert compare([*none, *ours], "ours", "none", whole_cpu).middle == pytest.approx(13.2 / 12)


def test_memory_is_the_difference_to_the_baseline():
    assert compare(MEASURED, "ours", "none", megabytes_more).middle == 10


def test_spread_is_over_processes():
    assert str(Spread.of([1.0, 1.1, 1.2, 1.3, 1.4])) == "1.20 (1.10–1.30)"  # noqa: RUF001
    assert Spread.of([1.5]) == Spread(1.5, 1.5, 1.5)


def test_the_tables_have_a_line_for_each_variant_but_the_baseline():
    text = tables(MEASURED, "none")
    assert "**request** (150 µs a request with none)" in text
    assert "| ours | 1.10 (1.10–1.10) | 1.10 (1.10–1.10) | 1.10" in text  # noqa: RUF001
    assert "(1.02–1.02) | 10.0 (10.0–10.0) |" in text  # noqa: RUF001
    assert "| none |" not in text
