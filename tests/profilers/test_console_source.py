"""The lines of source that the console quotes, and those that it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from profilers.console.source import excerpt
from profilers.profile import Location


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An app's folder with a view, a secret, and a link out of it; a file beside it."""
    root = tmp_path / "app"
    root.mkdir()
    (root / "views.py").write_text("".join(f"    line {number}\n" for number in range(1, 21)))
    (root / ".env").write_text("SECRET=1\n")
    (root / "notes.txt").write_text("a\n")
    (tmp_path / "outside.py").write_text("SECRET = 1\n")
    (root / "link.py").symlink_to(tmp_path / "outside.py")
    monkeypatch.chdir(tmp_path)
    return root


@pytest.mark.parametrize("file", ["views.py", "app/views.py"])
def test_the_line_with_those_around_it(root, file):
    lines = excerpt(root, Location(file, 10, "view"))
    assert [line.number for line in lines] == list(range(7, 14))
    assert [line.text for line in lines if line.here] == ["line 10"]


def test_the_whole_path_below_the_root(root):
    assert excerpt(root, Location(str(root / "views.py"), 1, "view"))[0].text == "line 1"


@pytest.mark.parametrize(
    "file",
    ["outside.py", "../outside.py", "app/../outside.py", "link.py", "app/link.py", ".env", "notes.txt",
     "/etc/passwd", "nowhere.py", "a\0b.py", "<template>", ".", ""],
)  # fmt: skip
def test_nothing_else_is_quoted(root, file):
    assert excerpt(root, Location(file, 1, "view")) == ()


@pytest.mark.parametrize("line", [0, -5])
def test_a_line_that_is_none(root, line):
    assert excerpt(root, Location("views.py", line, "view")) == ()


def test_a_line_after_the_end(root):
    assert excerpt(root, Location("views.py", 500, "view")) == ()


def test_without_a_root_nothing_is_quoted(root):
    assert excerpt(None, Location("views.py", 10, "view")) == ()
