"""The documentation points at what is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    gone = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert gone == []


def test_every_make_target_named_in_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.M))
    named = set(re.findall(r"make ([a-z0-9-]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert named - {"are"} <= targets, named - targets


def test_every_dependency_says_why() -> None:
    page = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")
    reasons = set(re.findall(r"[A-Za-z0-9_-]+", " ".join(re.findall(r"^\| ([^|]+) \|", page, re.M))))
    setup = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    section = setup[setup.index("[options.extras_require]") :].split("[", 2)[1]
    names = set(re.findall(r"^    ([A-Za-z0-9_-]+)", section, re.M)) - {"flask-profilers"}
    assert names <= reasons, names - reasons


def test_every_test_that_the_security_page_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/security.md").read_text(encoding="utf-8")))
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert named
    assert [name for name in sorted(named) if f"def {name}(" not in tests] == []
