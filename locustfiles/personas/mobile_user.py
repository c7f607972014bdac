"""Somebody with a phone: asleep most of the time, then everything at once, over a weak network."""

from __future__ import annotations

import random
from typing import Any

import gevent
from gevent.pool import Group
from locust import task

from locustfiles import network
from locustfiles.network import ConnectionLostError
from locustfiles.personas.persona import Json, Persona

NETWORKS = (network.FOURTH_GENERATION, network.THIRD_GENERATION, network.SLOW_THIRD_GENERATION)
SHARES = (50, 35, 15)
KEPT_ALIVE = 0.2
"""Share of the requests after which the connection is kept."""


class MobileUser(Persona):
    """Wakes up, asks for all that its screen shows, and sleeps again."""

    thinks_seconds = (4.0, 16.0)

    def on_start(self) -> None:
        """Find a network, then sign in over it."""
        network.use(random.choices(NETWORKS, SHARES)[0], self)
        super().on_start()

    def prepare(self) -> None:
        """Choose the services that the screen shows."""
        page = self.call("GET", "/services", query={"limit": 20, "status": "active"}, shows=("items",))
        named = [item for item in page.get("items", []) if not item["service_name"].startswith("load-")]
        self.shown = [item["service_id"] for item in named[:5]]

    @task(3)
    def wake_up(self) -> None:
        self._at_once(
            ("GET", "/auth/me", {"shows": ("username", "role")}),
            ("GET", "/services", {"query": {"limit": 20, "include": "health_checks"}, "shows": ("items",)}),
            ("GET", "/health-checks", {"query": {"limit": 20}, "shows": ("items",)}),
            ("GET", "/protected", {"shows": ("message",)}),
        )

    @task(2)
    def look_at_a_service(self) -> None:
        if self.shown:
            chosen: Json = {"id": random.choice(self.shown)}
            query = {"include": "health_checks,metrics"}
            self.call("GET", "/services/{id}", query=query, shows=("service_name", "metrics"), **chosen)

    @task(1)
    def send_what_was_measured_meanwhile(self) -> None:
        if self.shown:
            batch = [
                {"metric_name": f"signal_{number}", "metric_value": random.random()} for number in range(100)
            ]
            chosen: Json = {"id": random.choice(self.shown)}
            self.call(
                "POST", "/services/{id}/metrics", body={"items": batch}, ok=(201,), shows=("items",), **chosen
            )

    def call(self, method: str, route: str, **options: Any) -> Json:
        """Ask, and ask again when the network broke the connection."""
        headers = options.pop("headers", None) or {}
        while True:
            close = {} if random.random() < KEPT_ALIVE else {"Connection": "close"}
            try:
                return super().call(method, route, headers={**headers, **close}, **options)
            except ConnectionLostError:
                if route == "/auth/refresh":
                    raise
                gevent.sleep(random.uniform(0.2, 1.0))

    def refresh(self) -> None:
        """Ask for new tokens; sign in again when nobody knows whether the old one is used up."""
        try:
            super().refresh()
        except ConnectionLostError:  # sent again, a used token would be taken for a thief's
            self.sign_in()

    def _at_once(self, *requests: tuple[str, str, Json]) -> None:
        together = Group()
        try:
            for method, route, options in requests:
                together.spawn(self.call, method, route, **options)
            together.join(raise_error=True)
        finally:
            together.kill()
