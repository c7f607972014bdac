"""`flask pake` for accounts: made, given a password, deleted, and what is left of them pruned."""

from __future__ import annotations

import io
from typing import Any

import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient

from pake.extensions import db
from tests.pake.conftest import bearer, sign_in


def run(app: APIFlask, *arguments: str, stdin: str = "") -> Any:
    return app.test_cli_runner().invoke(args=["pake", *arguments], input=io.BytesIO(stdin.encode()))


def test_an_admin_is_created_with_a_password_that_is_shown_once(app: APIFlask, client: FlaskClient) -> None:
    made = run(app, "create-user", "root", "--role", "admin")
    assert made.exit_code == 0
    password = made.output.splitlines()[0].removeprefix("password: ")
    headers = bearer(sign_in(client, "root", password).get_json()["access_token"])
    counts = client.get("/admin", headers=headers)
    assert counts.get_json() == {"users": 1, "services": 0, "health_checks": 0, "metrics": 0}


def test_a_password_comes_from_standard_input(app: APIFlask, client: FlaskClient, alice: str) -> None:
    old = bearer(sign_in(client, alice).get_json()["access_token"])
    assert (
        run(app, "set-password", alice, "--password-stdin", stdin="seven herons over marsh\n").exit_code == 0
    )
    assert sign_in(client, alice).status_code == 401
    assert sign_in(client, alice, "seven herons over marsh").status_code == 200
    assert client.get("/auth/me", headers=old).status_code == 401


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create-user", "alice"], "exists"),
        (["create-user", "bob", "--password-stdin"], "at least 15 characters"),
        (["set-password", "nobody"], "no account nobody"),
        (["delete-user", "nobody"], "no account nobody"),
    ],
)
@pytest.mark.usefixtures("alice")
def test_mistakes_are_one_line(app: APIFlask, arguments: list[str], said: str) -> None:
    done = run(app, *arguments, stdin="short\n")
    assert done.exit_code == 1
    assert said in done.output.splitlines()[-1]
    assert "Traceback" not in done.output


def test_a_deleted_account_is_gone_with_its_tokens(app: APIFlask, client: FlaskClient, alice: str) -> None:
    headers = bearer(sign_in(client, alice).get_json()["access_token"])
    assert run(app, "delete-user", alice).exit_code == 0
    assert client.get("/auth/me", headers=headers).status_code == 401
    assert sign_in(client, alice).status_code == 401


def test_pruning_deletes_only_what_no_longer_matters(app: APIFlask, client: FlaskClient, alice: str) -> None:
    sign_in(client, alice)
    sign_in(client, "nobody")
    assert "deleted 0 expired sign-ins and 0 names" in run(app, "prune").output
    with app.app_context():
        db.session.execute(db.text("UPDATE token_families SET expires_at = now() - interval '1 second'"))
        db.session.execute(db.text("UPDATE sign_in_attempts SET last_failure_at = now() - interval '1 day'"))
        db.session.commit()
    assert "deleted 1 expired sign-ins and 1 names" in run(app, "prune").output
