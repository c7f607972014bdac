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

ENDING = ("/auth/logout", "/auth/password", "/auth/refresh")
"""They would end the sign-in that others need: each request gets one of its own (tests/fuzz_sign_in.py)."""

CONFIGURATION = Path(__file__).with_suffix(".toml")
NAME, PASSWORD = "fuzz-admin", "quiet river stones"
NOT_CHECKED = "positive_data_acceptance"
"""A common password, a cursor of no page and a name that is taken fit the document, and are refused."""


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
            ending = [argument for path in ENDING for argument in ("--include-path", path)]
            others = [argument for path in ENDING for argument in ("--exclude-path", path)]
            others += ["--header", f"Authorization: Bearer {token}"]
            status = fuzz(service.url, seconds - seconds // 4, others)
            status |= fuzz(service.url, seconds // 4, ending, SCHEMATHESIS_HOOKS="tests.fuzz_sign_in")
            print(*(line for line in service.log.splitlines() if "unhandled" in line), sep="\n")
    return status


def fuzz(url: str, seconds: int, arguments: list[str], **variables: str) -> int:
    """The exit status of schemathesis."""
    program = [str(Path(sys.executable).with_name("st")), "--config-file", str(CONFIGURATION)]
    program += ["run", url + "/openapi.json"]
    program += ["--max-time", str(seconds), "--max-examples", "1000000", "--exclude-checks", NOT_CHECKED]
    variables = environment(FUZZ_URL=url, **variables)
    return subprocess.run([*program, *arguments], env=variables, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
