"""`assert_no_growth`: fails on what keeps memory call after call, with the line, and on nothing else."""

from __future__ import annotations

import tracemalloc
from functools import lru_cache

import pytest

from profilers.testing.memory import assert_no_growth

kept: list[object] = []


def test_a_call_that_keeps_something_fails_with_its_line():
    with pytest.raises(AssertionError, match=r"each call keeps \d+ bytes") as failed:
        assert_no_growth(lambda: kept.append(bytearray(1000)))
    assert "test_no_growth.py:17" in str(failed.value)
    kept.clear()


def test_a_call_that_keeps_a_hundred_bytes_fails_as_well():
    with pytest.raises(AssertionError):
        assert_no_growth(lambda: kept.append(bytes(67)), 200)
    kept.clear()


def test_a_call_that_keeps_nothing_passes():
    assert_no_growth(lambda: [bytearray(1000) for _ in range(10)])


def test_a_cycle_that_waits_to_be_collected_is_nothing_kept():
    def cycle() -> None:
        loop: list[object] = [bytearray(1000)]
        loop.append(loop)

    assert_no_growth(cycle)


def test_a_cache_that_is_full_after_the_warm_up_passes():
    @lru_cache(maxsize=16)
    def cached(key: int) -> bytearray:
        return bytearray(1000)

    numbers = iter(range(10_000))
    assert_no_growth(lambda: cached(next(numbers)), 100)


def test_a_cache_that_fills_up_while_it_is_watched_passes():
    @lru_cache(maxsize=200)
    def cached(key: int) -> bytearray:
        return bytearray(1000)

    numbers = iter(range(1_000, 10_000))  # Python keeps an object of its own for each number below 257
    assert_no_growth(lambda: cached(next(numbers)), 100)  # it is full in the second of three measurements


def test_tracing_of_somebody_elses_is_left_on():
    tracemalloc.start()
    assert_no_growth(lambda: None)
    assert tracemalloc.is_tracing()
    tracemalloc.stop()


def test_too_few_calls_are_refused():
    with pytest.raises(ValueError, match="expected at least 10 calls"):
        assert_no_growth(lambda: None, 5)
