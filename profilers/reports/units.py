"""Numbers as people read them."""

from __future__ import annotations

import re
import time


def seconds(value: float) -> str:
    """`1.24 s`, `312 ms`, `0.41 ms`."""
    if value >= 1:
        return f"{value:.3g} s"
    milliseconds = value * 1000
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.2f} ms"


def share(part: float, whole: float) -> str:
    """`43 %`; a dash of nothing."""
    return f"{part / whole:.0%}".replace("%", " %") if whole > 0 else "-"


def moment(value: float) -> str:
    """`2026-11-23 18:30:05`, in local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))


def plural(count: int, noun: str) -> str:
    """`1 statement`, `2 statements`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def visible(value: str) -> str:
    """Without what a terminal obeys or a reader cannot see: control characters (escape sequences begin with
    one), marks that turn the direction of writing and lone surrogates become `\\x1b`, `\\u202e`.
    """
    return _UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), value)


_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def shortened(value: str, width: int) -> str:
    """On one line, with an ellipsis where it was cut."""
    line = visible(" ".join(value.split()))
    return line if len(line) <= width else line[: width - 1] + "…"
