"""The factory: every answer carries its request id, and mistakes at the start are one line each."""

import subprocess
import sys
from pathlib import Path

import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient
from sqlalchemy import text

from pake import create_app
from pake.extensions import db
from tests.conftest import autocommit
from tests.pake.conftest import settings
from tests.servers import environment


def test_an_unknown_path_is_a_problem_that_names_the_request(client: FlaskClient) -> None:
    answer = client.get("/nowhere")
    assert answer.status_code == 404
    assert answer.mimetype == "application/problem+json"
    assert answer.get_json()["instance"] == answer.headers["X-Request-ID"]


def test_two_apps_in_one_process_keep_their_settings_apart(app: APIFlask, database_url: str) -> None:
    small = create_app(settings(database_url, max_content_length=1024))
    long = {"password": "x" * 1000, "username": "y" * 60}
    statuses = [
        each.test_client().post("/auth/validate-password", json=long).status_code for each in (app, small)
    ]
    assert statuses == [200, 413]


def test_a_connection_that_breaks_after_the_answer_was_made_does_not_change_it(
    app: APIFlask, database_url: str
) -> None:
    def answer_and_lose_the_connection() -> str:
        pid = db.session.scalar(text("SELECT pg_backend_pid()"))
        with autocommit(database_url) as other:
            other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        return "answered"

    app.add_url_rule("/broken", view_func=answer_and_lose_the_connection)
    client = app.test_client()
    assert client.get("/broken").text == "answered"
    assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "DATABASE_URL is not set and no embedded PostgreSQL runs in instance/postgres: start one with"),
        ({"FLASK_PROFILE": "nonsense"}, "FLASK_PROFILE=nonsense: there is no profiler nonsense; known are"),
        ({"DATABASE_URL": "mysql://host/name"}, "DATABASE_URL: expected postgresql://…, not mysql://…"),
    ],
)
def test_flask_says_in_one_line_why_it_does_not_start(
    tmp_path: Path, variables: dict[str, str], said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "pake", "pake", "prune"],
        cwd=tmp_path,
        env=environment(FLASK_SKIP_DOTENV="1", **variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert line.startswith(said)
