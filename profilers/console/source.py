"""A few lines of the app's source around a finding: only of code, and only from below the app's root."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from profilers.profile import Location

AROUND = 3
LARGEST = 1_000_000
SUFFIXES = frozenset({".py", ".html", ".htm", ".jinja", ".jinja2", ".j2", ".xml"})
"""What a location may point at; a `.env` or a database below the root is none of it."""


@dataclass(frozen=True)
class Line:
    number: int
    text: str
    here: bool


def excerpt(root: Path | None, place: Location | None) -> Sequence[Line]:
    """The line with those around it; empty when there is no such code below `root`."""
    if root is None or place is None or place.line < 1:
        return ()
    top = root
    while (top / "__init__.py").exists():
        top = top.parent
    for folder in (Path.cwd(), top):
        try:
            path = (folder / place.file).resolve(strict=True)
            if not path.is_relative_to(root) or path.suffix not in SUFFIXES or not path.is_file():
                continue
            if path.stat().st_size > LARGEST:
                continue
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except (OSError, ValueError):
            continue
        if place.line > len(lines):
            continue
        first = max(place.line - 1 - AROUND, 0)
        shown = textwrap.dedent("\n".join(lines[first : place.line + AROUND])).split("\n")
        return [
            Line(number, text[:240], number == place.line) for number, text in enumerate(shown, first + 1)
        ]
    return ()
