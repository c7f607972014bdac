"""An analyst: pages through the services with their histories, and filters them."""

from __future__ import annotations

import random

from locust import task

from locustfiles.personas.persona import Json, Persona

PAGES = 3
"""How far one reading goes."""


class ResearcherUser(Persona):
    """Reads wide: the heaviest answers of the service."""

    weight = 20

    @task(3)
    def page_through_health_checks(self) -> None:
        self._page_through("/services", {"limit": 10, "include": "health_checks"}, "health_checks")

    @task(2)
    def page_through_all(self) -> None:
        self._page_through("/services", {"limit": 5, "include": "health_checks,metrics"}, "metrics")

    @task(2)
    def filter_services(self) -> None:
        wanted = random.choice(("production", "staging", "testing", "development"))
        query = {"environment": wanted, "limit": 20}
        self.call("GET", "/services", query=query, shows=("items",), holds=("environment", wanted))

    @task(2)
    def read_the_newest_health_checks(self) -> None:
        self._page_through("/health-checks", {"limit": 50}, "service")

    def _page_through(self, route: str, query: Json, shown: str) -> None:
        for _ in range(PAGES):
            page = self.call("GET", route, query=query, shows=("items", "next_cursor"), each=shown)
            if not page.get("next_cursor"):
                return
            query = {**query, "cursor": page["next_cursor"]}
