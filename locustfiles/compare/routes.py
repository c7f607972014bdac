"""What both versions are asked, as `routes.toml` says, and the client that asks one of them."""

from __future__ import annotations

import http.client
import json
import random
import time
import tomllib
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from locustfiles.compare import probe
from locustfiles.compare.sides import ROLES, Side
from locustfiles.service import Service, ServiceError

FILE = Path(__file__).with_name("routes.toml")
ANSWER_SECONDS = 60


@dataclass(frozen=True)
class Tolerance:
    """The share by which a route's figures may grow, 0.1 for a tenth."""

    cpu: float
    database: float
    bytes: float
    allocations: float


@dataclass(frozen=True)
class Route:
    """One kind of request."""

    name: str
    path: str
    tolerance: Tolerance
    method: str = "GET"
    role: str = ""
    """Whose token it carries; nobody's when empty."""
    body: Any = None


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    seconds: float
    body: bytes
    headers: Mapping[str, str]


def read(path: Path = FILE) -> tuple[Route, ...]:
    """The routes of a file.

    Raises:
        ServiceError: the file is not as it should be; the message says where.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        usual = data["tolerance"]
        routes = tuple(
            Route(
                name=one["name"],
                path=one["path"],
                tolerance=_tolerance(usual | one.get("tolerance", {}), one["name"]),
                method=one.get("method", "GET"),
                role=one.get("as", ""),
                body=one.get("body"),
            )
            for one in data["route"]
        )
    except KeyError as error:
        raise ServiceError(f"{path}: {error} is missing") from None
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ServiceError(f"{path}: {error}") from None
    if len({route.name for route in routes}) < len(routes):
        raise ServiceError(f"{path}: two routes have the same name")
    return routes


def _tolerance(shares: dict[str, Any], route: str) -> Tolerance:
    known = {field.name for field in fields(Tolerance)}
    for name, share in shares.items():
        if name not in known or not isinstance(share, int | float) or share <= 0:
            raise ServiceError(
                f"tolerance of {route}: {name}={share!r}: expected a share above 0, such as 0.1, of "
                f"{', '.join(sorted(known))}"
            )
    return Tolerance(**shares)


class Client:
    """One connection to one service, signed in. Two clients of one seed send the same requests."""

    def __init__(self, side: Side, service: Service, seed: int) -> None:
        self._connection = http.client.HTTPConnection(
            service.url.removeprefix("http://"), timeout=ANSWER_SECONDS
        )
        self._seed = seed
        self._sent: dict[str, int] = {}
        self._tokens = {role: self._sign_in(side.account(role)) for role in ROLES}
        listed = self._call("GET", "/services?limit=100", headers=self._authorization("user"))
        self._services = sorted(item["service_id"] for item in json.loads(listed.body)["items"])

    def send(self, route: Route, asked: str = "") -> Answer:
        """The route's next request.

        Args:
            asked: what the probe is asked about it.
        """
        number = self._sent[route.name] = self._sent.get(route.name, 0) + 1
        service = random.Random(f"{self._seed} {route.name} {number}").choice(self._services)
        headers = self._authorization(route.role) if route.role else {}
        if asked:
            headers[probe.ASKED] = asked
        content = b""
        if route.body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(route.body).replace("{number}", f"{self._seed}{number:05}").encode()
        return self._call(route.method, route.path.replace("{service}", service), content, headers)

    def worker(self) -> int:
        """The process that answers."""
        answer = self._call("GET", "/", headers={probe.ASKED: probe.WORKER})
        return int(answer.headers["X-Perf-Worker"])

    def close(self) -> None:
        self._connection.close()

    def _sign_in(self, account: dict[str, str]) -> str:
        form = urllib.parse.urlencode(account).encode()
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = self._call("POST", "/auth/token", form, kind)
        if answer.status != 200:
            raise ServiceError(f"the sign-in was answered with {answer.status}: {answer.body[:500]!r}")
        return str(json.loads(answer.body)["access_token"])

    def _authorization(self, role: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._tokens[role]}"}

    def _call(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        started = time.perf_counter()
        try:
            self._connection.request(method, path, body or None, dict(headers or {}))
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ServiceError(f"{method} {path}: no answer ({error!r})") from None
        seconds = time.perf_counter() - started
        return Answer(response.status, seconds, content, dict(response.getheaders()))
