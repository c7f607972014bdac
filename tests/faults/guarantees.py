"""`make test-faults`: what the service and the profilers promise under faults, and the tests that keep it.

A test says `@pytest.mark.fault(N)` which row it keeps. The run ends with all rows and a verdict for each; a
row whose test fails, or that has none, fails the command. `make docs` writes them to docs/guarantees.md.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/guarantees.md"


class Promise(NamedTuple):
    """One row."""

    fault: str
    expected: str


PROMISES = {
    "Answers": {
        1: Promise("malformed JSON; an empty body where JSON is asked for; invalid UTF-8", "400"),
        2: Promise("JSON sent as text/plain; a form where JSON is asked for, and the reverse", "415"),
        3: Promise("a NUL character in JSON, form, query or path", "422"),
        4: Promise("an integer that no column holds", "422; in a path 404"),
        5: Promise("30,000 nested `[` in 60 kB", "400"),
        6: Promise("an unknown field, such as a role at registration", "422, nothing is stored"),
        7: Promise('`true` for an integer, `"5"` for a number, NaN, 1e400', "422"),
        8: Promise("a body over the limit, with Content-Length", "413"),
        9: Promise("a chunked body over the limit", "413"),
        10: Promise("a body shorter than announced", "400, nothing is done"),
        11: Promise(
            "two lengths, a length with chunks, a space before a colon", "400, the connection is closed"
        ),
        12: Promise("a missing or foreign Host", "400"),
        13: Promise("an unknown path, `..%2f`, a wrong method", "404; 405 with Allow"),
        14: Promise("no token, a forged one, an expired one, another algorithm", "401 with a challenge"),
        15: Promise("a refresh token as access token, and the reverse", "401"),
        16: Promise(
            "the token of an account since disabled, signed out or with a new password",
            "401, at the latest 5 s later",
        ),
        17: Promise("a refresh token sent again after rotation", "401, its family is revoked, logged"),
        18: Promise("the right token with the wrong role", "403 `insufficient_scope`"),
        19: Promise(
            "a wrong password, an unknown name, a disabled account",
            "the same answer, statements and work",
        ),
        20: Promise(
            "the sixth wrong password in a row", "429 with Retry-After, whether or not the name exists"
        ),
        21: Promise(
            "passwords too long, common or made of the name; emoji, spaces, letters alone",
            "422; the latter three are fine",
        ),
        22: Promise("a password of a senseless length asked for", "422"),
        23: Promise("a name registered twice; a stale update", "409; 412"),
        24: Promise("a metric of another time, NaN, a million in one batch", "422, 422, 413"),
        25: Promise("a cursor that is none, a limit of 0 or a million", "422"),
    },
    "Load": {
        26: Promise(
            "200 clients sign in at once",
            "as many hashes at a time as cores, quick 503s, other routes go on",
        ),
        27: Promise(
            "half-sent headers and bodies from as many clients as there are threads",
            "closed within 10 s, others are served meanwhile",
        ),
        28: Promise("1000 idle kept-alive connections", "others are served as ever"),
        29: Promise("more requests than database connections", "503 within 1 s"),
    },
    "Processes": {
        30: Promise(
            "a worker killed with -9 in mid-request",
            "its client alone notices; metrics and finished profiles are kept",
        ),
        31: Promise("HUP ten times under load on kept-alive connections", "not one failed request"),
        32: Promise("TERM under load", "/readyz 503 first, running requests finish, exit status 0"),
        33: Promise("a bad configuration on HUP", "the old workers go on serving"),
        34: Promise("a second service on one data folder", "says so in one line and leaves"),
        35: Promise(
            "the embedded PostgreSQL or its owner killed with -9",
            "started again with its data; none is left behind",
        ),
    },
    "Database": {
        36: Promise(
            "a restart under load",
            "reads are tried again, writes in flight 503, as ever within 5 s",
        ),
        37: Promise("stopped when the service starts", "/livez 200, /readyz 503, recovers by itself"),
        38: Promise("frozen, on a new and on an established connection", "503 within 6 s"),
        39: Promise("a session terminated", "503 for a write in it, a clean one afterwards"),
        40: Promise(
            "too many clients",
            "503; the log names the sum of the pools and `max_connections`",
        ),
        41: Promise("a statement over its time limit", "503, logged with its route"),
    },
    "Profilers": {
        42: Promise(
            "a profiler that raises, a store that is slow, read-only or full",
            "the answer is unchanged; logged once, counted, switched off when it goes on",
        ),
        43: Promise(
            "secrets in bodies, headers, cookies, queries, parameters, exceptions",
            "in no profile, report, page or log",
        ),
        44: Promise(
            "the console without permission, `?profile=1` from a stranger, a pickle as a capture",
            "404 or a refusal; nothing is captured, run or unpickled",
        ),
        45: Promise(
            "100,000 statements in a request, a statement of 10 MB, requests without end",
            "bounded memory and disk, what was left out is counted",
        ),
        46: Promise("HTML in a statement, a route, a user agent", "shown as text everywhere"),
    },
}

INTRODUCTION = """\
# Guarantees

<!-- Generated by `make docs`; edit tests/faults/guarantees.py and the tests' markers. -->

What you may rely on when input is bad, load is high, processes die or the database is away. Each row is kept
by the tests named beside it, which run the real thing: Gunicorn with several workers, PostgreSQL that is
killed, frozen and restarted, raw sockets. `make test-faults` runs them and prints this table with verdicts.

Errors are `application/problem+json` (RFC 9457) without stack trace, SQL or what was sent; 401 carries a
challenge (RFC 6750 section 3), 429 and 503 carry `Retry-After`.
"""


class Mark(NamedTuple):
    """One test that keeps a row."""

    row: int
    path: str
    test: str


def marks(tests: Path = ROOT / "tests") -> list[Mark]:
    """Every `@pytest.mark.fault(…)` below that folder, in the order of the rows."""
    return sorted(mark for path in tests.rglob("test_*.py") for mark in _marks_of(path, tests.parent))


def _marks_of(path: Path, root: Path) -> Iterator[Mark]:
    source = path.read_text(encoding="utf-8")
    if "mark.fault(" not in source:
        return
    for node in ast.parse(source).body:
        for decorator in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.fault":
                for argument in decorator.args:
                    row = ast.literal_eval(argument)
                    yield Mark(row, path.relative_to(root).as_posix(), node.name)


def page(found: Iterable[Mark]) -> str:
    """docs/guarantees.md."""
    found = list(found)
    lines = [INTRODUCTION]
    for section, promises in PROMISES.items():
        lines += [f"## {section}", "", "| # | when | then | kept by |", "|---|---|---|---|"]
        for row, promise in promises.items():
            names = [f"[{mark.test}](../{mark.path})" for mark in found if mark.row == row]
            lines.append(f"| {row} | {promise.fault} | {promise.expected} | {'<br>'.join(names)} |")
        lines.append("")
    return "\n".join(lines)


def verdicts(found: Iterable[Mark], outcomes: Mapping[tuple[str, str], bool]) -> dict[int, str]:
    """`kept`, `broken` or `missing` for each row. `outcomes`: of each test that ran, whether it passed."""
    ran: dict[int, list[bool | None]] = {row: [] for promises in PROMISES.values() for row in promises}
    for mark in found:
        ran[mark.row].append(outcomes.get((mark.path, mark.test)))
    return {
        row: "broken" if False in results else "missing" if None in results or not results else "kept"
        for row, results in ran.items()
    }


class Outcomes:
    """A pytest plugin that notes which tests passed, whatever their parameters, and ends with the table."""

    def __init__(self) -> None:
        self.passed: dict[tuple[str, str], bool] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            path, _, test = report.nodeid.partition("::")
            key = path, test.partition("[")[0]
            self.passed[key] = report.passed and self.passed.get(key, True)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        found = marks()
        rows = verdicts(found, self.passed)
        terminalreporter.section("faults")
        for section, promises in PROMISES.items():
            terminalreporter.write_line(section, bold=True)
            for row, promise in promises.items():
                kept = rows[row] == "kept"
                terminalreporter.write(f"{row:4} ")
                terminalreporter.write(f"{rows[row]:8}", green=kept, red=not kept)
                terminalreporter.write_line(f"{promise.fault} -> {promise.expected}")
                for mark in found:
                    if mark.row == row:
                        terminalreporter.write_line(f"{'':13}{mark.path}::{mark.test}", light=True)
        count = list(rows.values()).count("kept")
        terminalreporter.write_line(f"{count} of {len(rows)} kept", bold=True)


def main(arguments: list[str]) -> int:
    """Run every marked test; exit status 1 unless all rows are kept."""
    outcomes = Outcomes()
    files = sorted({mark.path for mark in marks()})
    status = pytest.main(["-q", "-r", "fE", "-m", "fault", *arguments, *files], plugins=[outcomes])
    kept = set(verdicts(marks(), outcomes.passed).values()) == {"kept"}
    return int(status) or int(not kept)


if __name__ == "__main__":
    if sys.argv[1:] == ["page"]:
        PAGE.write_text(page(marks()), encoding="utf-8")
    else:
        sys.exit(main(sys.argv[1:]))
