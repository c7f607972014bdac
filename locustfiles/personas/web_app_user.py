"""Somebody in a browser: looks at the start page, the profile, the protected page and the services."""

from __future__ import annotations

from locust import task

from locustfiles.personas.persona import Persona


class WebAppUser(Persona):
    """Browses and reads; now and then opens a page that is for administrators only."""

    weight = 40

    @task(3)
    def read_the_start_page(self) -> None:
        self.call("GET", "/", shows=("name", "version"), anonymous=True)

    @task(3)
    def read_the_profile(self) -> None:
        self.call("GET", "/auth/me", shows=("username", "role"))

    @task(5)
    def read_the_protected_page(self) -> None:
        self.call("GET", "/protected", shows=("message",))

    @task(5)
    def browse_services(self) -> None:
        page = self.call("GET", "/services", query={"limit": 20}, shows=("items", "next_cursor"))
        for service in page.get("items", [])[:1]:
            self.call("GET", "/services/{id}", shows=("service_name", "status"), id=service["service_id"])

    @task(1)
    def try_the_admin_page(self) -> None:
        self.call("GET", "/admin", ok=(403,))

    @task(1)
    def ask_for_a_password(self) -> None:
        self.call("GET", "/auth/generate-password", query={"length": 24}, shows=("password",), anonymous=True)
