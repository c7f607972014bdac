"""The pages on tests, the command line, reports and third-party profilers are followed word for word."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from profilers import cli, record
from profilers.console import capture
from profilers.profile import Profile
from profilers.store import Period
from tests.profilers.test_comparison import LAZY, store

ROOT = Path(__file__).resolve().parents[2]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / page).read_text("utf-8"), re.DOTALL)


def commands(page: str, start: str) -> list[str]:
    lines = [line for block in blocks(page, "console") for line in block.splitlines()]
    return [line for line in lines if line.startswith(start)]


COMMANDS = [
    *commands("command-line.md", "flask profile"),
    *commands("command-line.md", "python -m profilers"),
    *commands("reports.md", "flask profile"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_pages_is_one(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    filled = store(tmp_path / "after/profiles", found=[LAZY])
    store(tmp_path / "before/profiles", found=[LAZY])
    with record("ID", profile="pyinstrument") as profile:
        sum(range(100_000))
    profile.id = "ID"
    filled.add([profile, Profile("ID", time.time() - 86400)])
    for name in ("before.json", "after.json"):
        Path(name).write_text(capture.save(filled, Period(), 0))
    monkeypatch.setenv("FLASK_PROFILE_STORE", str(filled.database))
    arguments = shlex.split(command, comments=True)
    arguments = arguments[3:] if arguments[0] == "python" else arguments[2:]
    result = CliRunner().invoke(cli.profile, arguments)
    assert result.exit_code == 0, result.output
    assert result.output
    if "-o" in arguments:
        assert Path(arguments[arguments.index("-o") + 1]).stat().st_size


def test_the_pages_name_every_command():
    named = {shlex.split(command, comments=True)[2] for command in COMMANDS if command.startswith("flask")}
    named |= set(re.findall(r"`python -m profilers (\w+)", (ROOT / "docs/command-line.md").read_text()))
    assert set(cli.profile.commands) - {"compare"} <= named


def test_the_page_on_tests(pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    folder = pytester.path
    shutil.copy(ROOT / "examples/blog/blog.py", folder)
    marks, growth = blocks("test-your-queries.md", "python")
    (folder / "test_marks.py").write_text(marks)
    (folder / "test_growth.py").write_text(growth)
    plugin = ("-p", "profilers.pytest_plugin", "-o", "pythonpath=.")
    pytester.runpytest_subprocess(*plugin).assert_outcomes(passed=4)
    printed = []
    for line in commands("test-your-queries.md", "pytest"):
        result = pytester.runpytest_subprocess(*plugin, *shlex.split(line)[1:])
        printed.append((line, int(result.ret)))
        if line == "pytest --nplusone=error":
            assert ".options(joinedload(Post.author))" in result.stdout.str()
    assert [line for line, status in printed if status] == ["pytest --nplusone=error"]
    for file in ("nplusone.json", "queries.lock", "nplusone.sarif"):
        assert "Post.author" in (folder / file).read_text()
    (ini,) = blocks("test-your-queries.md", "ini")
    (folder / "pytest.ini").write_text(ini)
    pytester.runpytest_subprocess(*plugin).assert_outcomes(passed=4)
    (folder / "nplusone.json").unlink()
    pytester.runpytest_subprocess(*plugin).assert_outcomes(passed=2, failed=2)


def test_the_page_on_profilers(tmp_path):
    profiler, conformance = blocks("write-a-profiler.md", "python")
    (tmp_path / "row_count.py").write_text(profiler)
    (tmp_path / "test_row_count.py").write_text(conformance)
    (ini,) = blocks("write-a-profiler.md", "ini")
    setup = configparser.ConfigParser()
    setup.read_string(ini)
    installed = tmp_path / "row_count-1.0.dist-info"  # what pip makes of the page's setup.cfg
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: row-count\nVersion: 1.0\n")
    entries = setup["options.entry_points"]["flask_profilers"].strip()
    (installed / "entry_points.txt").write_text(f"[flask_profilers]\n{entries}\n")
    used = """
import sqlalchemy as sa
from profilers import record
engine = sa.create_engine("sqlite://")
with record("many", profile="row-count") as profile, engine.connect() as connection:
    connection.execute(sa.text("CREATE TABLE a (b)"))
    connection.execute(sa.text("INSERT INTO a VALUES (1), (2), (3)"))
print([finding.message for finding in profile.findings], profile.sections)
"""
    environment = {
        "PATH": "",
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    environment["FLASK_PROFILE_ROW_COUNT_MAX_ROWS"] = "2"
    for command in (["-m", "pytest", "-q", "-c", os.devnull, "test_row_count.py"], ["-c", used]):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "['many fetched 3 rows where 2 are allowed.'] {'row-count': {'rows': 3}}\n"
