"""A circuit breaker for the database: while it is known to be silent, a request gets its 503 at once.

Without it every request waits as long as it may for a frozen server, and holds a thread meanwhile that others
could have used. Only silence opens it (`NoAnswer`): what the server refuses, it refuses quickly. While it is
open one request at a time tries whether the server is back; a statement that succeeds closes it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.pool import QueuePool

from pake.database import NoAnswer, after_each_statement

log = structlog.get_logger(__name__)

PAUSE_SECONDS = 1.0
"""Between two tries."""


class KnownSilent(NoAnswer):
    """The server did not answer a moment ago, so it was not asked."""


class Breaker:
    """Of one process. `patience`: how many seconds a try may take at most; `server`: its name in the log."""

    def __init__(
        self, patience: float, clock: Callable[[], float] = time.monotonic, server: str = "the database"
    ) -> None:
        self._patience = patience
        self._clock = clock
        self._server = server
        self._lock = threading.Lock()
        self._next_try: float | None = None
        """None while it is closed."""

    @property
    def open(self) -> bool:
        """Whether the server is taken for silent."""
        return self._next_try is not None

    def ask(self) -> None:
        """Before the server is asked. Raises KnownSilent while it is open, but for the one that tries."""
        if self._next_try is None:
            return
        with self._lock:
            now = self._clock()
            if self._next_try is None:
                return
            if now < self._next_try:
                raise KnownSilent("PostgreSQL did not answer a moment ago")
            self._next_try = now + self._patience + PAUSE_SECONDS  # should nothing be heard of this try

    def silent(self) -> None:
        """The server did not answer."""
        with self._lock:
            if self._next_try is None:
                log.error(f"{self._server} is silent, it is not asked until one try finds it back")
            self._next_try = self._clock() + PAUSE_SECONDS

    def answered(self) -> None:
        """The server did what it was asked."""
        if self._next_try is None:
            return
        with self._lock:
            self._next_try = None
        log.warning(f"{self._server} answers again")

    def pool_class(self, pool: type[QueuePool]) -> type[QueuePool]:
        """That pool, asking the breaker before it gives out a connection."""
        breaker = self

        class BreakerPool(pool):  # type: ignore[misc, valid-type]
            __module__ = QueuePool.__module__  # its logger's name is made of it

            def connect(self) -> Any:
                breaker.ask()
                return super().connect()

        return BreakerPool

    def watch(self, engine: sa.Engine) -> None:
        """Hear of the engine's answers and silences."""

        def failed(context: sa.ExceptionContext) -> None:
            error = context.original_exception
            if isinstance(error, NoAnswer) and not isinstance(error, KnownSilent):
                self.silent()

        sa.event.listen(engine, "handle_error", failed)
        after_each_statement(engine, lambda seconds: self.answered())
