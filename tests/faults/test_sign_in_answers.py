"""Tokens, roles and passwords over real HTTP: rows 14 to 22 of the fault table, each with its twin."""

from __future__ import annotations

import secrets
from typing import Any

import jwt
import pytest
import requests

from tests.faults.client import (
    PASSWORD,
    account,
    assert_ends,
    assert_problem,
    command,
    new_name,
    register,
    sign_in,
    with_token,
)
from tests.faults.conftest import KEY
from tests.servers import Server

# ---- rows 14 to 18: tokens


def forged(token: str, *, key: str | None = KEY, algorithm: str = "HS256", **changes: object) -> str:
    """The claims of a token with changes (None removes one), signed anew."""
    claims = jwt.decode(token, options={"verify_signature": False}) | changes
    return jwt.encode(
        {name: value for name, value in claims.items() if value is not None}, key, algorithm=algorithm
    )


def test_a_token_forged_without_changes_is_good(service: Server) -> None:
    _, tokens = account(service)
    assert with_token(service, forged(tokens["access_token"])).status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
def test_the_name_of_the_scheme_is_compared_without_case(service: Server, scheme: str) -> None:
    _, tokens = account(service)
    headers = {"Authorization": f"{scheme} {tokens['access_token']}"}
    assert service.get("/protected", headers=headers).status_code == 200


@pytest.mark.fault(14)
@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        "Bearer garbage",
        "Bearer a.b.c",
        "Bearer one two",
        ", ,",
        "é",
    ],
)
def test_no_usable_token_is_401(service: Server, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    assert_problem(service.get("/protected", headers=headers), 401)


def test_without_a_token_the_challenge_has_no_error_code(service: Server) -> None:
    assert service.get("/protected").headers["WWW-Authenticate"] == 'Bearer realm="pake"'


@pytest.mark.fault(14)
@pytest.mark.parametrize(
    "changes",
    [
        {"key": "another key of quite sufficient length"},
        {"key": None, "algorithm": "none"},
        {"algorithm": "HS512"},
        {"exp": 1_000_000_000},
        {"exp": None},
        {"jti": None},
        {"type": None},
        {"iss": None},
        {"iss": "somebody else"},
        {"sub": None},
        {"sub": 1},
        {"sub": "99999999999999999999"},
        {"sub": "0"},
        {"fam": None},
        {"fam": "x"},
        {"exp": "tomorrow"},
        {"nbf": 4_000_000_000},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")
def test_a_token_that_is_not_ours_is_401(service: Server, changes: dict[str, Any]) -> None:
    _, tokens = account(service)
    answer = with_token(service, forged(tokens["access_token"], **changes))
    assert_problem(answer, 401)
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


@pytest.mark.fault(14)
def test_a_deeply_nested_token_is_401(service: Server) -> None:
    nested = jwt.utils.base64url_encode(b"[" * 4000 + b"]" * 4000).decode()
    header = jwt.utils.base64url_encode(b'{"alg":"HS256","typ":"JWT"}').decode()
    token = f"{header}.{nested[:7000]}.x"
    assert_problem(with_token(service, token), 401)


@pytest.mark.fault(15)
def test_a_refresh_token_is_no_access_token(service: Server) -> None:
    _, tokens = account(service)
    assert_problem(with_token(service, tokens["refresh_token"]), 401)


@pytest.mark.fault(15)
def test_an_access_token_is_no_refresh_token(service: Server) -> None:
    _, tokens = account(service)
    assert_problem(with_token(service, tokens["access_token"], "/auth/refresh", method="POST"), 401)


@pytest.mark.fault(16)
def test_after_signing_out_no_token_of_that_sign_in_works(service: Server) -> None:
    name, tokens = account(service)
    other = sign_in(service, name).json()
    assert with_token(service, tokens["access_token"], "/auth/logout", method="POST").status_code == 204
    assert_problem(with_token(service, tokens["refresh_token"], "/auth/refresh", method="POST"), 401)
    assert_ends(service, tokens["access_token"])
    assert with_token(service, other["access_token"]).status_code == 200


@pytest.mark.fault(16)
def test_after_a_new_password_no_older_token_works(service: Server) -> None:
    name, tokens = account(service)
    change = {"current_password": PASSWORD, "new_password": "seven herons over marsh"}
    answer = with_token(service, tokens["access_token"], "/auth/password", method="POST", json=change)
    assert answer.status_code == 204
    assert_problem(with_token(service, tokens["refresh_token"], "/auth/refresh", method="POST"), 401)
    assert_ends(service, tokens["access_token"])
    assert_problem(sign_in(service, name), 401)
    renewed = sign_in(service, name, "seven herons over marsh").json()
    assert with_token(service, renewed["access_token"]).status_code == 200


def test_a_refreshed_token_is_not_fresh_enough_for_a_new_password(service: Server) -> None:
    _, tokens = account(service)
    tokens = with_token(service, tokens["refresh_token"], "/auth/refresh", method="POST").json()
    change = {"current_password": PASSWORD, "new_password": "seven herons over marsh"}
    answer = with_token(service, tokens["access_token"], "/auth/password", method="POST", json=change)
    assert_problem(answer, 401)
    assert 'error="insufficient_user_authentication"' in answer.headers["WWW-Authenticate"]


@pytest.mark.fault(16)
def test_after_an_account_is_disabled_its_tokens_end(service: Server, service_database_url: str) -> None:
    name, tokens = account(service)
    assert with_token(service, tokens["access_token"]).status_code == 200
    command(service_database_url, "disable-user", name)
    assert_problem(with_token(service, tokens["refresh_token"], "/auth/refresh", method="POST"), 401)
    assert_ends(service, tokens["access_token"])


def test_a_refresh_token_works_once(service: Server) -> None:
    _, tokens = account(service)
    renewed = with_token(service, tokens["refresh_token"], "/auth/refresh", method="POST").json()
    assert with_token(service, renewed["access_token"]).status_code == 200
    assert with_token(service, renewed["refresh_token"], "/auth/refresh", method="POST").status_code == 200


@pytest.mark.fault(17)
def test_a_replayed_refresh_token_revokes_its_family(service: Server) -> None:
    _, tokens = account(service)
    renewed = with_token(service, tokens["refresh_token"], "/auth/refresh", method="POST").json()
    replay = with_token(service, tokens["refresh_token"], "/auth/refresh", method="POST")
    assert_problem(replay, 401)
    assert_ends(service, renewed["access_token"])
    assert_problem(with_token(service, renewed["refresh_token"], "/auth/refresh", method="POST"), 401)
    logged = [line for line in service.log.splitlines() if replay.headers["X-Request-ID"] in line]
    assert any("refresh token replayed" in line for line in logged)


@pytest.mark.fault(18)
def test_the_wrong_role_is_403_and_the_right_one_is_served(
    service: Server, service_database_url: str
) -> None:
    _, tokens = account(service)
    answer = with_token(service, tokens["access_token"], "/admin")
    assert_problem(answer, 403)
    assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]

    boss = new_name()
    command(service_database_url, "create-user", boss, "--role", "admin", "--password-stdin", stdin=PASSWORD)
    token = sign_in(service, boss).json()["access_token"]
    assert with_token(service, token, "/admin").status_code == 200


# ---- rows 19 to 22: passwords


@pytest.mark.fault(19)
def test_unknown_disabled_and_wrong_look_the_same(service: Server, service_database_url: str) -> None:
    name, _ = account(service)
    disabled, _ = account(service)
    command(service_database_url, "disable-user", disabled)
    answers = [
        sign_in(service, name, "not this one, sorry"),
        sign_in(service, new_name()),
        sign_in(service, disabled),
    ]
    for answer in answers:
        assert_problem(answer, 401)
    assert len({(answer.json()["detail"], answer.headers["WWW-Authenticate"]) for answer in answers}) == 1


@pytest.mark.fault(20)
@pytest.mark.parametrize("exists", [True, False])
def test_the_sixth_wrong_password_is_429(service: Server, exists: bool) -> None:
    name = account(service)[0] if exists else new_name()
    other, _ = account(service)
    statuses = [sign_in(service, name, "not this one, sorry").status_code for _ in range(5)]
    assert statuses == [401] * 5
    assert_problem(sign_in(service, name, "not this one, sorry"), 429)
    assert_problem(sign_in(service, name, PASSWORD), 429)
    assert sign_in(service, other).status_code == 200


def test_a_right_password_starts_the_count_again(service: Server) -> None:
    name, _ = account(service)
    for _ in range(2):
        for _ in range(4):
            assert sign_in(service, name, "not this one, sorry").status_code == 401
        assert sign_in(service, name).status_code == 200


def test_passwords_are_never_logged(service: Server) -> None:
    name, tokens = account(service)
    sign_in(service, name, "CANARY of a wrong password")
    sign_in(service, "CANARY typed in the wrong place", "x")
    register(service, password="CANARY")
    requests.post(service.url + "/auth/validate-password", json={"password": "CANARY"}, timeout=20)
    assert "CANARY" not in service.log
    assert tokens["access_token"] not in service.log
    assert PASSWORD not in service.log


@pytest.mark.fault(21)
@pytest.mark.parametrize("password", ["x" * 1025, "\U0001f600" * 300, "short", "quiet river"], ids=len)
def test_a_password_that_is_too_long_or_too_short_is_422(service: Server, password: str) -> None:
    problem = assert_problem(register(service, password=password), 422)
    assert {error["field"] for error in problem["errors"]} == {"password"}


@pytest.mark.fault(21)
@pytest.mark.parametrize(
    "password",
    [secrets.token_hex(512), "\U0001f980\U0001f30a \U0001f3d4 é" * 3, "  many  spaces  ", "justlettershere"],
    ids=len,
)
def test_a_password_needs_length_and_nothing_else(service: Server, password: str) -> None:
    name = new_name()
    assert register(service, username=name, password=password).status_code == 201
    assert sign_in(service, name, password).status_code == 200
    assert_problem(sign_in(service, name, password[:-1]), 401)


@pytest.mark.fault(21)
def test_a_common_password_and_the_own_name_are_refused(service: Server) -> None:
    name = "somebody" + new_name()
    for password in ("summer2026summer", name, name[::-1].upper()[::-1]):
        assert_problem(register(service, username=name, password=password), 422)
    assert_problem(sign_in(service, name), 401)


@pytest.mark.fault(22)
@pytest.mark.parametrize("length", ["0", "-1", "14", "129", "1000000000", "abc", "", "20.5", "20&length=21"])
def test_a_senseless_length_is_422(service: Server, length: str) -> None:
    assert_problem(service.get(f"/auth/generate-password?length={length}"), 422)


@pytest.mark.parametrize("length", [15, 20, 128])
def test_a_password_of_the_wanted_length_is_made(service: Server, length: int) -> None:
    made = [service.get(f"/auth/generate-password?length={length}").json()["password"] for _ in range(2)]
    assert [len(password) for password in made] == [length, length]
    assert made[0] != made[1]
