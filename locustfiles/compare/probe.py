"""What a worker is asked from inside: who it is, and what one request allocates.

The harness puts a copy of this file beside each version and has Gunicorn load `perf_probe:app()`, so it needs
nothing of the version but the app that `PERF_PROBED` names. A request without the header passes untouched.
"""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

from gunicorn.util import import_app

ASKED = "X-Perf-Probe"
WORKER, ALLOCATIONS = "worker", "allocations"
"""What the header may ask for; the answers are headers `X-Perf-…`."""
MARK = 64_000_003
"""Bytes: who allocates so many is the thread that serves the request. memray numbers threads its own way."""


def app() -> Any:
    """The probed Flask app, whose requests may ask about themselves."""
    probed: Any = import_app(os.environ["PERF_PROBED"])
    inner: Callable[..., Iterable[bytes]] = probed.wsgi_app

    def ask(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        asked = environ.get("HTTP_" + ASKED.upper().replace("-", "_"))
        if asked == ALLOCATIONS:
            return _allocations(inner, environ, start_response)
        if asked == WORKER:
            return inner(environ, _adding(start_response, [("X-Perf-Worker", str(os.getpid()))]))
        return inner(environ, start_response)

    probed.wsgi_app = ask
    return probed


def _adding(start_response: Callable[..., Any], more: list[tuple[str, str]]) -> Callable[..., Any]:
    return lambda status, headers, *rest: start_response(status, [*headers, *more], *rest)


def _allocations(
    inner: Callable[..., Iterable[bytes]], environ: dict[str, Any], start_response: Callable[..., Any]
) -> list[bytes]:
    """Serve the request to its end with each of its thread's allocations counted.

    A garbage collection right before makes those of the request come at the same place each time.
    """
    import memray  # only the worker that is asked pays for it

    begun: list[tuple[Any, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "allocations")
        gc.collect()
        with memray.Tracker(path, trace_python_allocators=True):
            bytearray(MARK)
            answer = inner(environ, lambda *line: begun.append(line))
            body = b"".join(answer)
            if hasattr(answer, "close"):
                answer.close()
        free = {memray.AllocatorType[name] for name in ("FREE", "MUNMAP", "PYMALLOC_FREE")}
        made = [
            each for each in memray.FileReader(path).get_allocation_records() if each.allocator not in free
        ]
    ours = next(each.tid for each in made if each.size > MARK)
    sizes = [each.size for each in made if each.tid == ours and each.size <= MARK]
    more = [("X-Perf-Allocations", str(len(sizes))), ("X-Perf-Allocated-Bytes", str(sum(sizes)))]
    _adding(start_response, more)(*begun[-1])
    return [body]
