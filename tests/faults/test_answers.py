"""Bad requests over real HTTP: rows 1 to 13 of the fault table. The healthy twin stands beside each fault."""

from __future__ import annotations

import json

import pytest
import requests

from tests.faults.client import PASSWORD, account, assert_problem, new_name, post, register, send, sign_in
from tests.servers import Server

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


def test_a_request_id_is_taken_over_when_it_is_plain(service: Server) -> None:
    plain = service.get("/livez", headers={"X-Request-ID": "trace-4711"})
    assert plain.headers["X-Request-ID"] == "trace-4711"
    odd = service.get("/livez", headers={"X-Request-ID": "<script>alert(1)</script>"})
    assert "script" not in odd.headers["X-Request-ID"]
