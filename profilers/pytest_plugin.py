"""N+1 and statement counts in a test suite: switch the check on for all tests, or ask in one test.

    pytest --nplusone=error                      every N+1 of a test fails it
    pytest --nplusone=error --nplusone-baseline=nplusone.json --nplusone-baseline-update
    pytest --nplusone=warn --nplusone-sarif=nplusone.sarif
    pytest --queries-lock=check                  statements by route against queries.lock

    @pytest.mark.max_queries(3)
    @pytest.mark.no_n_plus_one
    def test_services(client, assert_constant_queries): ...

Each request that an app serves during a test is judged by itself, whether or not the app installs the
extension: five requests that load one row each are no N+1. Besides them the test's own body is judged, not
its fixtures, and not what a test file itself sends: building rows in a test is no finding.
"""

from __future__ import annotations

import fnmatch
import json
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import flask
import pytest

from profilers import options, testing
from profilers.collect import Recording
from profilers.profile import Finding, Profile
from profilers.recording import DEFAULT, Active, answering, examine, record, record_request, watching
from profilers.reports import sarif
from profilers.testing import baseline, lock_file

MODES = ("off", "warn", "error")


class NPlusOneWarning(UserWarning):
    """An N+1 seen under `--nplusone=warn`; the text names both lines and the fix."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer the options."""
    group = parser.getgroup("profilers", "N+1 and statement counts")
    group.addoption("--nplusone", choices=MODES, help="what an N+1 in any test does (ini: nplusone)")
    group.addoption("--nplusone-baseline", metavar="FILE", help="known N+1s that are let pass (ini as well)")
    group.addoption("--nplusone-baseline-update", action="store_true", help="write what this run saw to it")
    group.addoption("--nplusone-sarif", metavar="FILE", help="write this run's N+1s as SARIF 2.1.0")
    group.addoption("--queries-lock", choices=("check", "update"), help="statements by route and the lock")
    parser.addini("nplusone", "off, warn or error: what an N+1 in any test does", default="off")
    parser.addini("nplusone_baseline", "file of known N+1s that are let pass", default="")
    parser.addini("queries_lock", "file of statements by route", default="queries.lock")


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, and watch the suite if it is asked for."""
    config.addinivalue_line("markers", "max_queries(limit): fail when the test sends more statements")
    config.addinivalue_line("markers", "no_n_plus_one: fail when the test holds an N+1")
    config.pluginmanager.register(Suite(config), "profilers-suite")


@pytest.fixture
def max_queries() -> Callable[[int], AbstractContextManager[Profile]]:
    """`with max_queries(3) as profile:` fails when the block sends more statements."""
    return testing.max_queries


@pytest.fixture
def no_n_plus_one() -> Callable[[], AbstractContextManager[Profile]]:
    """`with no_n_plus_one():` fails when the block holds an N+1."""
    return testing.no_n_plus_one


@pytest.fixture
def assert_constant_queries() -> Callable[..., None]:
    """`assert_constant_queries(call, populate)` fails when statements grow with the data."""
    return testing.assert_constant_queries


class Suite:
    """What one run of pytest, or one pytest-xdist worker of it, is asked, and what it saw."""

    def __init__(self, config: pytest.Config) -> None:
        self.mode: str = config.getoption("nplusone") or config.getini("nplusone")
        if self.mode not in MODES:
            raise pytest.UsageError(f"nplusone = {self.mode} in the ini file: expected {', '.join(MODES)}")
        self.baseline = _file(
            config, config.getoption("nplusone_baseline") or config.getini("nplusone_baseline")
        )
        self.update_baseline: bool = config.getoption("nplusone_baseline_update")
        if self.update_baseline and self.baseline is None:
            raise pytest.UsageError("--nplusone-baseline-update needs --nplusone-baseline=FILE")
        self.sarif = _file(config, config.getoption("nplusone_sarif"))
        self.lock = _file(config, config.getini("queries_lock"))
        self.lock_mode: str | None = config.getoption("queries_lock")
        try:
            self.known = baseline.read(self.baseline) if self.baseline else frozenset[str]()
            self.locked = lock_file.read(self.lock) if self.lock and self.lock_mode else {}
        except ValueError as error:
            raise pytest.UsageError(str(error)) from None
        self.test_files: list[str] = [*config.getini("python_files"), "conftest.py"]
        self.requests: list[Recording] = []
        """Of the test that runs."""
        self.findings: dict[str, Finding] = {}
        """Of all tests, by fingerprint."""
        self.routes: list[dict[str, Any]] = []
        """Of all tests, as `lock_file.to_json` has them."""
        self.complaints: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Run the test under what is asked of it."""
        with ExitStack() as asked:
            for marker in item.iter_markers("max_queries"):
                asked.enter_context(_failing(testing.max_queries(*marker.args, **marker.kwargs)))
            if item.get_closest_marker("no_n_plus_one"):
                asked.enter_context(_failing(testing.no_n_plus_one()))
            if self.mode == "off" and not self.lock_mode and not self.sarif:
                return (yield)
            with self._watched(item):
                result = yield
        return result

    @contextmanager
    def _watched(self, item: pytest.Item) -> Iterator[None]:
        active = Active(options.create(name, {}) for name in options.split_names(DEFAULT))
        call = flask.Flask.__call__

        def finished(recording: Recording) -> None:
            examine(recording, active.profilers)
            self.requests.append(recording)

        def profiled_call(app: flask.Flask, environ: Any, start_response: Any) -> Iterable[bytes]:
            return record_request(app.wsgi_app, environ, start_response, active, finished)

        dispatch, handle = flask.Flask.full_dispatch_request, flask.Flask.handle_exception
        flask.Flask.__call__ = profiled_call  # type: ignore[assignment, method-assign]
        flask.Flask.full_dispatch_request = watching(dispatch, lambda name, started: -1)  # type: ignore[method-assign]
        flask.Flask.handle_exception = answering(handle)  # type: ignore[method-assign]
        try:
            with record(item.nodeid) as body:
                body.kind = "test"  # so that requests are not part of it
                yield
        finally:
            flask.Flask.__call__ = call  # type: ignore[method-assign]
            flask.Flask.full_dispatch_request = dispatch  # type: ignore[method-assign]
            flask.Flask.handle_exception = handle  # type: ignore[method-assign]
            requests, self.requests = self.requests, []
        self.routes.append(lock_file.to_json(lock_file.collect(requests)))
        own = [finding for finding in testing.n_plus_ones(body) if not self._is_test_code(finding)]
        self._judge([*own, *(finding for each in requests for finding in testing.n_plus_ones(each))])

    def _is_test_code(self, finding: Finding) -> bool:
        name = Path(finding.location.file).name if finding.location else ""
        return any(fnmatch.fnmatch(name, pattern) for pattern in self.test_files)

    def _judge(self, findings: list[Finding]) -> None:
        self.findings |= {finding.fingerprint: finding for finding in findings}
        new = {f.fingerprint: f for f in findings if f.fingerprint not in self.known}
        if not new or self.update_baseline:
            return
        if self.mode == "error":
            pytest.fail(testing.described(list(new.values())), pytrace=False)
        if self.mode == "warn":
            for finding in new.values():
                warnings.warn(NPlusOneWarning(finding.message), stacklevel=2)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take what a pytest-xdist worker saw."""
        sent = getattr(node, "workeroutput", {}).get("profilers")
        if sent:
            seen = json.loads(sent)
            self.routes += seen.pop("routes")
            for finding in Profile.from_json(seen).findings:
                self.findings[finding.fingerprint] = finding

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write or check the files, in the process that sees all tests."""
        config = session.config
        if hasattr(config, "workeroutput"):
            profile = Profile("", 0.0, findings=list(self.findings.values()))
            config.workeroutput["profilers"] = json.dumps({"routes": self.routes, **profile.to_json()})
            return
        if self.baseline and self.update_baseline:
            baseline.write(self.baseline, self.findings.values())
        if self.sarif:
            found = sorted(self.findings.values(), key=lambda finding: finding.fingerprint)
            self.sarif.parent.mkdir(parents=True, exist_ok=True)
            self.sarif.write_text(sarif.render_findings(found) + "\n", encoding="utf-8")
        seen = lock_file.merge(self.routes)
        if self.lock and self.lock_mode == "update":
            lock_file.write(self.lock, self.locked, seen)
        if self.lock and self.lock_mode == "check":
            self.complaints = lock_file.differences(self.locked, seen)
            if self.complaints and session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what the lock and the baseline have to say."""
        gone = self.known - self.findings.keys() if self.mode != "off" and not self.update_baseline else ()
        if self.complaints:
            terminalreporter.section("queries.lock")
            for line in self.complaints:
                terminalreporter.write_line(line)
            terminalreporter.write_line("accept them with: pytest --queries-lock=update")
        if gone:
            terminalreporter.section("N+1 baseline")
            terminalreporter.write_line(
                f"{len(gone)} known N+1s were not seen; if this was the whole suite, run"
            )
            terminalreporter.write_line("pytest --nplusone-baseline-update to forget them")


@contextmanager
def _failing(check: AbstractContextManager[Profile]) -> Iterator[None]:
    """A marker's check: fails the test with its message alone, the stack has nothing to add."""
    try:
        with check:
            yield
    except testing.QueryError as error:
        pytest.fail(str(error), pytrace=False)


def _file(config: pytest.Config, name: str | None) -> Path | None:
    return config.rootpath / name if name else None
