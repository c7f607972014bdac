"""What all personas share: one sign-in, a token kept and refreshed, and answers that are looked at."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar

import gevent
import orjson
from gevent import GreenletExit
from locust import FastHttpUser
from locust.env import Environment
from locust.exception import StopUser

from locustfiles import arrivals
from locustfiles.environment import ACCOUNTS
from locustfiles.network import ConnectionLostError

Json = dict[str, Any]

LOST = " (lost on the way)"
"""After a route in the statistics: requests that the network broke, whose answer nobody has read."""
SENT_AWAY = " (sent away)"
"""After a route in the statistics: answers that only said when to come back."""
REFRESH_BEFORE_SECONDS = 60
PATIENCE_SECONDS = 120
"""For so long a user who is sent away comes back to sign in."""
LONGEST_PAUSE_SECONDS = 8


class Persona(FastHttpUser):
    """A signed-in user of the service."""

    abstract = True
    network_timeout = 30.0
    connection_timeout = 10.0
    role: ClassVar[str] = "user"
    thinks_seconds: ClassVar[tuple[float, float]] = (0.3, 1.1)
    """Between two journeys: at least, and at most."""

    account: Json
    access_token: str
    lives_seconds: float
    """How long an access token lives."""

    refresh_token: str
    refresh_at: float
    """When to ask for new tokens, by `time.monotonic()`."""

    due: float | None = None
    """In the open model: when the journey that begins next was to begin, by `time.monotonic()`."""

    _turn: ClassVar[itertools.count[int]] = itertools.count()

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.client.client.cookiejar = None  # the service sets none, and looking for them costs

    def on_start(self) -> None:
        """Sign in, prepare, and in the open model wait for a journey that is due."""
        self.sign_in()
        self.prepare()
        if arrivals.shared is not None:
            self.wait()  # type: ignore[no-untyped-call]

    def prepare(self) -> None:
        """What a persona does once, before its journeys."""

    def wait_time(self) -> float:
        """Seconds between two journeys: a person thinks; in the open model, until the next is due."""
        if arrivals.shared is None:
            return random.uniform(*self.thinks_seconds)
        self.due = arrivals.shared.take()
        return max(self.due - time.monotonic(), 0.0)

    def sign_in(self) -> None:
        """Sign in once. A service that is busy with passwords says when to come back, and is obeyed.

        Whoever is sent away waits longer each time; at last it is a failed request, and they leave.
        """
        accounts = _accounts()[self.role]
        self.account = accounts[next(self._turn) % len(accounts)]
        patient_until = time.monotonic() + PATIENCE_SECONDS
        for pause in itertools.count(1):
            last = time.monotonic() >= patient_until
            answer = self.call(
                "POST",
                "/auth/token",
                form=self.account,
                away=() if last else (429, 503),
                shows=("refresh_token",),
                anonymous=True,
            )
            if "access_token" in answer:
                self._keep(answer)
                return
            if last:
                raise GreenletExit  # Locust would log the trace of a StopUser here
            asked = float(answer.get("retry_after", 1))
            gevent.sleep(max(asked, min(pause, LONGEST_PAUSE_SECONDS)) + random.random())

    def call(
        self,
        method: str,
        route: str,
        *,
        ok: Collection[int] = (200,),
        away: Collection[int] = (),
        shows: Collection[str] = (),
        each: str | None = None,
        holds: tuple[str, Any] | None = None,
        query: Json | None = None,
        body: Any = None,
        form: Json | None = None,
        headers: dict[str, str] | None = None,
        anonymous: bool = False,
        **path: Any,
    ) -> Json:
        """Send one request and look at its answer.

        Args:
            route: `/services/{id}`, filled from `path`; the statistics count by route, not by URL.
            ok: statuses that are right here, an expected 403 or 404 among them.
            away: statuses that tell to come back later; they are counted apart, and are no failures.
            shows: members that the body of a success must have.
            each: member that each of the body's `items` must have.
            holds: name and value of a member that the body must have, or where it is a list one of its
                `items`, if there are any.

        Returns:
            The JSON object of the answer; `etag` and `retry_after` of its headers are added. Empty when the
            answer has no body or was a failure.

        Raises:
            ConnectionLostError: the network broke the connection; that is counted apart, and no failure.
        """
        due, self.due = self.due, None
        if not anonymous:
            self._stay_signed_in()
            headers = {"Authorization": f"Bearer {self.access_token}", **(headers or {})}
        late = max(time.monotonic() - due, 0.0) if due is not None else 0.0
        with self.client.request(
            method,
            route.format(**path),
            name=f"{method} {route}",
            params=query,
            json=body,
            data=form,
            headers=headers or {},
            catch_response=True,
        ) as response:
            response.request_meta["response_time"] += late * 1000
            if isinstance(lost := response.request_meta["exception"], ConnectionLostError):
                response.request_meta["name"] += LOST
                response.success()
                raise lost
            if not response.status_code:
                response.failure(f"no answer: {response.error}")
                return {}
            if response.status_code in away:
                response.request_meta["name"] += SENT_AWAY
            elif response.status_code not in ok:
                response.failure(f"status {response.status_code}, expected {', '.join(map(str, ok))}")
                return {}
            answer: Json = {}
            if response.content:
                try:
                    answer = orjson.loads(response.content)
                except ValueError:
                    response.failure("the body is not JSON")
                    return {}
            if response.status_code < 300 and (wrong := _unexpected(answer, shows, each, holds)):
                response.failure(wrong)
                return {}
            response.success()
        for header, name in (("ETag", "etag"), ("Retry-After", "retry_after")):
            if header in response.headers:
                answer[name] = response.headers[header]
        return answer

    def _stay_signed_in(self) -> None:
        if time.monotonic() >= self.refresh_at:
            self.refresh()

    def refresh(self) -> None:
        """Ask for new tokens, which uses up the refresh token."""
        self.refresh_at = float("inf")  # the refresh itself is a call
        token = {"Authorization": f"Bearer {self.refresh_token}"}
        answer = self.call(
            "POST", "/auth/refresh", headers=token, shows=("access_token", "refresh_token"), anonymous=True
        )
        if not answer:
            raise StopUser
        self._keep(answer)

    def _keep(self, tokens: Json) -> None:
        self.access_token = tokens["access_token"]
        self.refresh_token = tokens["refresh_token"]
        self.lives_seconds = tokens["expires_in"]
        self.refresh_at = time.monotonic() + max(self.lives_seconds - REFRESH_BEFORE_SECONDS, 1)


def _unexpected(
    answer: Json, shows: Collection[str], each: str | None, holds: tuple[str, Any] | None
) -> str | None:
    """What is wrong with the body of a success, or None."""
    if missing := [name for name in shows if name not in answer]:
        return f"the body lacks {', '.join(missing)}"
    items = answer.get("items", [])
    if each is not None and any(each not in item for item in items):
        return f"an item lacks {each}"
    if holds is None:
        return None
    name, value = holds
    if "items" not in answer and answer.get(name) != value:
        return f"the {name} is another one"
    if items and value not in [item.get(name) for item in items]:
        return f"no item has the {name} that was asked for or written"
    return None


def _accounts() -> Json:
    path = os.environ.get(ACCOUNTS)
    if not path:
        raise StopUser(
            f"{ACCOUNTS} is not set: name a JSON file of accounts, as `python -m locustfiles` writes"
        )
    accounts: Json = orjson.loads(Path(path).read_bytes())
    return accounts
