"""A Gunicorn worker that gives a thread to whole requests alone, and to each kind its share of them.

Gunicorn's gthread hands a thread to a connection that has sent one byte, and the thread waits for the rest: a
few clients that stop half-way hold all threads, for good. Here the poller receives, and a thread gets
requests that are whole. Who does not send all of one in time is answered with 408.

Requests wait for a thread in lanes. The costly ones have a lane and threads of their own, so that a flood of
sign-ins takes no thread from the others; /livez has one too. What would wait too long in its lane gets a 503.

A new connection is taken when a thread is free for it, so that busy workers leave the rest to idle ones
(gthread counts connections, 1000 by default, and hoards). What no worker has taken for a while all of them
take: to wait here with a limit is better than outside without.
"""

from __future__ import annotations

import errno
import logging
import math
import re
import resource
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from gunicorn import util
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, ThreadWorker  # type: ignore[attr-defined]

from pake import refusals
from pake.connection import ClientSocket, Connection, Lane
from pake.errors import Problem

log = logging.getLogger("gunicorn.error")

RECEIVE_BYTES = 65_536
GOODBYE_SECONDS = 2.0
"""How long a client may go on sending after its last answer; closing at once would lose the answer."""
LEFT_TO_OTHERS_SECONDS = 0.5
"""How long a worker without a free thread leaves new connections to the others."""
TURN_SECONDS, SHORT_TURN_SECONDS = 0.005, 0.001
"""After which a thread that computes lets another one go on. Python's 5 ms, several times over in a request,
are what a sign-in costs the others; 1 ms costs all of them a tenth more. So turns are short only then.
"""
SPARE_FILES = 100
"""Open files of a worker that are no connections of clients."""

PROBE = re.compile(rb"(GET|HEAD) /livez[ ?]")
COSTLY = re.compile(rb"POST /auth/(token|register|password)[ ?]")
"""Requests that hash a password."""


@dataclass(frozen=True)
class Limits:
    """Of one worker. gunicorn.conf.py sets them from the settings."""

    request_seconds: float = 8
    """In which a request must arrive, and its answer be taken."""
    body_bytes: int = 1_048_576
    received_bytes: int = 67_108_864
    """Of all requests that are arriving, waiting or served."""
    queue_seconds: float = 5
    """How long a request may wait for a thread."""
    costly_threads: int = 1
    """Threads for requests that hash a password, besides the others."""
    costly_waiting: int = 4
    """How many of those may wait; more get a 503 at once."""


class Worker(ThreadWorker):
    """gthread whose threads get whole requests, by lanes."""

    limits = Limits()

    # Only accept() makes connections, so all are ours.
    keepalived_conns: deque[Connection]  # type: ignore[assignment]
    pending_conns: deque[Connection]  # type: ignore[assignment]
    _accepting: bool

    slot: int
    """A number from 0 that no other living worker has; a dead worker's replacement gets it again."""

    count_refused: Callable[[int], None] = staticmethod(lambda status: None)
    """Told the status of each answer that the app did not give."""

    _finished = 0
    """Requests since a connection was taken."""

    _accepted = 0.0
    """When."""

    _next_warning = 0.0
    _next_notice = 0.0
    _closed = False

    _held = 0
    """Bytes of all requests that are not answered."""

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """End the start when asked for what this worker does not speak."""
        if cfg.is_ssl:
            sys.exit("certfile, keyfile: this worker speaks HTTP without TLS; let a proxy end TLS")
        super().check_config(cfg, log)

    @property
    def worker_connections(self) -> int:
        """How many connections may be open for another one to be taken."""
        return self._most_connections if self._has_a_turn or self._left_long_enough else self.nr_conns

    @worker_connections.setter
    def worker_connections(self, most: int) -> None:
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most_connections = max(1, min(most, files - SPARE_FILES))

    @property
    def _has_a_turn(self) -> bool:
        """One connection while a thread is free. Under more load, one for every two requests that were
        finished, or clients that are here already would keep all others out for good.
        """
        return self.main.taken < int(self.cfg.threads) or self._finished >= 2

    @property
    def _left_long_enough(self) -> bool:
        return time.monotonic() - self._accepted > LEFT_TO_OTHERS_SECONDS

    def init_process(self) -> None:
        """Begin to work, on listeners that hold silent connections back."""
        for listener in self.sockets:
            if listener.family in (socket.AF_INET, socket.AF_INET6) and hasattr(socket, "TCP_DEFER_ACCEPT"):
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, self.cfg.keepalive)
        util.write_error = refusals.write_error
        self.leaving: deque[Connection] = deque()
        self.served: deque[tuple[Connection, bool]] = deque()
        super().init_process()

    def get_thread_pool(self) -> Lane:  # type: ignore[override]
        """Make the lanes; the main one, for Gunicorn to end."""
        limits, most = self.limits, self._most_connections
        costly = limits.costly_threads
        self.main = Lane(self.serve, self.cfg.threads, most, limits.queue_seconds)
        self.costly = Lane(self.serve, costly, costly + limits.costly_waiting, limits.queue_seconds)
        self.probes = Lane(self.serve, 1, most, math.inf)
        return self.main

    def notify(self) -> None:
        """Tell the arbiter once a second that this worker lives; Gunicorn does after each event."""
        now = time.monotonic()
        if now >= self._next_notice:
            self._next_notice = now + 1
            super().notify()

    # ---- connections, all in the main thread

    def wait_for_and_dispatch_events(self, timeout: float | None) -> None:
        """Look soon again whether to accept while it is left to others; then set how long a turn is."""
        events = self.poller.select(timeout if self._accepting else min(timeout or 0, 0.1))
        self.take_back()
        for key, _ in events:
            key.data(key.fileobj)
        sys.setswitchinterval(SHORT_TURN_SECONDS if self.costly.taken else TURN_SECONDS)

    def set_accept_enabled(self, enabled: bool | None) -> None:
        """Accept or not. Who has connected when it stops is served; others are refused and do not hang."""
        super().set_accept_enabled(enabled)
        if not self.alive and not self._closed:
            self._closed = True
            for listener in self.sockets:
                self._accept(listener, self._most_connections)
                listener.close()

    def accept(self, listener: socket.socket) -> None:
        """Take a new connection, or all when no worker has taken them for a while."""
        self._accept(listener, 1 if self._has_a_turn else self._most_connections - self.nr_conns)

    def _accept(self, listener: socket.socket, most: int) -> None:
        for _ in range(most):
            try:
                sock, client = listener.accept()
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.ECONNABORTED):
                    break
                raise
            self.nr_conns += 1
            server = listener.getsockname()
            sock = ClientSocket(sock, self.limits.request_seconds)
            conn = Connection(self.cfg, sock, client, server, self.limits.body_bytes)
            self._wait(conn, self.keepalived_conns, self.cfg.keepalive)
            self.receive(conn)  # the kernel handed it over because something is there
        self._accepted = time.monotonic()
        self._finished = 0

    def ready(self, conn: Connection, _sock: object) -> None:
        """Its client has sent something, or is gone."""
        if conn.place is None:  # a request of it waits or is served: what comes now is for later
            self._unwatch(conn)
            self.take_back()  # its thread may have thought that it is watched
        elif conn.place is self.leaving:
            self._overhear(conn)
        else:
            self.receive(conn)

    def receive(self, conn: Connection) -> None:
        """Take what its client has sent."""
        try:
            data = conn.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._close(conn)
            return
        if data:
            self._take(conn, data)
        elif conn.request.data:
            self.refuse(conn, Problem(400, "The request ended too early."))
        else:
            self._close(conn)

    def _take(self, conn: Connection, data: bytes) -> None:
        conn.request.data += data
        conn.held += len(data)
        self._held += len(data)
        try:
            if conn.request.whole:
                self._leave(conn)
                self.enqueue_req(conn)
                return
        except Problem as problem:
            self.refuse(conn, problem)
            return
        if self._held > self.limits.received_bytes:
            self.refuse(conn, Problem(503, "Too much is being received at this moment."))
            return
        if conn.place is not self.pending_conns:
            self._leave(conn)
            self._wait(conn, self.pending_conns, self.limits.request_seconds)
        if conn.request.awaits_continue and not conn.continued:
            conn.continued = True
            with suppress(OSError):
                conn.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def refuse(self, conn: Connection, problem: Problem) -> None:
        """Answer a request that the app does not get, and close the connection."""
        self._leave(conn)
        self.count_refused(problem.status)
        with suppress(OSError):
            request_id = refusals.send(conn.sock, problem)
            log.warning("refused with %d, request_id=%s: %s", problem.status, request_id, problem.detail)
        self.say_goodbye(conn)

    def turn_away(self, conn: Connection) -> None:
        """Refuse a request because too many wait. Its client keeps the connection: a new one costs more."""
        if not self.alive or not conn.request.ends_here:
            self.refuse(conn, refusals.OVERLOADED)
            return
        self.count_refused(503)
        now = time.monotonic()
        if now >= self._next_warning:  # one line a second: there are many of them
            self._next_warning = now + 1
            log.warning("refused with 503: %s", refusals.OVERLOADED.detail)
        try:
            refusals.send(conn.sock, refusals.OVERLOADED, close=False)
        except OSError:
            self._close(conn)
            return
        self._release(conn)
        conn.next_request()
        self._wait(conn, self.keepalived_conns, self.cfg.keepalive)

    def say_goodbye(self, conn: Connection) -> None:
        """Close it as RFC 9112 section 9.6 says, without making others wait as Gunicorn's own way does."""
        self._release(conn)
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(conn)
            return
        self._wait(conn, self.leaving, GOODBYE_SECONDS)

    def _overhear(self, conn: Connection) -> None:
        try:
            gone = not conn.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            gone = True
        if gone:
            self._close(conn)

    def _wait(self, conn: Connection, place: deque[Connection], seconds: float) -> None:
        """Wait for its client there, at most so long. The connections of one place have one patience."""
        conn.timeout = time.monotonic() + seconds
        conn.place = place
        place.append(conn)
        if not conn.watched:
            conn.watched = True
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.ready, conn))

    def _leave(self, conn: Connection) -> None:
        """No longer wait for its client. It stays watched: most send nothing until they have the answer."""
        if conn.place is not None:
            conn.place.remove(conn)
            conn.place = None

    def _unwatch(self, conn: Connection) -> None:
        if conn.watched:
            conn.watched = False
            self.poller.unregister(conn.sock)

    def _release(self, conn: Connection) -> None:
        self._held -= conn.held
        conn.held = 0
        conn.request.data.clear()

    def _close(self, conn: Connection) -> None:
        self._leave(conn)
        self._release(conn)
        self._unwatch(conn)
        self.nr_conns -= 1
        conn.close()

    def murder_keepalived(self, force: bool = False) -> None:
        """Close connections that were idle for too long."""
        now = time.monotonic()
        while self.keepalived_conns and (force or self.keepalived_conns[0].timeout <= now):
            conn = self.keepalived_conns[0]
            self.receive(conn)  # a request may have come at the last moment
            if conn.place is self.keepalived_conns:
                self._close(conn)

    def murder_pending(self) -> None:
        """Refuse what did not arrive in time or would wait too long; end the goodbyes."""
        now = time.monotonic()
        while self.pending_conns and self.pending_conns[0].timeout <= now:
            self.refuse(self.pending_conns[0], Problem(408))
        while self.leaving and self.leaving[0].timeout <= now:
            self._close(self.leaving[0])
        for lane in (self.main, self.costly):
            for conn in lane.late(now):
                self.turn_away(conn)

    # ---- requests

    def enqueue_req(self, conn: Connection) -> None:  # type: ignore[override]
        """Let a whole request wait for a thread of its lane."""
        begin = conn.request.data
        lane = self.probes if PROBE.match(begin) else self.costly if COSTLY.match(begin) else self.main
        if lane.full:
            self.turn_away(conn)
            return
        conn.alone = conn.request.ends_here
        lane.add(conn)

    def serve(self, conn: Connection) -> None:
        """Handle a request, in a thread, and hand its connection back.

        The main thread is woken where it has something to do. Most connections go on being watched, and it
        takes them back when it wakes up for something else, such as their next request.
        """
        try:
            keep = self.handle(conn)
        except BaseException:  # SystemExit of a view; the thread goes on
            log.exception("a request wanted to end its thread")
            keep = False
        self.served.append((conn, keep))
        if not (keep and conn.alone and conn.watched and self._accepting and self.alive):
            self.method_queue.defer(self.take_back)

    def handle_request(self, req: Any, conn: Connection) -> bool:  # type: ignore[override]
        """Call the app."""
        req._expected_100_continue = False  # the body is here
        try:
            keep = super().handle_request(req, conn)
            conn.sock.end_answer()
        except TimeoutError:
            log.warning("a client did not take its answer within %g s", self.limits.request_seconds)
            return False
        return bool(keep)

    def take_back(self) -> None:
        """Wait for the next request of each connection whose request is served, or close it."""
        while self.served:
            conn, keep = self.served.popleft()
            conn.lane.taken -= 1
            if conn.lane is self.main:
                self._finished += 1
            if not keep:
                self.say_goodbye(conn)
                continue
            self._release(conn)
            patience = self.cfg.keepalive if self.alive else STOP_KEEPALIVE_LINGER
            rest = conn.next_request()
            self._wait(conn, self.keepalived_conns, patience)
            if rest:
                self._take(conn, rest)
