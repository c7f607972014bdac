"""A Gunicorn worker that shares work fairly: a connection costs a thread only while it has something to say.

It differs from Gunicorn's gthread worker in this. It takes a new connection only when a thread is free for
it, so that busy workers leave the rest to idle ones (gthread counts connections, 1000 by default, and
hoards). The kernel hands over a connection only when its first bytes are there. And where it cannot, the
connection waits for them in the poller, while gthread lets it hold a thread for seconds.

What is refused before it is a request of the app's (a malformed header, a line that is too long) is answered
with a problem like all other errors, and not with Gunicorn's page, which repeats what was sent.
"""

from __future__ import annotations

import logging
import secrets
import selectors
import socket
import time
from concurrent.futures import Future
from functools import partial
from typing import Any

from gunicorn import util
from gunicorn.workers.gthread import TConn, ThreadWorker

from pake.errors import MEDIA_TYPE, Problem, body
from pake.headers import SECURITY

log = logging.getLogger("gunicorn.error")


class Worker(ThreadWorker):
    """gthread, with connections limited by free threads and by `worker_connections` altogether."""

    _finished = 0
    """Requests since a connection was taken."""

    slot: int
    """A number from 0 that no other living worker has; a dead worker's replacement gets it again."""

    @property
    def worker_connections(self) -> int:
        """How many connections may be open for another one to be taken.

        As many as are idle and as there are threads. Under more load than that, one more for every two
        requests that were finished, or clients that are here already would keep all others out for good.
        """
        idle = len(self.keepalived_conns) + len(self.pending_conns)
        turn = self.nr_conns + 1 if self._finished >= 2 else 0
        return min(self._most_connections, max(idle + int(self.cfg.threads), turn))

    @worker_connections.setter
    def worker_connections(self, most: int) -> None:
        self._most_connections = most

    def init_process(self) -> None:
        """Begin to work, on listeners that hold silent connections back."""
        for listener in self.sockets:
            if listener.family in (socket.AF_INET, socket.AF_INET6) and hasattr(socket, "TCP_DEFER_ACCEPT"):
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, self.cfg.keepalive)
        util.write_error = refuse
        super().init_process()

    def accept(self, listener: socket.socket) -> None:
        """Take a new connection."""
        self._finished = 0
        super().accept(listener)

    def finish_request(self, conn: TConn, fs: Future[Any]) -> None:
        """Free its thread."""
        self._finished += 1
        super().finish_request(conn, fs)

    def enqueue_req(self, conn: TConn) -> None:
        """Give the connection a thread once it has sent something."""
        if conn.initialized or conn.wait_for_data(0):
            super().enqueue_req(conn)
            return
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + self.cfg.keepalive
        self.pending_conns.append(conn)
        readable: Any = partial(self.on_pending_socket_readable, conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, readable)

    def _cap_keepalive(self, deadline: float) -> None:
        """When stopping: a connection that has sent nothing waits no longer than one that is kept alive."""
        super()._cap_keepalive(deadline)  # type: ignore[misc]  # missing in types-gunicorn
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout or deadline, deadline)


def refuse(sock: socket.socket, status_int: int, reason: str, mesg: str) -> None:
    """Answer what never became a request; in place of `gunicorn.util.write_error`."""
    request_id = secrets.token_hex(16)
    log.warning("refused with %d, request_id=%s: %s", status_int, request_id, reason)
    content = body(Problem(status_int), request_id)
    headers = (
        f"Connection: close\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {len(content)}\r\n"
        f"X-Request-ID: {request_id}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in SECURITY)
    )
    head = f"HTTP/1.1 {status_int} {reason}\r\n{headers}\r\n"
    util.write_nonblock(sock, head.encode() + content)
