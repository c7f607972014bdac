"""Bad requests over real HTTP: rows 1 to 22 of the fault table. The healthy twin stands beside each fault."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest
import requests

from tests.faults.conftest import KEY
from tests.servers import Server, environment

PASSWORD = "quiet river stones"


# ---- what a client does


@dataclass
class Answer:
    """An HTTP response as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes
    closed: bool
    """Whether the server closed the connection afterwards."""


def send(service: Server, request: bytes, *, half_close: bool = False) -> Answer:
    """Send these bytes on a connection of their own and read one answer."""
    host, _, port = urlsplit(service.url).netloc.partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(request)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        reader = connection.makefile("rb")
        status = int(reader.readline().split()[1])
        headers = {}
        while (line := reader.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        body = reader.read(int(headers.get("content-length", 0)))
        connection.settimeout(0.5)
        try:
            closed = reader.read(1) == b""
        except TimeoutError:
            closed = False
        return Answer(status, headers, body, closed)


def post(path: str, headers: str, body: bytes = b"", host: str = "Host: localhost\r\n") -> bytes:
    return f"POST {path} HTTP/1.1\r\n{host}{headers}\r\n".encode() + body


def assert_problem(answer: Answer | requests.Response, status: int) -> dict[str, Any]:
    """A problem document, and nothing in it that only the server should know."""
    body = answer.body if isinstance(answer, Answer) else answer.content
    found = answer.status if isinstance(answer, Answer) else answer.status_code
    headers = {name.lower(): value for name, value in answer.headers.items()}
    assert found == status, body
    assert headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = json.loads(body)
    assert {"type", "title", "status", "detail", "instance"} <= problem.keys()
    assert problem["instance"] == headers["x-request-id"]
    assert b"Traceback" not in body
    assert b"SELECT" not in body
    if status == 401:
        assert headers["www-authenticate"].startswith("Bearer")
    if status in (429, 503):
        assert int(headers["retry-after"]) >= 1
    return problem


def new_name() -> str:
    return "u" + secrets.token_hex(8)


def register(service: Server, **changes: object) -> requests.Response:
    """An account by default; `changes` make it a bad request."""
    body = {"username": new_name(), "password": PASSWORD} | changes
    return requests.post(service.url + "/auth/register", json=body, timeout=20)


def sign_in(service: Server, username: str, password: str = PASSWORD) -> requests.Response:
    form = {"username": username, "password": password}
    return requests.post(service.url + "/auth/token", data=form, timeout=20)


def account(service: Server) -> tuple[str, dict[str, Any]]:
    """The name and the tokens of a new account."""
    name = new_name()
    assert register(service, username=name).status_code == 201
    return name, sign_in(service, name).json()


def with_token(service: Server, token: str, path: str = "/protected", **options: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return requests.request(
        options.pop("method", "GET"), service.url + path, headers=headers, timeout=20, **options
    )


def assert_ends(service: Server, token: str) -> None:
    """The token is refused, at the latest 5 s from now."""
    ended = time.monotonic()
    while True:
        asked = time.monotonic()
        answer = with_token(service, token)
        if answer.status_code != 200:
            break
        assert asked < ended + 5, "the token still works"
        time.sleep(0.1)
    assert_problem(answer, 401)


def command(url: str, *arguments: str, stdin: str = "") -> str:
    """`flask pake …` on the service's database."""
    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "pake", "pake", *arguments],
        env=environment(DATABASE_URL=url, SECRET_KEY=KEY, FLASK_SKIP_DOTENV="1"),
        input=stdin,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


# ---- rows 1 to 7: bodies


@pytest.mark.fault(1)
@pytest.mark.parametrize("body", [b"{", b"", b'{"username": "\xff\xfe"}', b'"\\ud800"', b"nonsense"])
def test_what_is_not_json_is_400(service: Server, body: bytes) -> None:
    answer = requests.post(
        service.url + "/auth/register", data=body, headers={"Content-Type": "application/json"}, timeout=20
    )
    assert_problem(answer, 400)


def test_json_is_accepted(service: Server) -> None:
    assert register(service).status_code == 201


@pytest.mark.fault(2)
@pytest.mark.parametrize(
    ("path", "media_type", "body"),
    [
        ("/auth/register", "text/plain", '{"username": "somebody", "password": "quiet river stones"}'),
        ("/auth/register", "application/x-www-form-urlencoded", "username=somebody&password=x"),
        ("/auth/token", "application/json", '{"username": "somebody", "password": "x"}'),
        ("/auth/token", "multipart/form-data; boundary=x", "--x--"),
    ],
)
def test_the_wrong_media_type_is_415(service: Server, path: str, media_type: str, body: str) -> None:
    answer = requests.post(service.url + path, data=body, headers={"Content-Type": media_type}, timeout=20)
    assert_problem(answer, 415)


@pytest.mark.fault(3)
@pytest.mark.parametrize("field", ["username", "password", "full_name", "email"])
def test_a_nul_in_json_is_422(service: Server, field: str) -> None:
    assert_problem(register(service, **{field: "somebody\0@example.org and more"}), 422)


@pytest.mark.fault(3)
@pytest.mark.parametrize("field", ["username", "password"])
def test_a_nul_in_a_form_is_422(service: Server, field: str) -> None:
    form = {"username": "somebody", "password": PASSWORD} | {field: "a\0b"}
    assert_problem(requests.post(service.url + "/auth/token", data=form, timeout=20), 422)


@pytest.mark.fault(3)
@pytest.mark.parametrize(
    "target", ["/auth/me?x=%00", "/livez%00", "/%00", "/auth/generate-password?length=%00"]
)
def test_a_nul_in_the_address_is_422(service: Server, target: str) -> None:
    assert_problem(service.get(target), 422)


@pytest.mark.fault(4)
@pytest.mark.parametrize("length", [2**31, 2**63, 10**30])
def test_an_integer_beyond_any_column_is_422(service: Server, length: int) -> None:
    assert_problem(service.get(f"/auth/generate-password?length={length}"), 422)


@pytest.mark.fault(5)
def test_deep_nesting_is_400(service: Server) -> None:
    answer = requests.post(
        service.url + "/auth/register",
        data="[" * 30_000 + "]" * 30_000,
        headers={"Content-Type": "application/json"},
        timeout=20,
    )
    assert_problem(answer, 400)


@pytest.mark.fault(6)
def test_an_unknown_field_is_422_and_nothing_is_stored(service: Server) -> None:
    name = new_name()
    problem = assert_problem(register(service, username=name, role="admin"), 422)
    assert problem["errors"] == [{"location": "body", "field": "", "message": "Unknown field"}]
    assert_problem(sign_in(service, name), 401)


@pytest.mark.fault(7)
@pytest.mark.parametrize("value", ["true", '["quiet river stones"]', "5", "NaN", "1e400", "null", "{}"])
def test_a_value_of_another_type_is_422(service: Server, value: str) -> None:
    answer = requests.post(
        service.url + "/auth/register",
        data=f'{{"username": "{new_name()}", "password": {value}}}',
        headers={"Content-Type": "application/json"},
        timeout=20,
    )
    problem = assert_problem(answer, 422)
    assert {error["field"] for error in problem["errors"]} == {"password"}


def test_a_rejected_value_is_not_repeated(service: Server) -> None:
    answer = register(service, username="<CANARY>", email="CANARY", CANARY="CANARY")
    assert_problem(answer, 422)
    assert "CANARY" not in answer.text


# ---- rows 8 to 13: the protocol


@pytest.mark.fault(8)
def test_a_body_over_the_limit_is_413(service: Server) -> None:
    answer = send(
        service, post("/auth/register", "Content-Type: application/json\r\nContent-Length: 100001\r\n")
    )
    assert_problem(answer, 413)


@pytest.mark.fault(9)
def test_a_chunked_body_over_the_limit_is_413(service: Server) -> None:
    form = b"username=somebody&password=" + b"x" * 120_000
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(form), form)
    headers = "Content-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n"
    assert_problem(send(service, post("/auth/token", headers, chunks)), 413)


def test_a_chunked_body_below_the_limit_is_served(service: Server) -> None:
    name, _ = account(service)
    form = f"username={name}&password=quiet+river+stones".encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in form) + b"0\r\n\r\n"
    headers = "Content-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n"
    assert send(service, post("/auth/token", headers, chunks)).status == 200


@pytest.mark.fault(10)
@pytest.mark.parametrize("framing", ["Content-Length: 500", "Transfer-Encoding: chunked"])
def test_a_cut_body_is_400_and_nothing_is_done(service: Server, framing: str) -> None:
    name = new_name()
    body = json.dumps({"username": name, "password": PASSWORD}).encode()
    if "chunked" in framing:
        body = b"%x\r\n%s\r\n" % (len(body), body)
    headers = f"Content-Type: application/json\r\n{framing}\r\n"
    assert_problem(send(service, post("/auth/register", headers, body), half_close=True), 400)
    assert_problem(sign_in(service, name), 401)


@pytest.mark.fault(11)
@pytest.mark.parametrize(
    "headers",
    [
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length : 3\r\n",
        "Content-Length: +3\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    ],
)
def test_ambiguous_framing_is_400_and_closes(service: Server, headers: str) -> None:
    answer = send(service, post("/auth/register", "Content-Type: application/json\r\n" + headers, b"abc"))
    assert_problem(answer, 400)
    assert answer.closed


@pytest.mark.parametrize(
    ("request_line", "header", "status"),
    [
        ("GET /SENTINEL HTTP/9.9", "", 400),
        ("GET /SENTINEL", "", 400),
        ("SENTINEL(/) / HTTP/1.1", "", 400),
        ("GET / HTTP/1.1", "SENTINEL in the name: 1", 400),
        ("GET / HTTP/1.1", "SENTINEL: a\0b", 400),
        ("GET /SENTINEL" + "x" * 5000 + " HTTP/1.1", "", 414),
        ("GET / HTTP/1.1", "SENTINEL: " + "x" * 9000, 431),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_request_is_refused_as_a_problem_and_not_repeated(
    service: Server, request_line: str, header: str, status: int
) -> None:
    sent = f"{request_line}\r\nHost: localhost\r\n{header}\r\n\r\n".encode()
    answer = send(service, sent)
    problem = assert_problem(answer, status)
    assert b"SENTINEL" not in answer.body
    assert answer.closed
    assert problem["instance"] in service.log


@pytest.mark.fault(12)
@pytest.mark.parametrize(
    "host",
    [
        "",
        "Host: evil.example\r\n",
        "Host:\r\n",
        "Host: localhost@evil.example\r\n",
        "Host: localhost.evil.example\r\n",
    ],
)
def test_a_foreign_host_is_400(service: Server, host: str) -> None:
    assert_problem(send(service, f"GET /livez HTTP/1.1\r\n{host}\r\n".encode()), 400)


@pytest.mark.parametrize("host", ["localhost", "LocalHost:8000", "127.0.0.1:80", "[::1]:8000"])
def test_the_own_host_is_served(service: Server, host: str) -> None:
    assert send(service, f"GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()).status == 200


@pytest.mark.fault(13)
@pytest.mark.parametrize("path", ["/nowhere", "/..%2f..%2fetc/passwd", "/auth/../setup.cfg", "/livez/"])
def test_an_unknown_path_is_404(service: Server, path: str) -> None:
    assert_problem(send(service, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()), 404)


@pytest.mark.fault(13)
def test_a_wrong_method_is_405_and_names_the_right_ones(service: Server) -> None:
    answer = requests.delete(service.url + "/auth/me", timeout=20)
    assert_problem(answer, 405)
    assert "GET" in answer.headers["Allow"]


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


def test_a_request_id_is_taken_over_when_it_is_plain(service: Server) -> None:
    plain = service.get("/livez", headers={"X-Request-ID": "trace-4711"})
    assert plain.headers["X-Request-ID"] == "trace-4711"
    odd = service.get("/livez", headers={"X-Request-ID": "<script>alert(1)</script>"})
    assert "script" not in odd.headers["X-Request-ID"]
