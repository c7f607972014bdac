"""What lies between a phone and the service: connections that take their time, and break."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gevent

if TYPE_CHECKING:
    from locust import FastHttpUser


class ConnectionLostError(OSError):
    """The network broke a connection, and not the service."""


@dataclass(frozen=True)
class Link:
    """A mobile network."""

    round_trip: float
    """Seconds."""
    bytes_per_second: float
    """Each way."""
    loss: float = 0.0
    """Share of the requests that break: on the way, or before their answer is read. 0 to 1."""


# Round trips and rates as WebPageTest has them for its mobile networks; the loss is ours.
FOURTH_GENERATION = Link(0.17, 9_000_000 / 8, 0.01)
THIRD_GENERATION = Link(0.30, 1_600_000 / 8, 0.03)
SLOW_THIRD_GENERATION = Link(0.40, 400_000 / 8, 0.05)


class Connection:
    """An open connection as a phone has it: the same, over a link."""

    def __init__(self, opened: Any, link: Link) -> None:
        gevent.sleep(link.round_trip)  # to open it
        self._opened, self._link = opened, link
        self._answer_gets_lost = False
        self._arrived: float | None = None
        """When what was read until now had come all the way, by `time.monotonic()`; None before an answer."""

    def sendall(self, data: bytes) -> None:
        """Send a request, or a part of one and break."""
        sent = len(data)
        if random.random() < self._link.loss:
            self._answer_gets_lost = random.random() < 0.5
            sent = sent if self._answer_gets_lost else random.randrange(sent)
        gevent.sleep(self._link.round_trip / 2 + sent / self._link.bytes_per_second)
        self._opened.sendall(data[:sent])
        self._arrived = None
        if sent < len(data):
            self._break()

    def recv(self, most: int) -> bytes:
        """Read a part of the answer when it has come all the way."""
        if self._answer_gets_lost:
            self._break()
        data: bytes = self._opened.recv(most)
        now = time.monotonic()
        if self._arrived is None:
            self._arrived = now + self._link.round_trip / 2
        self._arrived += len(data) / self._link.bytes_per_second
        gevent.sleep(max(self._arrived - now, 0.0))
        return data

    def _break(self) -> None:
        self._opened.close()
        raise ConnectionLostError("the network broke the connection")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened, name)


def use(link: Link, user: FastHttpUser) -> None:
    """Let every connection that the user opens from now on go over the link."""
    # Where geventhttpclient wraps a socket; there is no public place.
    pool: Any = user.client.client.clientpool.get_client(str(user.host))._connection_pool
    connect = pool._create_socket
    pool._create_socket = lambda: Connection(connect(), link)
