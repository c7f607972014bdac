"""Somebody who stays signed in for hours: every pause stands for the life of an access token.

A token lives for a quarter of an hour by default, so a hundred pauses are a day.
"""

from __future__ import annotations

import time

from locust import task

from locustfiles.personas.persona import Persona

FORGIVEN_SECONDS = 125
"""After its end a token may still be taken: TOKEN_LEEWAY_SECONDS is 120 at most."""


class SessionUser(Persona):
    """Refreshes and reads, and makes sure that a token that has ended stays ended."""

    thinks_seconds = (1.0, 3.0)

    def prepare(self) -> None:
        """Keep the first access token, to try it when it has run out."""
        self.first = self.access_token
        self.first_ended = time.monotonic() + self.lives_seconds + FORGIVEN_SECONDS

    @task(40)
    def come_back(self) -> None:
        self.refresh()
        self.call("GET", "/auth/me", holds=("username", self.account["username"]))
        self.call("GET", "/protected", shows=("message",))
        self.call("GET", "/services", query={"limit": 20}, shows=("items", "next_cursor"))

    @task(2)
    def try_the_first_token(self) -> None:
        if time.monotonic() > self.first_ended:
            token = {"Authorization": f"Bearer {self.first}"}
            self.call("GET", "/protected", headers=token, ok=(401,), anonymous=True)

    @task(1)
    def sign_out_and_in_again(self) -> None:
        self.call("POST", "/auth/logout", ok=(204,))
        self._is_refused(self.refresh_token)
        self.sign_in()

    @task(1)
    def lose_a_token_to_a_thief(self) -> None:
        stolen = self.refresh_token
        self.refresh()
        self._is_refused(stolen)  # it is used up; and whoever has it, the session ends for both
        self._is_refused(self.refresh_token)
        self.sign_in()

    def _is_refused(self, refresh_token: str) -> None:
        token = {"Authorization": f"Bearer {refresh_token}"}
        self.call("POST", "/auth/refresh", headers=token, ok=(401,), anonymous=True)
