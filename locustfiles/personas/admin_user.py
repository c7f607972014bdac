"""An administrator: registers services, changes and removes them, and reads the admin page."""

from __future__ import annotations

import uuid

from locust import task

from locustfiles.personas.persona import Persona


class AdminUser(Persona):
    """Writes services, and removes at the end what is left of its own."""

    weight = 10
    role = "admin"

    def on_start(self) -> None:
        """Sign in with no service registered."""
        self.registered: list[str] = []  # first: on_stop reads it even when the sign-in was cut short
        super().on_start()

    @task(3)
    def register_change_and_remove_a_service(self) -> None:
        body = {
            "service_name": f"load-{uuid.uuid4()}",
            "service_version": "1.0.0",
            "service_type": "api",
            "environment": "testing",
            "base_url": "http://127.0.0.1:9/",
        }
        made = self.call("POST", "/services", body=body, ok=(201,), shows=("service_id",))
        if not made:
            return
        self.registered.append(made["service_id"])
        found = self.call("GET", "/services/{id}", shows=("updated_at",), id=made["service_id"])
        if "etag" in found:
            version = {"If-Match": found["etag"]}
            change = {"status": "maintenance"}
            self.call(
                "PATCH",
                "/services/{id}",
                body=change,
                headers=version,
                shows=("status",),
                id=made["service_id"],
            )
            # The version is old by now: a second change with it must be refused.
            self.call(
                "PATCH", "/services/{id}", body=change, headers=version, ok=(412,), id=made["service_id"]
            )
        self._remove(made["service_id"])

    @task(3)
    def read_the_admin_page(self) -> None:
        self.call("GET", "/admin", shows=("users", "services"))

    @task(2)
    def look_at_services(self) -> None:
        self.call("GET", "/services", query={"limit": 50}, shows=("items",))

    def on_stop(self) -> None:
        """Remove what a journey that was cut short left behind."""
        for service_id in list(self.registered):
            self._remove(service_id)

    def _remove(self, service_id: str) -> None:
        self.call("DELETE", "/services/{id}", ok=(204, 404), id=service_id)
        self.registered.remove(service_id)
