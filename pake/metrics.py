"""`/metrics` for Prometheus: requests, statements, pool, password hashes, findings, memory, over all workers.

Under Gunicorn each worker has a slot, and a replacement carries on with the counters of the dead: nothing is
lost and nothing counted twice. Labels are route templates and names of the code, never addresses or values,
so that there are few of them whatever clients send.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import struct
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import prometheus_client
import psutil
import sqlalchemy as sa
from flask import Flask, Response, current_app, has_request_context, request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool
from werkzeug.local import LocalProxy

from pake.database import after_each_statement
from profilers import Profile, Profilers
from profilers.signals import profile_examined

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_ROUTE = "pake.route"
_NOWHERE = ("any", "unmatched")
"""Method and route of what no view answers: clients make up both."""
_BACKGROUND = "background"
"""Route of what no request caused."""

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 0.8, 1.0, 2.0, 5.0, 10.0)
"""The thresholds of the load scenarios are among them."""
_SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

_NAMES = re.compile(r"[\w.]+(, [\w.]+)*")


class Meters:
    """The instruments of one app in one process; for all workers together with PROMETHEUS_MULTIPROC_DIR."""

    def __init__(self) -> None:
        slot = os.environ.get("PAKE_WORKER_SLOT")
        shared = slot is not None and "PROMETHEUS_MULTIPROC_DIR" in os.environ
        if shared:
            values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]
        own = CollectorRegistry()
        self.registry = CollectorRegistry()
        """What is exposed."""
        if shared:
            self.registry.register(_Workers(MultiProcessCollector(None).collect))  # type: ignore[no-untyped-call]
        else:
            self.registry.register(_Workers(own.collect))

        self.requests = Counter(
            "pake_http_requests", "Requests answered.", ["method", "route", "status"], registry=own
        )
        self.durations = Histogram(
            "pake_http_request_duration_seconds",
            "From the request's arrival at the app to the beginning of its answer.",
            ["method", "route"],
            registry=own,
            buckets=_SECONDS,
        )
        self.in_progress = Gauge(
            "pake_http_requests_in_progress",
            "Requests being served.",
            registry=own,
            multiprocess_mode="livesum",
        )
        self.statements = Histogram(
            "pake_database_statement_duration_seconds",
            "Time in PostgreSQL and on the way there.",
            ["route"],
            registry=own,
            buckets=_SHORT,
        )
        self.database_errors = Counter(
            "pake_database_errors", "Statements and connections that failed.", ["error"], registry=own
        )
        self.replica_reads = Counter(
            "pake_replica_reads",
            "Requests that may read from the replica: from there, or not because it was behind or away.",
            ["outcome"],
            registry=own,
        )
        self.pool_wait = Histogram(
            "pake_pool_wait_seconds",
            "How long a connection was waited for, opening it included.",
            registry=own,
            buckets=_SHORT,
        )
        self.pool_timeouts = Counter("pake_pool_timeouts", "Requests that got no connection.", registry=own)
        self.pool_in_use = Gauge(
            "pake_pool_connections_in_use", "Taken.", registry=own, multiprocess_mode="livesum"
        )
        self.pool_size = Gauge(
            "pake_pool_size",
            "Connections that all workers may have together.",
            registry=own,
            multiprocess_mode="livesum",
        )
        self.hash_duration = Histogram(
            "pake_password_hash_duration_seconds",
            "Computing one hash, without the wait for a turn.",
            registry=own,
            buckets=_SHORT,
        )
        self.hash_wait = Histogram(
            "pake_password_hash_wait_seconds", "The wait for a turn.", registry=own, buckets=_SHORT
        )
        self.hashes_refused = Counter(
            "pake_password_hashes_refused", "Too many were waiting: 503.", registry=own
        )
        self.profiles = Counter("pake_profiler_profiles", "Requests profiled.", registry=own)
        self.profiles_left_out = Counter(
            "pake_profiler_profiles_left_out", "Profiles that were not kept.", registry=own
        )
        self.sampling = Gauge(
            "pake_profiler_sampling_ratio",
            "Share of the requests that the profilers' brake leaves to them; the lowest of all workers.",
            registry=own,
            multiprocess_mode="livemin",
        )
        self.findings = Counter(
            "pake_profiler_findings", "Findings in the profiled requests.", ["kind", "route"], registry=own
        )
        self.n_plus_one = Counter(
            "pake_n_plus_one", "Times that rows were loaded one by one.", _N_PLUS_ONE, registry=own
        )
        self.n_plus_one_statements = Counter(
            "pake_n_plus_one_statements", "The statements that this took.", _N_PLUS_ONE, registry=own
        )
        self._process = Gauge(_PROCESS, "Process id.", registry=own, multiprocess_mode="liveall")
        # What lives no longer than its worker begins anew; the counters go on where its slot's last stopped.
        self._process.set(os.getpid())
        self.in_progress.set(0)
        self.pool_in_use.set(0)
        self.sampling.set(1)
        self._left_out = 0

    # ---- requests

    def count(self, app: WSGIApplication) -> WSGIApplication:
        """Put it around everything: each request is counted once, before its client can know the answer."""

        def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            began = time.perf_counter()
            answered = False

            def start(status: str, *rest: Any) -> Callable[[bytes], object]:
                nonlocal answered
                if not answered:
                    answered = True
                    method, route = environ.get(_ROUTE, _NOWHERE)
                    self.requests.labels(method, route, status[:3]).inc()
                    self.durations.labels(method, route).observe(time.perf_counter() - began)
                return start_response(status, *rest)

            self.in_progress.inc()
            try:
                return app(environ, start)
            except BaseException:
                if not answered:  # Gunicorn answers
                    self.requests.labels(*environ.get(_ROUTE, _NOWHERE), "500").inc()
                raise
            finally:
                self.in_progress.dec()

        return serve

    def count_refused(self, status: int) -> None:
        """A request that the worker answered by itself: it came too slowly, or too many came."""
        self.requests.labels(*_NOWHERE, str(status)).inc()

    # ---- database

    def pool_class(self, patience: float) -> type[QueuePool]:
        """A pool that says how long its connections are waited for, at most `patience` seconds.

        Flask-SQLAlchemy makes whole seconds of the engine's option `pool_timeout`: none at all of 0.8.
        """
        meters = self

        class MeteredPool(QueuePool):
            __module__ = QueuePool.__module__  # its logger's name is made of it

            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **options | {"timeout": patience})

            def connect(self) -> Any:
                began = time.perf_counter()
                try:
                    return super().connect()
                except PoolTimeoutError:
                    meters.pool_timeouts.inc()
                    raise
                finally:
                    meters.pool_wait.observe(time.perf_counter() - began)

        return MeteredPool

    def watch(self, engine: sa.Engine) -> None:
        """Time the engine's statements, and follow its pool."""
        if isinstance(engine.pool, QueuePool):
            self.pool_size.set(engine.pool.size())

        def fail(context: sa.ExceptionContext) -> None:
            error = context.sqlalchemy_exception or context.original_exception
            self.database_errors.labels(type(error).__name__).inc()

        after_each_statement(engine, lambda seconds: self.statements.labels(_route()).observe(seconds))
        sa.event.listen(engine, "handle_error", fail)
        sa.event.listen(engine, "checkout", lambda *_: self.pool_in_use.inc())
        sa.event.listen(engine, "checkin", lambda *_: self.pool_in_use.dec())

    # ---- profilers

    def note(self, app: Flask, profile: Profile) -> None:
        """Count what a profile shows; called beside the requests."""
        self.profiles.inc()
        route = profile.name.partition(" ")[2] if profile.kind == "request" else profile.name
        for finding in profile.findings:
            self.findings.labels(finding.kind, route).inc()
            if finding.kind == "n_plus_one":
                # A loop over textual SQL has the statement for its subject, which is no label.
                subject = finding.subject if _NAMES.fullmatch(finding.subject) else "text"
                self.n_plus_one.labels(route, subject, finding.cause).inc()
                self.n_plus_one_statements.labels(route, subject, finding.cause).inc(finding.count)
        extension: Profilers = app.extensions["profilers"]
        if worker := extension.worker:
            self.sampling.set(worker.brake.sampling)
            left_out = worker.writer.left_out
            self.profiles_left_out.inc(max(0, left_out - self._left_out))
            self._left_out = left_out


_N_PLUS_ONE = ("route", "relationship", "cause")
_PROCESS = "pake_worker_process_id"
_TRIES = 20


def _route() -> str:
    return request.environ.get(_ROUTE, _NOWHERE)[1] if has_request_context() else _BACKGROUND


class _Workers(Collector):
    """Adds to the instruments what the system knows about each worker, by its slot."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        """What Prometheus is given."""
        processes: dict[str, int] = {}
        for metric in self._whole():
            if metric.name == _PROCESS:
                processes = {each.labels.get("pid", "0"): int(each.value) for each in metric.samples}
            else:
                yield metric
        yield from _of_workers(processes)

    def _whole(self) -> list[Metric]:
        """The instruments. A worker that begins has a file that is empty for a moment: then read again."""
        for _ in range(_TRIES - 1):
            try:
                return list(self._collect())
            except struct.error:
                time.sleep(0.01)
        return list(self._collect())


def _of_workers(processes: dict[str, int]) -> Iterable[Metric]:
    memory = GaugeMetricFamily(
        "pake_worker_memory_bytes",
        "Memory of a worker: rss with what it shares, uss without, pss with its part of that.",
        labels=["worker", "kind"],
    )
    cpu = CounterMetricFamily("pake_worker_cpu_seconds", "CPU time of a worker.", labels=["worker"])
    started = GaugeMetricFamily(
        "pake_worker_start_time_seconds", "When it started, in Unix time.", labels=["worker"]
    )
    files = GaugeMetricFamily(
        "pake_worker_open_files", "File descriptors of a worker, connections included.", labels=["worker"]
    )
    for slot, pid in sorted(processes.items()):
        try:
            process = psutil.Process(pid)
            used, times = process.memory_full_info(), process.cpu_times()
            open_files, start = process.num_fds(), process.create_time()
        except psutil.Error:  # it has just ended
            continue
        for kind in ("rss", "uss", "pss"):
            memory.add_metric([slot, kind], getattr(used, kind, 0))
        cpu.add_metric([slot], times.user + times.system)
        started.add_metric([slot], start)
        files.add_metric([slot], open_files)
    return memory, cpu, started, files


def init_app(app: Flask, meters: Meters) -> None:
    """Count the app's requests, statements and findings. Call it last: it goes around all others."""
    app.extensions["pake_meters"] = meters

    def note_route() -> None:
        if rule := request.url_rule:
            request.environ[_ROUTE] = (request.method, rule.rule)

    app.before_request_funcs.setdefault(None, []).insert(0, note_route)
    profile_examined.connect(meters.note, sender=app)
    app.wsgi_app = meters.count(app.wsgi_app)  # type: ignore[method-assign, assignment]


meters: Meters = LocalProxy(lambda: current_app.extensions["pake_meters"])  # type: ignore[assignment]
"""The instruments of the current app."""


def exposition() -> Response:
    """The metrics in Prometheus's text format."""
    return Response(
        prometheus_client.generate_latest(meters.registry),
        content_type=prometheus_client.CONTENT_TYPE_LATEST,
    )


def claim_folder(parent: Path) -> Path:
    """A new folder for the files of one service's workers; those of services that were killed are removed.

    It is locked for as long as the service or a worker of it lives (flock: the kernel lets go of it).
    """
    for old in parent.glob("metrics-*"):
        descriptor = os.open(old, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(old)
        except BlockingIOError:  # of another service that lives
            pass
        finally:
            os.close(descriptor)
    folder = Path(tempfile.mkdtemp(prefix="new-", dir=parent))
    fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)
    return folder.rename(parent / folder.name.replace("new-", "metrics-")).resolve()


def forget(slot: int) -> None:
    """The worker of this slot has ended: it serves no request, holds no connection and no memory."""
    for path in Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob(f"gauge_live*_{slot}.db"):
        path.unlink(missing_ok=True)
