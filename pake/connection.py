"""A client's connection under Gunicorn, and the lanes in which requests wait for a thread."""

from __future__ import annotations

import socket
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gunicorn.http import RequestParser
from gunicorn.http.errors import NoMoreData
from gunicorn.http.unreader import Unreader
from gunicorn.workers.gthread import TConn

from pake.arriving import Arriving


class Received(Unreader):
    """What has arrived of a connection. There is never more: a thread does not wait for a client."""

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Not there."""
        raise NoMoreData


class Connection(TConn):
    """A client's connection and the request that it is sending."""

    parser: RequestParser
    timeout: float
    """When it has waited for its client long enough, by the monotonic clock."""

    def __init__(self, cfg: Any, sock: socket.socket, client: Any, server: Any, most_body: int) -> None:
        super().__init__(cfg, sock, client, server)
        self.data_ready = True
        self.request = Arriving(most_body)
        self.continued = False
        """Whether its client was told to send the body."""
        self.held = 0
        """Bytes that the worker keeps for it."""
        self.queued = 0.0
        """When its request began to wait for a thread."""
        self.lane: Lane
        self.place: deque[Connection] | None = None
        """Where it waits for its client; None while its request waits for a thread or is served."""

    def init(self) -> None:
        """Give the parser what has arrived."""
        if not self.initialized:
            self.initialized = True
            self.parser = RequestParser(self.cfg, [], self.client)
            self.parser.unreader = Received()
        self.parser.unreader.unread(bytes(self.request.data))
        self.request.data.clear()

    def next_request(self) -> bytes:
        """Make ready for another request; what has arrived of it already."""
        self.request = Arriving(self.request.most_body)
        self.continued = False
        return bytes(self.parser.unreader.take_buffered()) if self.initialized else b""


class Lane:
    """Threads, and the requests that wait for them."""

    def __init__(self, threads: int, most: int, seconds: float) -> None:
        self.threads = ThreadPoolExecutor(threads)
        self.most = most
        self.seconds = seconds
        self.waiting: deque[Connection] = deque()
        self.taken = 0
        """Requests that wait or are served."""

    @property
    def full(self) -> bool:
        """Whether one more would wait too long."""
        return self.taken >= self.most or self.is_late(time.monotonic())

    def is_late(self, now: float) -> bool:
        """Whether the one that came first has waited too long."""
        try:
            return now - self.waiting[0].queued > self.seconds
        except IndexError:  # a thread has just taken it
            return False
