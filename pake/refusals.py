"""What is refused before it is a request of the app's, answered with a problem like all other errors.

Gunicorn's own page repeats what was sent.
"""

from __future__ import annotations

import logging
import random
import secrets
import socket
from http import HTTPStatus

from pake.errors import MEDIA_TYPE, Problem, body
from pake.headers import SECURITY

log = logging.getLogger("gunicorn.error")

OVERLOADED = Problem(503, "Too many requests at this moment.")


def write_error(sock: socket.socket, status_int: int, reason: str, mesg: str) -> None:
    """Answer what Gunicorn's parser refuses; in place of `gunicorn.util.write_error`."""
    request_id = send(sock, Problem(status_int), reason)
    log.warning("refused with %d, request_id=%s: %s", status_int, request_id, reason)


def send(sock: socket.socket, problem: Problem, reason: str | None = None, *, close: bool = True) -> str:
    """Send the problem as the whole answer; its request id."""
    request_id = secrets.token_hex(16)
    content = body(problem, request_id)
    headers = [
        ("Connection", "close" if close else "keep-alive"),
        ("Content-Type", MEDIA_TYPE),
        ("Content-Length", str(len(content))),
        ("X-Request-ID", request_id),
        *SECURITY,
    ]
    if problem.status == 503:  # not the same for all, or they would all come back at the same time
        headers.append(("Retry-After", str(random.randint(1, 3))))  # noqa: S311 - no secret
    reason = reason or HTTPStatus(problem.status).phrase
    lines = [f"HTTP/1.1 {problem.status} {reason}", *(f"{name}: {value}" for name, value in headers)]
    sock.send("\r\n".join([*lines, "", ""]).encode() + content)
    return request_id
