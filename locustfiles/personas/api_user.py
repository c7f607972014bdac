"""A monitoring agent: reports health checks and metrics of services, and reads back what it reported."""

from __future__ import annotations

import random

from locust import task

from locustfiles.personas.persona import Json, Persona


class ApiUser(Persona):
    """Writes small batches and makes sure that they are there."""

    weight = 30

    def prepare(self) -> None:
        """Choose the services to watch."""
        page = self.call("GET", "/services", query={"limit": 100, "status": "active"}, shows=("items",))
        names = [item for item in page.get("items", []) if not item["service_name"].startswith("load-")]
        self.watched = [item["service_id"] for item in random.sample(names, min(5, len(names)))]

    @task(5)
    def report_a_health_check(self) -> None:
        check = {"status": "healthy", "response_time_ms": round(random.uniform(1, 200), 3)}
        self._write_and_read("/services/{id}/health-checks", "health_check_id", check)

    @task(4)
    def report_metrics(self) -> None:
        batch = [
            {"metric_name": name, "metric_value": round(random.uniform(0, 100), 3)}
            for name in ("cpu_percent", "memory_bytes", "requests_per_second")
        ]
        self._write_and_read("/services/{id}/metrics", "metric_id", {"items": batch})

    @task(1)
    def report_on_nobody(self) -> None:
        nobody = "00000000-0000-0000-0000-000000000000"
        self.call("POST", "/services/{id}/health-checks", body={"status": "healthy"}, ok=(404,), id=nobody)

    def _write_and_read(self, route: str, key: str, body: Json) -> None:
        if not self.watched:
            return
        service_id = random.choice(self.watched)
        written = self.call("POST", route, body=body, ok=(201,), shows=("items",), id=service_id).get("items")
        if not written:
            return
        # Others write to the same service meanwhile: the newest hundred hold what was written just now.
        self.call(
            "GET", route, query={"limit": 100}, shows=("items",), id=service_id, holds=(key, written[0][key])
        )
