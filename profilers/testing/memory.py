"""Does calling it again keep memory? Counted, not timed: after a warm-up, the same call may keep nothing.

from profilers.testing.memory import assert_no_growth

def test_the_front_page_keeps_nothing(client):
    assert_no_growth(lambda: client.get("/"))
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from itertools import pairwise

from profilers.location import shown_path
from profilers.memory.snapshots import Frame, statistics_of

ROUNDS = 5
"""Groups of calls that are compared."""
ATTEMPTS = 3
"""Growth must be seen this often in a row: a warm-up grows for a while, a leak for ever."""
FRAMES = 10


def assert_no_growth(call: Callable[[], object], n: int = 50, *, bytes_per_call: float = 32.0) -> None:
    """Fail when memory is kept by each further call, and name the lines that keep it.

    The call is made `n` times in five rounds, after two such rounds as a warm-up. It keeps memory when every
    round ends with more than the one before, and all of them together keep more than `bytes_per_call`; then
    it is measured again, and fails the third time: a cache that fills up, an import at first use and a list
    that makes room for its next items do not.

    Raises:
        AssertionError: it grows; the message has the lines.
        ValueError: `n` is below 10.
    """
    if n < 2 * ROUNDS:
        raise ValueError(f"n={n}: expected at least {2 * ROUNDS} calls")
    each = n // ROUNDS
    _repeat(call, each)
    ours = not tracemalloc.is_tracing()
    if ours:
        tracemalloc.start(FRAMES)
    try:
        _repeat(call, each)  # what tracemalloc sees for the first time
        for _ in range(ATTEMPTS):
            before = _by_line()
            held = _held_after_each_round(call, each)
            kept = (held[-1] - held[0]) / (each * ROUNDS)
            if kept <= bytes_per_call or any(later <= earlier for earlier, later in pairwise(held)):
                return
        after = _by_line()
    finally:
        if ours:
            tracemalloc.stop()
    raise AssertionError(_message(kept, each * ROUNDS, before, after))


def _held_after_each_round(call: Callable[[], object], each: int) -> list[int]:
    """Bytes, `ROUNDS` + 1 of them: the first before any round."""
    gc.collect()
    held = [tracemalloc.get_traced_memory()[0]]
    for _ in range(ROUNDS):
        _repeat(call, each)
        held.append(tracemalloc.get_traced_memory()[0])
    return held


def _repeat(call: Callable[[], object], times: int) -> None:
    for _ in range(times):
        call()
    gc.collect()


def _by_line() -> dict[tuple[Frame, ...], int]:
    return {one.frames: one.bytes for one in statistics_of(tracemalloc.take_snapshot())[0]}


def _message(
    kept: float, calls: int, before: dict[tuple[Frame, ...], int], after: dict[tuple[Frame, ...], int]
) -> str:
    grown = {frames: size - before.get(frames, 0) for frames, size in after.items()}
    lines = [f"each call keeps {kept:.0f} bytes (measured over {calls} calls):"]
    for frames, size in sorted(grown.items(), key=lambda one: -one[1])[:5]:
        if size > 0:
            places = " from ".join(f"{shown_path(file)}:{line}" for file, line in frames[:3])
            lines.append(f"  {size / calls:8.0f} bytes a call at {places}")
    return "\n".join(lines)
