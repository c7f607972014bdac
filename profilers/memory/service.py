"""Finds the service that is meant: its store and its workers, by the store, a process or an address."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from profilers import switches
from profilers.store import Store, default_folder, open_store
from profilers.switches import WorkerStatus

SEEN = "start the service with FLASK_PROFILE=memory, or standby, and name its store with --store"


class ServiceError(Exception):
    """There is no such service; the message is one line for the user."""


def store_of_process(pid: int) -> Store:
    """The store that a running process uses, by its environment and its working directory.

    Raises:
        ServiceError: there is no such process, or it is somebody else's.
    """
    try:
        process = psutil.Process(pid)
        environment, folder = process.environ(), Path(process.cwd())
    except psutil.NoSuchProcess:
        raise ServiceError(f"--pid {pid}: there is no such process") from None
    except psutil.AccessDenied:
        raise ServiceError(f"--pid {pid}: it is another user's process") from None
    where = environment.get("FLASK_PROFILE_STORE")
    if where:
        return open_store(where if "://" in where else folder / where)
    instance = folder / environment.get("INSTANCE_PATH", "instance")
    return open_store(instance / "profiles" if instance.is_dir() else default_folder(str(instance)))


def workers_of(store: Store, pid: int | None = None) -> tuple[WorkerStatus, ...]:
    """The workers that the store has heard of in the last half minute and that live.

    Args:
        pid: only this worker, or the workers that this process (Gunicorn's arbiter) started.

    Raises:
        ServiceError: there are none.
        StoreError: the store cannot be read.
    """
    if store.database.path is not None and not store.database.path.exists():
        raise ServiceError(f"there is no profile store at {store.database}: {SEEN}")
    living = tuple(worker for worker in switches.status(store).workers if is_alive(worker.host, worker.pid))
    if not living:
        raise ServiceError(f"no worker of {store.database} has been seen in the last 30 s: {SEEN}")
    if pid is None:
        return living
    chosen = tuple(worker for worker in living if _is_here(worker.host) and is_of(worker.pid, pid))
    if not chosen:
        known = ", ".join(str(worker.pid) for worker in living)
        raise ServiceError(f"--pid {pid}: no worker of {store.database} (those are {known}): {SEEN}")
    return chosen


def is_of(worker: int, pid: int) -> bool:
    """Whether the worker is this process, or was started by it."""
    return worker == pid or (psutil.pid_exists(worker) and psutil.Process(worker).ppid() == pid)


def process_at(url: str) -> int:
    """The process that listens at an address of this machine; of several the one that started the others.

    Raises:
        ServiceError: nothing of this user's listens there.
    """
    parts = urlsplit(url if "://" in url else f"//{url}")
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise ServiceError(f"--url {url}: expected such as http://127.0.0.1:8000") from None
    found = [process.pid for process in psutil.process_iter() if port in _ports(process)]
    if not found:
        raise ServiceError(f"--url {url}: no process of this user listens on port {port} of this machine")
    return next((pid for pid in found if psutil.Process(pid).ppid() not in found), found[0])


def is_alive(host: str, pid: int) -> bool:
    """Whether a worker lives, as far as this machine can tell."""
    if not _is_here(host):
        return True
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_here(host: str) -> bool:
    return host == socket.gethostname()


def _ports(process: psutil.Process) -> Sequence[int]:
    try:
        if process.pid == os.getpid():
            return ()
        connections = process.net_connections(kind="tcp")
    except psutil.Error:
        return ()
    return [found.laddr.port for found in connections if found.status == psutil.CONN_LISTEN]
