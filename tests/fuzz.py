"""`make fuzz`: schemathesis against the running service, as an administrator, for as long as one likes.

Every answer has to be as the OpenAPI document says, and none a server error.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import requests

from tests.conftest import migrate, new_database, postgres
from tests.servers import environment, gunicorn

NAME, PASSWORD = "fuzz-admin", "quiet river stones"
ENDING = ("/auth/logout", "/auth/password", "/auth/refresh")
"""Routes that would end the sign-in that all others need; the test suite holds them to the document."""
NOT_CHECKED = "positive_data_acceptance,negative_data_rejection,ignored_auth"
"""As in tests/pake/test_openapi.py. `ignored_auth` is about routes for which a token is optional."""


def main(seconds: int) -> int:
    with (
        tempfile.TemporaryDirectory(prefix="fuzz-") as folder,
        postgres() as server,
        new_database(server) as url,
    ):
        migrate(url)
        create = ["create-user", NAME, "--role", "admin", "--password-stdin"]
        subprocess.run(
            [sys.executable, "-m", "flask", "--app", "pake", "pake", *create],
            input=PASSWORD,
            text=True,
            check=True,
            env=environment(DATABASE_URL=url, INSTANCE_PATH=folder),
        )
        settings = {"DATABASE_URL": url, "WEB_CONCURRENCY": "2", "AUTH_RATE_LIMIT": "100000 per minute"}
        settings |= {"ACCESS_TOKEN_MINUTES": "60"}
        with gunicorn(Path(folder) / "service", **settings) as service:
            form = {"username": NAME, "password": PASSWORD}
            token = requests.post(service.url + "/auth/token", data=form, timeout=20).json()["access_token"]
            program = [str(Path(sys.executable).with_name("st")), "run", service.url + "/openapi.json"]
            program += ["--header", f"Authorization: Bearer {token}", "--max-time", str(seconds)]
            program += ["--exclude-checks", NOT_CHECKED, "--max-examples", "1000000"]
            for path in ENDING:
                program += ["--exclude-path", path]
            status = subprocess.run(program, check=False).returncode
            print(*(line for line in service.log.splitlines() if "unhandled" in line), sep="\n")
    return status


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
