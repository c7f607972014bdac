"""The whole server configuration: plain `gunicorn` starts the service, with a database when none is named.

One process a core, each with as many threads as its pool has database connections (one of them for requests
that hash a password), so a request that got a thread never waits for a connection. `gunicorn --bind …` and
Gunicorn's other options override what is here.

HUP reads the configuration again and replaces the workers; while it is wrong the old ones go on serving. The
service's modules are loaded once, before the workers are forked, so new code needs a restart.
"""

import gc
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import time

import flask_migrate
from gunicorn.arbiter import Arbiter

from pake import create_app, draining, embedded, metrics, tracing
from pake.config import SettingsError, load_settings
from pake.worker import Limits, Worker
from profilers import gunicorn as profilers
from profilers.gunicorn import worker_abort  # noqa: F401 - a hook of Gunicorn

try:
    settings = load_settings()
except SettingsError as mistakes:
    sys.exit(str(mistakes))

wsgi_app = "pake:create_app()"
bind = settings.bind
loglevel = settings.log_level.lower()

worker_class = Worker
Worker.limits = Limits(
    request_seconds=settings.request_timeout_seconds,
    body_bytes=settings.max_content_length,
    queue_seconds=settings.queue_timeout_seconds,
    costly_threads=settings.hash_threads,
    costly_waiting=settings.hashes_waiting,
)
workers = settings.workers
threads = max(1, settings.database_pool_size - Worker.limits.costly_threads)
worker_connections = 2000  # of which `threads` are served, the rest idle: see pake/worker.py
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a heartbeat never waits for a disk

keepalive = (
    15  # seconds; longer than a person or a Locust user thinks, so the next request finds the connection
)
sendfile = False  # it would go past what pake/connection.py does with an answer
timeout = 30
graceful_timeout = 30
control_socket_disable = True  # its path would be shared by all instances of one user

GARBAGE_AFTER = 20_000
"""Objects more than before until garbage is looked for, in place of Python's 700: those are two requests."""

_postgres = settings.instance_path / "postgres"


def on_starting(server: Arbiter) -> None:
    """Before anything listens: what would go wrong later in many lines goes wrong here in one."""
    _refuse_a_taken_address(server)
    if settings.database_url is None:
        _start_database()
    settings.instance_path.mkdir(parents=True, exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics.claim_folder(settings.instance_path))


def when_ready(server: Arbiter) -> None:
    """Change what two signals do.

    HUP tries the configuration in a process of its own first: Gunicorn would end on a bad one. TERM lets
    /readyz say 503 for a while, before the listeners are closed.
    """
    reload, stop = server.reload, server.stop

    def reload_if_it_would_start() -> None:
        trial = [sys.executable, "-m", "gunicorn", "--check-config", *sys.argv[1:]]
        tried = subprocess.run(trial, capture_output=True, text=True, check=False)  # noqa: S603
        if tried.returncode == 0:
            reload()
        else:
            server.log.error("Not reloaded, the old workers go on serving: %s", tried.stderr.strip())

    def stop_when_it_is_known(graceful: bool = True) -> None:
        wait = graceful and not draining.begun()
        draining.begin()
        if wait:
            time.sleep(settings.shutdown_delay_seconds)
        stop(graceful)

    server.reload, server.stop = reload_if_it_would_start, stop_when_it_is_known
    gc.freeze()  # what the workers share stays shared: their collections do not touch it


def pre_fork(server: Arbiter, worker: Worker) -> None:
    """Give the worker the lowest slot that no living worker has: a replacement takes a dead one's."""
    taken = {living.slot for living in server.WORKERS.values()}
    worker.slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)


def post_fork(server: Arbiter, worker: Worker) -> None:
    os.environ["PAKE_WORKER_SLOT"] = str(worker.slot)


def post_worker_init(worker: Worker) -> None:
    if meters := worker.wsgi.extensions.get("pake_meters"):  # not in an app that is compared with the service
        worker.count_refused = meters.count_refused
    profilers.post_worker_init(worker)
    if settings.otel_exporter_otlp_endpoint:
        tracing.start(worker.wsgi)
    gc.collect()
    gc.freeze()  # the app is there for good
    gc.set_threshold(GARBAGE_AFTER, 10, 10)


def worker_exit(server: Arbiter, worker: Worker) -> None:
    profilers.worker_exit(server, worker)
    if hasattr(worker, "wsgi"):  # not when it was stopped while it was loading
        tracing.stop(worker.wsgi)


def child_exit(server: Arbiter, worker: Worker) -> None:
    metrics.forget(worker.slot)


def on_exit(server: Arbiter) -> None:
    embedded.stop(_postgres)
    shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"])


def _refuse_a_taken_address(server: Arbiter) -> None:
    if "GUNICORN_FD" in os.environ or "LISTEN_FDS" in os.environ:  # handed over, listening already
        return
    for address in server.address:
        if not isinstance(address, tuple):
            continue
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except (OSError, OverflowError) as error:
                reason = getattr(error, "strerror", None) or error
                host, port = address[:2]
                sys.exit(f"cannot listen at {host}:{port} ({reason}): set BIND to another host:port")


def _start_database() -> None:
    connections = workers * settings.database_pool_size
    try:
        # Twice, because a reload runs old and new workers side by side; some more for people and tools.
        url = embedded.start(_postgres, settings={"max_connections": str(2 * connections + 20)})
    except embedded.EmbeddedPostgresError as error:
        sys.exit(f"embedded PostgreSQL: {error} (INSTANCE_PATH says where it lives)")
    except KeyboardInterrupt:
        sys.exit("stopped while PostgreSQL was starting")
    os.environ["DATABASE_URL"] = url
    # In a child, so that the workers are forked from a process without connections and threads.
    migration = multiprocessing.get_context("fork").Process(target=_migrate)
    migration.start()
    migration.join()
    if migration.exitcode:
        sys.exit("the database could not be migrated, see above")


def _migrate() -> None:
    with create_app().app_context():
        flask_migrate.upgrade()
