"""`assert_no_growth`: fails on what keeps memory call after call, with the line, and on nothing else."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Iterator
from functools import lru_cache

import pytest

from profilers.testing.memory import assert_no_growth

kept: list[object] = []


@pytest.fixture(autouse=True)
def _kept_no_longer() -> Iterator[None]:
    yield
    kept.clear()


def keep() -> None:
    kept.append(bytearray(1000))


LINE = f"test_no_growth.py:{keep.__code__.co_firstlineno + 1}"


def test_a_call_that_keeps_something_fails_with_its_line():
    with pytest.raises(AssertionError, match=r"each call keeps \d+ bytes") as failed:
        assert_no_growth(keep)
    assert LINE in str(failed.value)


def test_a_call_that_keeps_a_hundred_bytes_fails_as_well():
    with pytest.raises(AssertionError):
        assert_no_growth(lambda: kept.append(bytes(67)), 200)


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


@pytest.fixture
def busy_neighbour() -> Iterator[None]:
    """Another thread that keeps more and more."""
    stop = threading.Event()
    hoard: list[object] = []

    def fill() -> None:
        while not stop.wait(0.001):
            hoard.append(bytearray(2_000))

    thread = threading.Thread(target=fill)
    thread.start()
    yield
    stop.set()
    thread.join()


@pytest.mark.usefixtures("busy_neighbour")
def test_what_another_thread_keeps_meanwhile_is_not_the_calls():
    assert_no_growth(lambda: time.sleep(0.002))


@pytest.mark.usefixtures("busy_neighbour")
def test_beside_another_thread_that_keeps_more_the_line_of_the_call_is_named_alone():
    with pytest.raises(AssertionError) as failed:
        assert_no_growth(keep)
    _, *places = str(failed.value).splitlines()
    assert places
    assert all(LINE in place for place in places)


def test_what_a_deep_call_keeps_is_found():
    def descend(levels: int) -> None:
        if levels:
            descend(levels - 1)
        else:
            keep()

    with pytest.raises(AssertionError, match="each call keeps"):
        assert_no_growth(lambda: descend(300))


def test_tracing_of_somebody_elses_is_left_on():
    tracemalloc.start()
    try:
        assert_no_growth(lambda: None)
        with pytest.raises(AssertionError, match=LINE):
            assert_no_growth(keep)
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()


def test_too_few_calls_are_refused():
    with pytest.raises(ValueError, match="expected at least 10 calls"):
        assert_no_growth(lambda: None, 5)
