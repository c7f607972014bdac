"""Sign-in, tokens and accounts: what is answered, and how many statements that takes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from apiflask import APIFlask
from flask.testing import FlaskClient

from pake import create_app
from pake.auth import accounts, tokens
from pake.extensions import db
from tests.pake.conftest import PASSWORD, bearer, settings, sign_in
from tests.servers import wait_for

# ---- accounts


def test_an_account_sees_itself(client: FlaskClient, alice: str) -> None:
    tokens = sign_in(client, alice).get_json()
    assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 900)
    me = client.get("/auth/me", headers=bearer(tokens["access_token"]))
    assert me.get_json() == {
        "username": "alice",
        "email": "alice@example.org",
        "full_name": "Alice L.",
        "role": "user",
    }


def test_names_are_compared_without_case(client: FlaskClient, alice: str) -> None:
    assert sign_in(client, alice.upper()).status_code == 200


@pytest.mark.parametrize("taken", [{"username": "alice"}, {"email": "alice@example.org"}])
@pytest.mark.usefixtures("alice")
def test_a_name_or_address_is_taken_once(client: FlaskClient, taken: dict[str, str]) -> None:
    body = {"username": "alice2", "password": PASSWORD, "email": "a2@example.org"} | taken
    assert client.post("/auth/register", json=body).status_code == 409


@pytest.mark.parametrize("username", ["ab", "A" * 65, "Alice", "al ice", "-alice", "al/ice", "älice"])
def test_a_name_is_plain(client: FlaskClient, username: str) -> None:
    assert client.post("/auth/register", json={"username": username, "password": PASSWORD}).status_code == 422


def test_answers_with_secrets_are_not_cached(client: FlaskClient, alice: str) -> None:
    assert sign_in(client, alice).headers["Cache-Control"] == "no-store"
    assert client.get("/auth/generate-password").headers["Cache-Control"] == "no-store"


# ---- statements


def test_a_protected_page_takes_one_statement(
    client: FlaskClient, user: dict[str, str], statements: list[str]
) -> None:
    assert client.get("/protected", headers=user).status_code == 200
    assert len(statements) == 1


def test_a_sign_in_is_three_round_trips(
    app: APIFlask, client: FlaskClient, alice: str, statements: list[str]
) -> None:
    begun: list[bool] = []

    def begin(connection: sa.Connection) -> None:
        driver: Any = connection.connection.driver_connection
        begun.append(not driver.autocommit)

    with app.app_context():
        sa.event.listen(db.engine, "begin", begin)
    statements.clear()
    assert sign_in(client, alice).status_code == 200
    assert len(statements) == 3  # a thread waits for each
    assert begun == [False] * 3  # else BEGIN and COMMIT as well


def test_the_signature_of_a_token_is_worked_out_once(
    client: FlaskClient, user: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.get("/protected", headers=user).status_code == 200
    monkeypatch.setattr(tokens, "verify_jwt_in_request", lambda **_: pytest.fail("worked out again"))
    assert client.get("/protected", headers=user).get_json()["username"] == "ursula"


@pytest.mark.parametrize("change", [lambda token: token[:-2], lambda token: token + "A", str.swapcase])
def test_a_token_like_one_seen_before_is_still_wrong(
    client: FlaskClient, user: dict[str, str], change: Callable[[str], str]
) -> None:
    assert client.get("/protected", headers=user).status_code == 200
    scheme, token = user["Authorization"].split()
    changed = {"Authorization": f"{scheme} {change(token)}"}
    assert client.get("/protected", headers=changed).status_code == 401


def test_a_token_seen_before_ends_with_its_sign_in(client: FlaskClient, user: dict[str, str]) -> None:
    assert client.post("/auth/logout", headers=user).status_code == 204
    answer = client.get("/protected", headers=user)
    assert (answer.status_code, answer.get_json()["detail"]) == (401, "The token has been revoked.")


def test_a_token_seen_before_expires(app: APIFlask, client: FlaskClient, alice: str) -> None:
    app.config.update(JWT_ACCESS_TOKEN_EXPIRES=timedelta(seconds=1), JWT_DECODE_LEEWAY=0)
    headers: dict[str, str] = {}

    def is_served() -> bool:
        headers.update(bearer(sign_in(client, alice).get_json()["access_token"]))
        return client.get("/protected", headers=headers).status_code == 200

    wait_for(is_served)  # a busy machine may take the second that the token has
    wait_for(lambda: client.get("/protected", headers=headers).status_code == 401)
    assert client.get("/protected", headers=headers).get_json()["detail"] == "The token has expired."


@pytest.mark.fault(19)
def test_every_refusal_takes_the_same_statements_and_one_hash(
    app: APIFlask, client: FlaskClient, alice: str, statements: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str | None] = []

    def verify(password: str, password_hash: str | None) -> bool:
        hashed.append(password_hash)
        return password == PASSWORD and password_hash is not None

    client.post("/auth/register", json={"username": "disabled", "password": PASSWORD})
    with app.app_context():
        accounts.disable(2, disabled=True)
    monkeypatch.setattr(accounts, "verify_password", verify)
    seen = []
    for username, password in ((alice, "wrong"), ("nobody", "wrong"), ("disabled", PASSWORD)):
        statements.clear()
        answer = sign_in(client, username, password)
        body = answer.get_json() | {"instance": ""}
        seen.append((answer.status_code, body, answer.headers["WWW-Authenticate"], tuple(statements)))
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0][3]) == 2
    assert len(hashed) == 3


# ---- many at once


@pytest.mark.fault(20)
def test_wrong_passwords_sent_at_once_are_all_counted(
    app: APIFlask, alice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "verify_password", lambda password, stored: password == PASSWORD)

    def attempt(password: str) -> int:
        return sign_in(app.test_client(), alice, password).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(attempt, ["wrong"] * 24))
    assert statuses.count(401) == 5
    assert statuses.count(429) == 19
    assert attempt(PASSWORD) == 429


def test_a_refresh_token_sent_twice_at_once_gives_at_most_one_pair(app: APIFlask, alice: str) -> None:
    token = sign_in(app.test_client(), alice).get_json()["refresh_token"]

    def refresh(_: int) -> int:
        return app.test_client().post("/auth/refresh", headers=bearer(token)).status_code

    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(refresh, range(4)))
    assert statuses.count(200) <= 1
    assert set(statuses) <= {200, 401}


def test_a_lock_ends(database_url: str) -> None:
    app = create_app(settings(database_url, sign_in_attempts=1))
    client = app.test_client()
    client.post("/auth/register", json={"username": "alice", "password": PASSWORD})
    assert sign_in(client, "alice", "wrong").status_code == 401
    locked = sign_in(client, "alice")
    assert locked.status_code == 429
    assert 890 <= int(locked.headers["Retry-After"]) <= 900
    with app.app_context():
        db.session.execute(
            db.text("UPDATE sign_in_attempts SET last_failure_at = now() - interval '901 seconds'")
        )
        db.session.commit()
    assert sign_in(client, "alice", "wrong").status_code == 401
    with app.app_context():
        db.engine.dispose()


# ---- changing the password


def test_the_current_password_is_needed_for_a_new_one(client: FlaskClient, alice: str) -> None:
    headers = bearer(sign_in(client, alice).get_json()["access_token"])
    body = {"current_password": "wrong", "new_password": "seven herons over marsh"}
    answer = client.post("/auth/password", json=body, headers=headers)
    assert answer.status_code == 422
    assert answer.get_json()["errors"][0]["field"] == "current_password"
    assert sign_in(client, alice).status_code == 200


def test_a_new_password_obeys_the_rules(client: FlaskClient, alice: str) -> None:
    headers = bearer(sign_in(client, alice).get_json()["access_token"])
    body = {"current_password": PASSWORD, "new_password": "alice-alice-2026"}
    answer = client.post("/auth/password", json=body, headers=headers)
    assert answer.status_code == 422
    assert answer.get_json()["errors"][0]["field"] == "new_password"


# ---- validation of passwords


@pytest.mark.parametrize(
    ("password", "valid"),
    [
        ("quiet river stones", True),
        ("summer2026summer", False),
        ("short", False),
        ("alice.liddell.1865", False),
    ],
)
def test_a_password_is_judged(client: FlaskClient, password: str, valid: bool) -> None:
    answer = client.post("/auth/validate-password", json={"password": password, "username": "alice.liddell"})
    body = answer.get_json()
    assert body.keys() == {"is_valid", "errors", "strength_score", "suggestions"}
    assert body["is_valid"] is valid
    assert bool(body["errors"]) is not valid


def test_a_password_beyond_the_limit_is_422(client: FlaskClient) -> None:
    longest, longer = "é" * 512, "é" * 512 + "x"
    assert client.post("/auth/validate-password", json={"password": longest}).status_code == 200
    assert client.post("/auth/validate-password", json={"password": longer}).status_code == 422


# ---- limits by address


def test_costly_routes_are_limited_by_address_and_others_are_not(database_url: str) -> None:
    app = create_app(settings(database_url, auth_rate_limit="3 per minute"))
    client = app.test_client()
    statuses = [client.post("/auth/validate-password", json={"password": "x"}).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    limited = client.post("/auth/validate-password", json={"password": "x"})
    assert limited.mimetype == "application/problem+json"
    assert 1 <= int(limited.headers["Retry-After"]) <= 61
    assert client.get("/livez").status_code == 200
    elsewhere = {"REMOTE_ADDR": "127.0.0.2"}
    answer = client.post("/auth/validate-password", json={"password": "x"}, environ_base=elsewhere)
    assert answer.status_code == 200


@pytest.fixture
def silent_redis() -> Iterator[str]:
    """The URL of one that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield f"redis://127.0.0.1:{silent.getsockname()[1]}/0"


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "unix:///nowhere/redis.sock", "silent"])
def test_without_its_redis_no_request_fails_and_limits_are_kept(
    database_url: str, silent_redis: str, url: str
) -> None:
    url = silent_redis if url == "silent" else url
    app = create_app(settings(database_url, redis_url=url, auth_rate_limit="3 per minute"))
    client = app.test_client()
    statuses = [client.post("/auth/validate-password", json={"password": "x"}).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]


# ---- the audit log


def test_what_happens_to_accounts_is_in_the_audit_log_whatever_the_level(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(settings(database_url, log_level="ERROR", sign_in_attempts=1))
    client = app.test_client()
    client.post("/auth/register", json={"username": "alice", "password": PASSWORD})
    header = bearer(sign_in(client, "alice").get_json()["access_token"])
    client.get("/admin", headers=header)
    client.post("/auth/logout", headers=header)
    for _ in range(2):
        sign_in(client, "alice", "my secret, mistyped")
    sign_in(client, "my secret, as a name", "x")
    events = [record.msg for record in caplog.records if record.name == "pake.audit"]
    assert [(event["event"], event["level"]) for event in events] == [
        ("account created", "info"),
        ("signed in", "info"),
        ("role refused", "warning"),
        ("signed out", "info"),
        ("sign-in refused", "warning"),
        ("sign-in refused: name locked", "warning"),
        ("sign-in refused", "warning"),
    ]
    assert {event["address"] for event in events} == {"127.0.0.1"}
    assert all(event["request_id"] for event in events)
    assert [event["user_id"] for event in events] == [1, 1, 1, 1, 1, 1, None]
    assert "secret" not in str(events)
