"""A service that is nothing but its answers, healthy or with one fault: `python stub.py PORT FAULT`."""

import os
import sys
import time
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import orjson

SERVICE = {"service_id": "1", "service_name": "a", "status": "active", "updated_at": "now"}
EVERYTHING = {
    **SERVICE,
    "access_token": "a",
    "refresh_token": "r",
    "expires_in": 900,
    "items": [],
    "metrics": [],
    "next_cursor": "more",
    "name": "stub",
    "version": "0",
    "username": "u",
    "role": "user",
    "message": "m",
    "password": "p",
    "users": 1,
    "services": 1,
}
DIES_AFTER = 5
STALLS_AFTER, STALL_SECONDS = 20, 1.5
seen = 0
stalled_until = 0.0
newest: dict[str, int] = {}
"""The refresh token of each session that has not ended: `SESSION.NUMBER`."""


def status(environ: dict[str, Any]) -> str:
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    if path == "/admin" and bearer(environ).startswith("user."):
        return "403 Forbidden"
    if "00000000" in path:
        return "404 Not Found"
    if method == "DELETE" or path == "/auth/logout":
        return "204 No Content"
    if method == "POST" and path not in ("/auth/token", "/auth/refresh"):
        return "201 Created"
    return "200 OK"


def bearer(environ: dict[str, Any]) -> str:
    return str(environ.get("HTTP_AUTHORIZATION", "")).removeprefix("Bearer ")


def sign_in(role: str) -> dict[str, str]:
    session = str(len(newest))
    newest[session] = 0
    return {"access_token": f"{role}.{session}", "refresh_token": f"{session}.0"}


def refresh(environ: dict[str, Any], fault: str) -> dict[str, str] | None:
    """A new refresh token; None for one that was used before, which ends its session."""
    session, number = bearer(environ).split(".")
    if newest.get(session) != int(number) and fault != "keeps-used-tokens":
        newest[session] = -1
        return None
    newest[session] = int(number) + 1
    return {"access_token": f"user.{session}", "refresh_token": f"{session}.{newest[session]}"}


def stall() -> None:
    """Once, and whoever asks meanwhile waits for the end of it."""
    global stalled_until
    if seen == STALLS_AFTER:
        stalled_until = time.monotonic() + STALL_SECONDS
    time.sleep(max(stalled_until - time.monotonic(), 0.0))


def serve(fault: str) -> Callable[..., Iterable[bytes]]:
    def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        global seen
        seen += 1
        if fault == "stalls":
            stall()
        if fault == "dies" and seen > DIES_AFTER:
            os._exit(1)
        answer = dict(EVERYTHING)
        code = status(environ)
        if environ["PATH_INFO"] == "/auth/token":
            form = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0))
            answer |= sign_in("admin" if b"username=admin" in form else "user")
        if environ["PATH_INFO"] == "/auth/logout":
            newest[bearer(environ).split(".")[1]] = -1
        if environ["PATH_INFO"] == "/auth/refresh":
            if tokens := refresh(environ, fault):
                answer |= tokens
            else:
                code = "401 Unauthorized"
        if environ["PATH_INFO"] == "/auth/me":
            del answer["items"]  # what is not a list
            answer["username"] = "somebody else" if fault == "mixes-people-up" else "user"
        if "status=active" in environ["QUERY_STRING"]:  # somebody looks for services to watch
            answer["items"] = [SERVICE]
        if environ["PATH_INFO"] not in ("/livez", "/auth/token"):
            if fault == "500":
                code = "500 Internal Server Error"
            if fault == "wrong-body":
                answer = {}
        if fault == "full" and environ["PATH_INFO"] == "/auth/token":
            code, answer = "503 Service Unavailable", {}
        start_response(code, [("Content-Type", "application/json")])
        return [b"" if code.startswith("204") else orjson.dumps(answer)]

    return app


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        """A client has gone."""


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


if __name__ == "__main__":
    with make_server("127.0.0.1", int(sys.argv[1]), serve(sys.argv[2]), Server, Quiet) as server:
        server.serve_forever()
