"""The app as a whole: it starts, and every answer carries its request id."""

import pytest
from apiflask import APIFlask

from pake import create_app
from pake.config import Settings


@pytest.fixture
def app(database_url: str) -> APIFlask:
    return create_app(Settings(database_url=database_url))


def test_livez_answers_without_a_database() -> None:
    app = create_app(Settings(database_url="postgresql://nobody@127.0.0.1:1/none"))
    answer = app.test_client().get("/livez")
    assert (answer.status_code, answer.json) == (200, {"status": "ok"})


def test_unknown_path_is_a_problem_that_names_the_request(app: APIFlask) -> None:
    answer = app.test_client().get("/nowhere")
    assert answer.status_code == 404
    assert answer.mimetype == "application/problem+json"
    assert answer.get_json()["instance"] == answer.headers["X-Request-ID"]
