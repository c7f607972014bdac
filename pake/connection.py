"""A client's connection under Gunicorn, and the lanes in which requests wait for a thread."""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
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


class ClientSocket(socket.socket):
    """A client's socket, that waits for nobody but a client that is slow to take its answer.

    Each system call lets another thread have the interpreter, and costs a wait to have it back. So the head
    of an answer leaves together with what follows, and Gunicorn's switching between modes does nothing.
    """

    def __init__(self, accepted: socket.socket, patience: float) -> None:
        """`patience`: seconds in which what is sent must be taken."""
        super().__init__(accepted.family, accepted.type, accepted.proto, accepted.detach())
        super().setblocking(False)
        self.patience = patience
        self._begun = False
        self._head = b""

    def setblocking(self, flag: bool, /) -> None:
        """Stay non-blocking: Gunicorn sets it for threads that read, and none does here."""

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """Send a part of an answer; keep the first, its head, until the next comes or `end_answer` is called.

        Raises TimeoutError when it is not taken in time.
        """
        if not self._begun:
            self._begun, self._head = True, data
            return
        head, self._head = self._head, b""
        self._send(head + data)

    def end_answer(self) -> None:
        """Send what was kept. Raises TimeoutError when it is not taken in time."""
        head, self._head, self._begun = self._head, b"", False
        if head:
            self._send(head)

    def close(self) -> None:
        """End the connection. Gunicorn does after an answer that broke off, in a thread, while the poller may
        watch the socket; its number must not go to another one before `Connection.close`.
        """
        with suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)

    def _send(self, data: bytes) -> None:
        try:
            sent = self.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self.settimeout(self.patience)
            try:
                super().sendall(memoryview(data)[sent:])
            finally:
                super().setblocking(False)


class Connection(TConn):
    """A client's connection and the request that it is sending."""

    sock: ClientSocket
    parser: RequestParser
    timeout: float
    """When it has waited for its client long enough, by the monotonic clock."""

    def __init__(self, cfg: Any, sock: ClientSocket, client: Any, server: Any, most_body: int) -> None:
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
        self.watched = False
        """Whether the poller tells when its client has sent something."""
        self.alone = False
        """Whether nothing has come after the request that is served."""

    def init(self) -> None:
        """Give the parser what has arrived."""
        if not self.initialized:
            self.initialized = True
            self.parser = RequestParser(self.cfg, [], self.client)
            self.parser.unreader = Received()
        self.parser.unreader.unread(bytes(self.request.data))
        self.request.data.clear()

    def close(self, graceful: bool = False) -> None:
        """Close it for good."""
        socket.socket.close(self.sock)

    def next_request(self) -> bytes:
        """Make ready for another request; what has arrived of it already."""
        self.request = Arriving(self.request.most_body)
        self.continued = False
        return bytes(self.parser.unreader.take_buffered()) if self.initialized else b""


Serve = Callable[[Connection], object]
"""Handle a request of that connection, in a thread; raises nothing."""


class Lane:
    """Threads, and the requests that wait for them."""

    def __init__(self, serve: Serve, threads: int, most: int, seconds: float) -> None:
        self.serve = serve
        self.most = most
        self.seconds = seconds
        self.waiting: deque[Connection] = deque()
        self.taken = 0
        """Requests that wait or are served."""
        self._more: SimpleQueue[bool] = SimpleQueue()
        """An entry for each request that came to wait; False ends a thread."""
        self._threads = [Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def full(self) -> bool:
        """Whether one more would wait too long."""
        return self.taken >= self.most or self._late(time.monotonic()) is not None

    def add(self, conn: Connection) -> None:
        """Let a request wait for a thread."""
        conn.lane = self
        conn.queued = time.monotonic()
        self.taken += 1
        self.waiting.append(conn)
        self._more.put(True)

    def late(self, now: float) -> Iterator[Connection]:
        """Take out those that have waited too long."""
        while (conn := self._late(now)) is not None:
            try:
                self.waiting.remove(conn)
            except ValueError:  # a thread has just taken it
                continue
            self.taken -= 1
            yield conn

    def shutdown(self, wait: bool = False) -> None:
        """End the threads when no request waits; Gunicorn calls it and does not wait."""
        for _ in self._threads:
            self._more.put(False)

    def _late(self, now: float) -> Connection | None:
        """The one that came first, if it has waited too long."""
        try:
            conn = self.waiting[0]
        except IndexError:
            return None
        return conn if now - conn.queued > self.seconds else None

    def _work(self) -> None:
        while self._more.get():
            try:
                conn = self.waiting.popleft()
            except IndexError:  # it was late
                continue
            self.serve(conn)
