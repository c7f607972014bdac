"""docs/find-a-leak.md names every option with its default, and code that is there."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from profilers.allocations import Allocations
from profilers.memory import Memory

PAGE = Path("docs/find-a-leak.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("profiler", [Memory, Allocations])
def test_every_option_is_on_the_page_with_its_default(profiler):
    rows = dict(re.findall(r"^\| `(PROFILE_\w+)` \| ([^|]*) \|", PAGE, re.M))
    for field in dataclasses.fields(profiler.options_class):
        shown = rows[f"PROFILE_{profiler.name.upper()}_{field.name.upper()}"].strip()
        if isinstance(field.default, bool):
            assert shown == str(field.default).lower()
        elif isinstance(field.default, int | float):
            assert float(shown) == field.default


def test_the_line_that_the_page_blames_is_that_of_the_example():
    example = Path("examples/leaky/leaky.py").read_text(encoding="utf-8").splitlines()
    assert example[29].strip().startswith("found = {name: price")
    assert example[30].strip().startswith("searches.append((words, found))")
