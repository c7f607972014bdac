"""The workflows: what runs there runs here, with few rights, from actions that cannot change."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = {
    path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github/workflows").glob("*.yml")
}
JOBS = [(workflow, name, job) for workflow, whole in WORKFLOWS.items() for name, job in whole["jobs"].items()]
PERFORMANCE = WORKFLOWS["performance"]["jobs"]


def targets() -> set[str]:
    """The make targets that are listed to people."""
    makefile = (ROOT / "Makefile").read_text()
    return {*re.findall(r"^([a-z0-9-]+):.* ## ", makefile, re.M)}


def commands(job: dict[str, Any]) -> list[str]:
    """What the job runs, for each member of its matrix."""
    axes = job.get("strategy", {}).get("matrix", {})
    members = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    found = []
    for step in job["steps"]:
        for member in members if "run" in step else ():
            command = step["run"]
            for name, value in step.get("env", {}).items():
                for axis, one in member.items():
                    if value == f"${{{{ matrix.{axis} }}}}":
                        command = command.replace(f"${name}", one)
            found.append(command.replace('"', ""))
    return found


@pytest.mark.parametrize(
    ("workflow", "name", "job"), JOBS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_step_of_a_workflow_is_a_make_target(workflow: str, name: str, job: dict[str, Any]) -> None:
    known = {f"make {target}" for target in targets()} | {".ci/run"}
    assert [command for command in commands(job) if command not in known] == []


def test_a_step_that_is_none_would_be_found() -> None:
    job = {
        "strategy": {"matrix": {"it": ["smoke", "x"]}},
        "steps": [{"run": 'make "perf-$IT"', "env": {"IT": "${{ matrix.it }}"}}],
    }
    assert commands(job) == ["make perf-smoke", "make perf-x"]
    assert "perf-smoke" in targets()
    assert "perf-x" not in targets()


@pytest.mark.parametrize(
    ("workflow", "name", "job"), JOBS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_action_is_pinned_by_its_hash(workflow: str, name: str, job: dict[str, Any]) -> None:
    used = [step["uses"] for step in job["steps"] if "uses" in step]
    assert [action for action in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action)] == []


@pytest.mark.parametrize(
    ("workflow", "name", "job"), JOBS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_job_may_read_and_only_the_one_that_comments_may_write(
    workflow: str, name: str, job: dict[str, Any]
) -> None:
    assert WORKFLOWS[workflow]["permissions"] == {}
    writes = {"pull-requests": "write"} if name == "comment" else {}
    assert job["permissions"] == {"contents": "read"} | writes


def test_the_job_that_may_write_runs_nothing_of_the_pull_request() -> None:
    steps = PERFORMANCE["comment"]["steps"]
    checkouts = [
        step["with"]["ref"] for step in steps if step.get("uses", "").startswith("actions/checkout@")
    ]
    assert checkouts == ["${{ github.event.pull_request.base.sha }}"]


def test_a_pull_request_is_compared_and_each_night_the_larger_loads_run() -> None:
    assert {name: commands(job) for name, job in PERFORMANCE.items()} == {
        "smoke": ["make perf-smoke"],
        "compare": ["make perf-compare"],
        "comment": ["make perf-comment"],
        "nightly": ["make perf-normal", "make perf-peak", "make perf-stress"],
        "endurance": ["make perf-endurance"],
        "report": ["make perf-gather"],
    }
    assert {*PERFORMANCE["report"]["needs"]} == {"smoke", "compare", "nightly", "endurance"}


def test_reports_are_kept_whether_the_verdict_was_good_or_bad() -> None:
    for name in ("smoke", "compare", "nightly", "endurance"):
        upload = PERFORMANCE[name]["steps"][-1]
        assert upload["if"] == "always()"
        assert upload["with"]["name"].startswith("reports-")
