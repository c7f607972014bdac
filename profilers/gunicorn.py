"""Hooks for `gunicorn.conf.py`: one line, and nothing is lost at a worker's beginning or end.

    from profilers.gunicorn import post_worker_init, worker_abort, worker_exit

All of it works without them, a little less sharply: a worker then starts to listen to switches with its
first request, and a request whose worker ran into Gunicorn's `timeout` is told as one that raised. A worker
that was killed needs no hook: its place in the file of running requests is read by the others, and by its
replacement. A configuration with hooks of its own calls these in them.
"""

from __future__ import annotations

from typing import Any

from profilers.extension import installed


def post_worker_init(worker: Any) -> None:
    """The app is loaded: listen to switches, and tell of requests that were lost with the worker before."""
    for extension in installed:
        extension.start_worker()


def worker_abort(worker: Any) -> None:
    """The worker was silent for too long: the requests that it serves have timed out."""
    for extension in installed:
        if extension.worker is not None:
            extension.worker.abort()


def worker_exit(server: Any, worker: Any) -> None:
    """The worker ends in order: write what is queued."""
    for extension in installed:
        if extension.worker is not None:
            extension.worker.close()
