"""Does calling it again keep memory? Counted, not timed: after a warm-up, the same call may keep nothing.

from profilers.testing.memory import assert_no_growth

def test_the_front_page_keeps_nothing(client):
    assert_no_growth(lambda: client.get("/"))
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

from profilers.location import shown_path
from profilers.memory.snapshots import Frame, statistics_of

ROUNDS = 5
"""Groups of calls that are compared."""
ATTEMPTS = 3
"""Growth must be seen this often in a row: a warm-up grows for a while, a leak for ever."""
FRAMES = 1000
"""As deep as Python's stack: an allocation shows whether it was made below the call or by another thread."""


def assert_no_growth(call: Callable[[], object], n: int = 50, *, bytes_per_call: float = 32.0) -> None:
    """Fail when memory is kept by each further call, and name the lines that keep it.

    The call is made `n` times in five rounds, after two such rounds as a warm-up. It keeps memory when every
    round ends with more than the one before, and all of them together keep more than `bytes_per_call`; then
    it is measured again, and fails the third time: a cache that fills up, an import at first use and a list
    that makes room for its next items do not.

    What other threads allocate meanwhile does not count, unless tracemalloc was on before with fewer frames
    than the call is deep: then nothing tells it apart.

    Raises:
        AssertionError: it grows; the message has the lines.
        ValueError: `n` is below 10.
    """
    if n < 2 * ROUNDS:
        raise ValueError(f"n={n}: expected at least {2 * ROUNDS} calls")
    each = n // ROUNDS
    _repeat(call, each)
    with _watched():
        _repeat(call, each)  # what tracemalloc sees for the first time
        for _ in range(ATTEMPTS):
            before = _by_line()
            held = _held_after_each_round(call, each)
            kept = (held[-1] - held[0]) / (each * ROUNDS)
            if kept <= bytes_per_call or any(later <= earlier for earlier, later in pairwise(held)):
                return
        after = _by_line()
    raise AssertionError(_message(kept, each * ROUNDS, before, after))


@contextmanager
def _watched() -> Iterator[None]:
    """tracemalloc is on; what was there before is not looked at again in each garbage collection."""
    tracing, frozen = tracemalloc.is_tracing(), gc.get_freeze_count() > 0
    if not tracing:
        tracemalloc.start(FRAMES)
    if not frozen:
        gc.collect()
        gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()
        if not tracing:
            tracemalloc.stop()


def _held_after_each_round(call: Callable[[], object], each: int) -> list[int]:
    """Bytes, `ROUNDS` + 1 of them: the first before any round."""
    held = [_held()]
    for _ in range(ROUNDS):
        _repeat(call, each)
        held.append(_held())
    return held


def _held() -> int:
    gc.collect()
    if _tells_threads_apart():
        return sum(_by_line().values())
    return tracemalloc.get_traced_memory()[0]


def _by_line() -> dict[tuple[Frame, ...], int]:
    below = _OF_CALL if _tells_threads_apart() else frozenset()
    statistics, left_out, _ = statistics_of(tracemalloc.take_snapshot(), below)
    return {(): left_out} | {one.frames: one.bytes for one in statistics}


def _tells_threads_apart() -> bool:
    return tracemalloc.get_traceback_limit() >= FRAMES


def _repeat(call: Callable[[], object], times: int) -> None:
    for _ in range(times):
        call()


_OF_CALL = frozenset((_repeat.__code__.co_filename, line) for *_, line in _repeat.__code__.co_lines() if line)


def _message(
    kept: float, calls: int, before: dict[tuple[Frame, ...], int], after: dict[tuple[Frame, ...], int]
) -> str:
    grown = {frames: size - before.get(frames, 0) for frames, size in after.items()}
    lines = [f"each call keeps {kept:.0f} bytes (measured over {calls} calls):"]
    for frames, size in sorted(grown.items(), key=lambda one: -one[1])[:5]:
        if frames and size > 0:
            places = " from ".join(f"{shown_path(file)}:{line}" for file, line in frames[:3])
            lines.append(f"  {size / calls:8.0f} bytes a call at {places}")
    return "\n".join(lines)
