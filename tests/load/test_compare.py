"""Two versions beside each other: what is called slower, what is counted, and what a wrong setting says."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from locustfiles import history
from locustfiles.compare import comparison, counting, judge, report, routes
from locustfiles.compare.comparison import Comparison
from locustfiles.compare.counting import Counted, Statement
from locustfiles.compare.judge import Interval
from locustfiles.compare.routes import Route, Tolerance
from locustfiles.compare.timing import FIGURES, Measured, cpu_seconds
from locustfiles.service import ServiceError

ROOT = Path(__file__).resolve().parents[2]
USUAL = Tolerance(cpu=0.1, database=0.3, bytes=0.05, allocations=0.1)
LIST = Route("GET /services", "/services", USUAL, role="user")
READ = Statement(
    "SELECT … FROM service_metrics",
    1,
    20,
    "pake/rows.py:41 in newest",
    frozenset({"Index Scan using newest on service_metrics"}),
)
COUNTED = Counted(200, {READ.shape: READ}, {}, 1000, 5000, 90_000)


def seconds(
    chance: np.random.Generator, slower: float = 1.0, pairs: int = 6, rounds: int = 16
) -> NDArray[np.float64]:
    """A noisy machine, as one with two cores and a load beside was seen: processes differ by 1 %, rounds by
    7 %, one in twenty is spoiled, and load comes and goes for both sides.
    """
    load = chance.uniform(1, 1.6, (1, pairs, rounds))
    noise = chance.normal(0, 0.01, (2, pairs, 1)) + chance.normal(0, 0.07, (2, pairs, rounds))
    noise += (chance.random((2, pairs, rounds)) < 0.05) * chance.uniform(0, 0.6, (2, pairs, rounds))
    return 0.002 * load * np.exp(noise) * np.array([1.0, slower]).reshape(2, 1, 1)


def told(chance: np.random.Generator, slower: float = 1.0, tolerance: float = 0.1) -> list[str]:
    """The verdicts of sixteen routes, of which the first is slower."""
    measured = {f"route {number}": seconds(chance, slower if number == 0 else 1.0) for number in range(16)}
    found = judge.intervals(measured, len(measured))
    return [one.verdict(tolerance) for one in found.values()]


def test_a_version_beside_itself_is_neither_slower_nor_faster() -> None:
    chance = np.random.default_rng(1)
    runs = [told(chance) for _ in range(20)]
    assert sum("slower" in run or "faster" in run for run in runs) <= 1
    assert sum(run.count("same") for run in runs) > 0.9 * 20 * 16


@pytest.mark.parametrize(("slower", "verdict"), [(1.25, "slower"), (0.75, "faster")])
def test_one_route_that_changed_is_found_and_only_that(slower: float, verdict: str) -> None:
    chance = np.random.default_rng(2)
    runs = [told(chance, slower) for _ in range(10)]
    assert sum(run[0] == verdict for run in runs) >= 9
    assert sum("slower" in run[1:] or "faster" in run[1:] for run in runs) <= 1


def test_too_little_data_cannot_tell_and_says_how_much_would() -> None:
    chance = np.random.default_rng(3)
    few = judge.intervals({"a": seconds(chance, 1.2, pairs=2, rounds=2)}, 16)["a"]
    assert few.verdict(0.1) == "cannot tell"
    assert few.low < 1.2 < few.high
    assert judge.more_pairs(Interval(1.2, 1.0, 1.44), 2, 0.1) == 7  # the interval is 2.1 times too wide
    assert judge.more_pairs(Interval(1.1, 1.0, 1.21), 2, 0.1) is None


def statement(**changes: object) -> Counted:
    changed = dataclasses.replace(READ, **changes)  # type: ignore[arg-type]
    return dataclasses.replace(COUNTED, statements={changed.shape: changed})


def compared(head: Counted, *, slower: float = 1.0, base: Counted = COUNTED) -> Comparison:
    times = {figure: seconds(np.random.default_rng(4), slower) for figure in FIGURES}
    return comparison.compare([LIST], {LIST.name: base}, {LIST.name: head}, {LIST.name: Measured(times)}, {})


def test_equal_versions_have_no_problem() -> None:
    found = compared(COUNTED)
    assert (found.problems, found.doubts, found.outcome) == ([], [], "NO REGRESSION")


ADDED = Statement("SELECT 1", 1, 1, "pake/views.py:7 in list_services")


@pytest.mark.parametrize(
    ("head", "problem"),
    [
        (
            dataclasses.replace(COUNTED, statements={READ.shape: READ, ADDED.shape: ADDED}),
            "GET /services: a statement more at pake/views.py:7 in list_services: SELECT 1",
        ),
        (statement(count=5), "GET /services: 4 statements more at pake/rows.py:41 in newest: SELECT … FROM"),
        (statement(rows=21), "GET /services: 21 rows, base has 20"),
        (
            statement(scans=frozenset({"Seq Scan on service_metrics"})),
            "GET /services: service_metrics is read from end to end, base had Index Scan using newest on",
        ),
        (
            dataclasses.replace(COUNTED, findings={"n_plus_one|…|Service.metrics": "N+1 at views.py:9"}),
            "GET /services: new finding: N+1 at views.py:9",
        ),
        (dataclasses.replace(COUNTED, allocations=7500), "7,500 allocations, base has 5,000 (× 1.50"),  # noqa: RUF001
        (dataclasses.replace(COUNTED, allocated=180_000), "180,000 bytes allocated, base has 90,000"),
        (dataclasses.replace(COUNTED, bytes=2000), "2,000 bytes in the answer, base has 1,000"),
        (Counted(500), "GET /services: head answers with 500, base with 200"),
    ],
)
def test_what_grew_is_a_problem_with_its_route_and_line(head: Counted, problem: str) -> None:
    found = compared(head)
    assert not found.passed
    assert any(problem in line for line in found.problems), found.problems
    assert compared(COUNTED, base=head).passed or head.status == 500  # the other way round it shrank


def test_a_slower_route_fails_and_is_named_with_its_interval() -> None:
    found = compared(COUNTED, slower=1.6)
    assert found.routes[0].verdict == "slower"
    assert found.problems[0].startswith("GET /services: CPU of the worker × 1.")  # noqa: RUF001
    assert report.headline(found) == "compare: REGRESSION (2 found)"
    assert "| GET /services | slower |" in report.markdown(found)
    assert json.loads(json.dumps(report.as_json(found)))["problems"] == found.problems
    assert "FAIL  GET /services" in report.terminal(found)


def test_a_statement_that_replaces_another_is_no_problem() -> None:
    other = dataclasses.replace(READ, shape="SELECT … ORDER BY")
    assert compared(dataclasses.replace(COUNTED, statements={other.shape: other})).passed


def test_a_route_that_base_lacks_is_told_and_not_judged() -> None:
    found = compared(COUNTED, base=Counted(404))
    assert found.passed
    assert found.only_head == ("GET /services",)


def sent(shape: str, line: int, rows: int = 1) -> dict[str, Any]:
    return {"shape": shape, "rows": rows, "location": ["pake/views.py", line, "show"]}


def test_what_each_of_several_requests_does_is_counted_and_the_rest_is_left_out() -> None:
    plan = ["Seq Scan on services (cost 1, 2 rows)"]
    slow = {
        "kind": "slow_query",
        "cause": "",
        "subject": "SELECT 1",
        "message": "",
        "details": {"plan": plan},
    }
    twice = {"kind": "duplicate_query", "cause": "", "subject": "SELECT 2", "message": "twice", "details": {}}
    profiles: list[dict[str, Any]] = [
        {"statements": [sent("SELECT 1", 7, rows=3), sent("SELECT 1", 7)], "findings": [slow]}
        for _ in range(5)
    ]
    profiles[3]["statements"].append(sent("SELECT 2", 9))
    profiles[3]["findings"].append(twice)
    statements, findings = counting.seen(profiles)
    assert list(statements) == ["SELECT 1"]
    one = statements["SELECT 1"]
    assert (one.count, one.rows, one.line) == (2, 4, "pake/views.py:7 in show")
    assert one.scans == {"Seq Scan on services"}
    assert findings == {}
    for profile in profiles:
        profile["findings"] = [twice]
    assert list(counting.seen(profiles)[1].values()) == ["twice"]


def test_a_plan_is_read_without_its_costs() -> None:
    plan = [
        "Limit (cost 12, 20 rows)",
        "  Sort (cost 12, 20 rows)",
        "    Seq Scan on service_metrics (cost 9, 20 rows)",
        "      Filter: (service_id = ?)",
        "  Index Only Scan Backward using newest on service_health_checks (cost 1, 1 rows)",
    ]
    scans = counting.scans_of(plan)
    assert "Seq Scan on service_metrics" in scans
    assert any("using newest on service_health_checks" in scan for scan in scans)
    assert len(scans) == 2


def test_the_cpu_of_another_process_is_read_to_less_than_a_millisecond() -> None:
    spin = "import time\nwhile time.process_time() < 0.25: pass\nprint(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", spin], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        used = cpu_seconds(process.pid)
        process.communicate(b"\n")
    assert 0.25 < used < 5
    assert round(used * 1000) != used * 1000


def test_the_routes_that_are_shipped_can_be_read() -> None:
    read = routes.read()
    assert {route.role for route in read} == {"", "user", "admin"}
    assert all(route.tolerance.cpu > 0 for route in read)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[route]]\nname = 'a'", "'tolerance' is missing"),
        (
            "[tolerance]\ncpu = 'much'\n[[route]]\nname = 'a'\npath = '/'",
            "cpu='much': expected a share above 0",
        ),
        ("[tolerance]\nram = 0.1\n[[route]]\nname = 'a'\npath = '/'", "ram=0.1: expected a share above 0"),
        ("[tolerance", "routes.toml: "),
    ],
)
def test_a_mistake_in_the_file_of_routes_is_told(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "routes.toml").write_text(text)
    with pytest.raises(ServiceError) as error:
        routes.read(tmp_path / "routes.toml")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--pairs", "1"], "--pairs: expected 2 or more"),
        (["--base", "nowhere"], "no comparison: git merge-base nowhere HEAD"),
        (["--only", "GET /nowhere"], "no route of"),
    ],
)
def test_a_wrong_option_is_one_line(arguments: list[str], line: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert line in done.stderr
    assert "Traceback" not in done.stderr


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "locustfiles.compare", *arguments]
    environment = {**os.environ, history.SETTING: ""}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=580, check=False
    )


@pytest.mark.long
@pytest.mark.timeout(600)  # of CPU it takes 15 s
def test_this_checkout_counts_the_same_as_itself(tmp_path: Path) -> None:
    done = run(
        "--base", str(ROOT), "--counts-only", "--only", "GET /services/{id}?", "--output", str(tmp_path)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (route,) = json.loads((tmp_path / "summary.json").read_text())["routes"]
    differ = {"allocations", "allocated_bytes"}  # within their tolerance, which the exit status says
    assert {k: v for k, v in route["base"].items() if k not in differ} == {
        k: v for k, v in route["head"].items() if k not in differ
    }
    assert route["head"]["statements"] == len(route["head"]["lines"]) == 4  # one is of the token
    assert route["head"]["allocations"] > 1000
    assert any(line.startswith("pake/registry/queries.py:") for line in route["head"]["lines"].values())
