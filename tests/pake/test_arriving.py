"""When a request is whole: told at its last byte, whatever the pieces it comes in."""

from __future__ import annotations

import pytest

from pake.arriving import MOST_HEAD, Arriving
from pake.errors import Problem

LIMIT = 100


def post(headers: str, body: bytes) -> bytes:
    return f"POST /x HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode() + body


CHUNKED = "Transfer-Encoding: chunked\r\n"
WHOLE = {
    "no body": post("", b""),
    "length": post("Content-Length: 3\r\n", b"abc"),
    "any case": post("CONTENT-length:3 \r\n", b"abc"),
    "an end of a head in the body": post("Content-Length: 8\r\n", b"a\r\n\r\nbcd"),
    "chunks": post(CHUNKED, b"3\r\nabc\r\n1;a=b\r\nd\r\n0\r\n\r\n"),
    "an end of chunks in a chunk": post(CHUNKED, b"a\r\n\r\n0\r\n\r\nabc\r\n0\r\n\r\n"),
    "trailers": post(CHUNKED, b"3\r\nabc\r\n0\r\nDigest: x\r\n\r\n"),
    "as long as it may be": post("Content-Length: 100\r\n", b"x" * 100),
}


@pytest.mark.parametrize("sent", WHOLE.values(), ids=WHOLE.keys())
def test_a_request_is_whole_with_its_last_byte_and_not_before(sent: bytes) -> None:
    request = Arriving(LIMIT)
    for byte in sent[:-1]:
        request.data.append(byte)
        assert not request.whole
    request.data.append(sent[-1])
    assert request.whole
    assert Arriving(LIMIT, sent).whole
    assert Arriving(LIMIT, sent + b"GET / HTTP/1.1\r\n").whole


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: +3\r\n",
        "Content-Length : 3\r\n",
        "Transfer-Encoding: gzip\r\n",
    ],
)
def test_what_is_ambiguous_is_not_waited_for(headers: str) -> None:
    assert Arriving(LIMIT, post(headers, b"")).whole


@pytest.mark.parametrize("chunk", [b"-5\r\n", b"0x5\r\n", b"five\r\n", b"\r\n", b"f" * 20 + b"\r\n"])
def test_a_chunk_without_a_size_is_not_waited_for(chunk: bytes) -> None:
    assert Arriving(LIMIT, post(CHUNKED, chunk)).whole


def test_a_line_that_ends_without_a_carriage_return_is_not_waited_for() -> None:
    assert Arriving(LIMIT, b"GET / HTTP/1.1\nHost: localhost\n").whole


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (post("Content-Length: 101\r\n", b""), 413),
        (post(CHUNKED, b"65\r\n"), 413),
        (post(CHUNKED, b"32\r\n" + b"x" * 50 + b"\r\n33\r\n"), 413),
        (b"GET /" + b"x" * MOST_HEAD, 431),
        (post("x: " + "x" * MOST_HEAD + "\r\n", b""), 431),
    ],
)
def test_what_is_too_long_is_refused_as_soon_as_that_is_known(sent: bytes, status: int) -> None:
    with pytest.raises(Problem) as refused:
        assert Arriving(LIMIT, sent).whole
    assert refused.value.status == status


def test_whether_the_client_waits_to_be_told_to_go_on() -> None:
    waiting = Arriving(LIMIT, post("Expect: 100-continue\r\nContent-Length: 3\r\n", b""))
    assert not waiting.whole
    assert waiting.awaits_continue
    sending = Arriving(LIMIT, post("Content-Length: 3\r\n", b""))
    assert not sending.whole
    assert not sending.awaits_continue
