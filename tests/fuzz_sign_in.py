"""A hook of schemathesis: each request to a route that ends sign-ins gets its own, of a new account."""

from __future__ import annotations

import os
import secrets
from typing import Any

import requests
import schemathesis

ENDING = ["/auth/logout", "/auth/password", "/auth/refresh"]
"""They would end the sign-in that all other routes need."""
URL = os.environ["FUZZ_URL"]


@schemathesis.auth(refresh_interval=None).apply_to(path=ENDING)
class OwnSignIn:
    """Signs in for one request."""

    def get(self, _case: schemathesis.Case, _context: object) -> dict[str, Any]:
        """The tokens."""
        account = {"username": "u" + secrets.token_hex(8), "password": "quiet river stones"}
        requests.post(URL + "/auth/register", json=account, timeout=20).raise_for_status()
        answer = requests.post(URL + "/auth/token", data=account, timeout=20)
        answer.raise_for_status()
        tokens: dict[str, Any] = answer.json()
        return tokens

    def set(self, case: schemathesis.Case, data: dict[str, Any], _context: object) -> None:
        """Put the right one in."""
        kind = "refresh_token" if case.operation.path == "/auth/refresh" else "access_token"
        case.headers["Authorization"] = f"Bearer {data[kind]}"
