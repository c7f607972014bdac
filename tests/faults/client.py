"""What a client does to the service over real HTTP, and what it expects of an answer."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests

from tests.faults.conftest import KEY
from tests.servers import Server, environment

PASSWORD = "quiet river stones"


@dataclass
class Answer:
    """An HTTP response as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes
    closed: bool
    """Whether the server closed the connection afterwards."""


def send(service: Server, request: bytes, *, half_close: bool = False) -> Answer:
    """Send these bytes on a connection of their own and read one answer."""
    host, _, port = urlsplit(service.url).netloc.partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(request)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        reader = connection.makefile("rb")
        status = int(reader.readline().split()[1])
        headers = {}
        while (line := reader.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        body = reader.read(int(headers.get("content-length", 0)))
        connection.settimeout(0.5)
        try:
            closed = reader.read(1) == b""
        except TimeoutError:
            closed = False
        return Answer(status, headers, body, closed)


def post(path: str, headers: str, body: bytes = b"", host: str = "Host: localhost\r\n") -> bytes:
    return f"POST {path} HTTP/1.1\r\n{host}{headers}\r\n".encode() + body


def assert_problem(answer: Answer | requests.Response, status: int) -> dict[str, Any]:
    """A problem document, and nothing in it that only the server should know."""
    body = answer.body if isinstance(answer, Answer) else answer.content
    found = answer.status if isinstance(answer, Answer) else answer.status_code
    headers = {name.lower(): value for name, value in answer.headers.items()}
    assert found == status, body
    assert headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = json.loads(body)
    assert {"type", "title", "status", "detail", "instance"} <= problem.keys()
    assert problem["instance"] == headers["x-request-id"]
    assert b"Traceback" not in body
    assert b"SELECT" not in body
    if status == 401:
        assert headers["www-authenticate"].startswith("Bearer")
    if status in (429, 503):
        assert int(headers["retry-after"]) >= 1
    return problem


def new_name() -> str:
    return "u" + secrets.token_hex(8)


def register(service: Server, **changes: object) -> requests.Response:
    """An account by default; `changes` make it a bad request."""
    body = {"username": new_name(), "password": PASSWORD} | changes
    return requests.post(service.url + "/auth/register", json=body, timeout=20)


def sign_in(service: Server, username: str, password: str = PASSWORD) -> requests.Response:
    form = {"username": username, "password": password}
    return requests.post(service.url + "/auth/token", data=form, timeout=20)


def account(service: Server) -> tuple[str, dict[str, Any]]:
    """The name and the tokens of a new account."""
    name = new_name()
    assert register(service, username=name).status_code == 201
    return name, sign_in(service, name).json()


def with_token(service: Server, token: str, path: str = "/protected", **options: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return requests.request(
        options.pop("method", "GET"), service.url + path, headers=headers, timeout=20, **options
    )


def assert_ends(service: Server, token: str) -> None:
    """The token is refused, at the latest 5 s from now."""
    ended = time.monotonic()
    while True:
        asked = time.monotonic()
        answer = with_token(service, token)
        if answer.status_code != 200:
            break
        assert asked < ended + 5, "the token still works"
        time.sleep(0.1)
    assert_problem(answer, 401)


def command(url: str, *arguments: str, stdin: str = "") -> str:
    """`flask pake …` on the service's database."""
    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "pake", "pake", *arguments],
        env=environment(DATABASE_URL=url, SECRET_KEY=KEY, FLASK_SKIP_DOTENV="1"),
        input=stdin,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout
