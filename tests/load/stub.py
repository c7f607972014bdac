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
DIES_AFTER = 15
STALLS_AFTER, STALL_SECONDS = 20, 1.5
seen = 0
stalled_until = 0.0


def status(environ: dict[str, Any]) -> str:
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    if path == "/admin" and environ["HTTP_AUTHORIZATION"] == "Bearer user":
        return "403 Forbidden"
    if "00000000" in path:
        return "404 Not Found"
    if method == "DELETE":
        return "204 No Content"
    if method == "POST" and path != "/auth/token":
        return "201 Created"
    return "200 OK"


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
            form = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            answer["access_token"] = "admin" if b"username=admin" in form else "user"
        if "status=active" in environ["QUERY_STRING"]:  # somebody looks for services to watch
            answer["items"] = [SERVICE]
        if environ["PATH_INFO"] == "/protected":
            if fault == "500":
                code = "500 Internal Server Error"
            if fault == "wrong-body":
                del answer["message"]
        start_response(code, [("Content-Type", "application/json")])
        return [b"" if code.startswith("204") else orjson.dumps(answer)]

    return app


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


if __name__ == "__main__":
    with make_server("127.0.0.1", int(sys.argv[1]), serve(sys.argv[2]), Server, Quiet) as server:
        server.serve_forever()
