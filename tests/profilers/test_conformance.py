"""The conformance kit: built-in profilers keep the contract, and one that breaks it is told."""

from __future__ import annotations

import subprocess
import sys
import threading
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from profilers.call_stack import CallStack
from profilers.collect import current
from profilers.nplusone import NPlusOne
from profilers.plugin import Profiler
from profilers.profile import Finding, Profile
from profilers.query_counter import QueryCounter
from profilers.slow_queries import SlowQueries
from profilers.testing.conformance import Conformance

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/flask-profilers-payload"


class TestQueryCounter(Conformance):
    profiler = QueryCounter


class TestNPlusOne(Conformance):
    profiler = NPlusOne


class TestSlowQueries(Conformance):
    profiler = SlowQueries


class TestCallStack(Conformance):
    profiler = CallStack


@dataclass
class Loose:
    limit: int = 3


class Broken(Profiler[Loose]):
    """Breaks every rule at once."""

    name: ClassVar[str] = "Broken Profiler"
    options_class = Loose
    needs: ClassVar[Any] = frozenset({"telepathy"})

    def on_app(self, app: object) -> None:
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.stop.wait, args=(5,))
        self.thread.start()

    def on_finish(self, profile: Profile) -> None:
        raise RuntimeError(profile.name)

    def examine(self, profile: Profile) -> None:
        profile.sections["broken"] = {1, 2}
        profile.findings.append(Finding("", "", "", 0))


@pytest.mark.parametrize("check", [name for name in dir(Conformance) if name.startswith("test_")])
def test_a_profiler_that_breaks_the_contract_is_told(check: str) -> None:
    kit = Conformance()
    made: list[Broken] = []

    class Remembered(Broken):
        def __init__(self, options: Loose) -> None:
            super().__init__(options)
            made.append(self)

    kit.profiler = Remembered  # type: ignore[misc]
    try:
        with pytest.raises((AssertionError, RuntimeError, TypeError)):
            getattr(kit, check)()
    finally:
        for broken in made:
            if hasattr(broken, "stop"):
                broken.stop.set()
                broken.thread.join()
    assert current.get() is None, "what follows would be collected too"


def test_the_example_outside_the_tree_is_installed_found_and_used(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False, system_site_packages=False, symlinks=True)
    python = tmp_path / "venv/bin/python"
    site = next((tmp_path / "venv/lib").glob("python*/site-packages"))
    (site / "ours.pth").write_text("\n".join(path for path in sys.path if path) + f"\n{EXAMPLE.parents[1]}\n")
    install = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--target", str(site), str(EXAMPLE)], check=True, timeout=100)
    (tmp_path / "test_payload.py").write_text(
        "from flask_profilers_payload import PayloadSize\n"
        "from profilers.testing.conformance import Conformance\n\n\n"
        "class TestPayload(Conformance):\n    profiler = PayloadSize\n"
    )
    used = """
from sqlalchemy import create_engine, text
from profilers import record
engine = create_engine("sqlite://")
with record("many", profile="payload") as profile, engine.connect() as connection:
    connection.execute(text("SELECT 1")).all()
print(profile.sections)
"""
    environment = {"PATH": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    for command in (["-m", "pytest", "-q", str(tmp_path / "test_payload.py")], ["-c", used]):
        done = subprocess.run(
            [str(python), *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("{'payload': {'rows':")
