"""The table of guarantees: complete, current, and told when a row is not kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.guarantees import PAGE, PROMISES, Mark, marks, page, verdicts

ROWS = [row for promises in PROMISES.values() for row in promises]


def test_every_mark_names_a_row() -> None:
    assert {mark.row for mark in marks()} <= {*ROWS}
    assert list(range(1, 47)) == ROWS


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(marks()), "run `make docs`"


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ({"test_a": True, "test_b": True}, "kept"),
        ({"test_a": True, "test_b": False}, "broken"),
        ({"test_a": True}, "missing"),
        ({}, "missing"),
    ],
)
def test_a_row_is_kept_when_all_its_tests_ran_and_passed(outcomes: dict[str, bool], verdict: str) -> None:
    found = [Mark(7, "tests/test_x.py", name) for name in ("test_a", "test_b")]
    rows = verdicts(found, {("tests/test_x.py", name): passed for name, passed in outcomes.items()})
    assert rows[7] == verdict
    assert rows[8] == "missing"


def test_markers_are_found(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(
        "@pytest.mark.fault(3, 4)\n@pytest.mark.slow\ndef test_a(): pass\n\ndef test_b(): pass\n"
    )
    path = f"{tmp_path.name}/test_x.py"
    assert marks(tmp_path) == [Mark(3, path, "test_a"), Mark(4, path, "test_a")]
