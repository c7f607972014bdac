"""A request's bytes as they arrive, and when it is whole.

Only what tells where it ends is looked at (RFC 9112 sections 6 and 7.1). Gunicorn parses it, and says what is
wrong with it: what makes no sense here counts as whole, and Gunicorn finds no more than there is.
"""

from __future__ import annotations

import re

from pake.errors import Problem

MOST_HEAD = 65_536
"""Bytes of request line and header fields."""

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*(?=\r\n)", re.IGNORECASE)
_CODING = re.compile(rb"\r\ntransfer-encoding:[ \t]*([^\r]*)(?=\r\n)", re.IGNORECASE)
_BARE_LF = re.compile(rb"(?<!\r)\n")
_CONTINUE = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*\r\n", re.IGNORECASE)
_CHUNK = re.compile(rb"([0-9a-f]{1,15})[ \t]*(;.*)?", re.IGNORECASE | re.DOTALL)


class Arriving:
    """One request. `most_body`: bytes its body may have."""

    def __init__(self, most_body: int, begun: bytes = b"") -> None:
        self.most_body = most_body
        self.data = bytearray(begun)
        self.awaits_continue = False
        """Whether its client sends the body only when it is told to (RFC 9110 section 10.1.1)."""
        self._searched = 0
        self._head = 0
        self._length: int | None = None
        """Of the body; None for one in chunks."""
        self._chunk = 0
        """Where the next chunk begins."""
        self._chunks = 0
        """Bytes in the chunks before it."""

    @property
    def whole(self) -> bool:
        """Whether all of it is here. Raises Problem 431 or 413 as soon as it is known to be too long."""
        if not self._head and not self._find_head():
            return False
        if self._length is None:
            return self._chunks_are_whole()
        return len(self.data) >= self._head + self._length

    @property
    def ends_here(self) -> bool:
        """Whether it is known to be all that has arrived: what comes next is another request."""
        return self._length is not None and len(self.data) == self._head + self._length

    def _find_head(self) -> bool:
        end = self.data.find(b"\r\n\r\n", self._searched)
        if max(end, len(self.data) if end < 0 else 0) > MOST_HEAD:
            raise Problem(431, f"The head of a request may have {MOST_HEAD} bytes.")
        if end < 0:
            if _BARE_LF.search(self.data, self._searched):  # it will never end as it should
                self._head, self._length = len(self.data), 0
                return True
            self._searched = max(0, len(self.data) - 3)
            return False
        self._head = self._chunk = end + 4
        head = bytes(self.data[: end + 2])
        lengths, codings = _LENGTH.findall(head), _CODING.findall(head)
        if len(codings) == 1 and not lengths and codings[0].strip().lower() == b"chunked":
            self._length = None
        else:
            self._length = int(lengths[0]) if len(lengths) == 1 and not codings else 0
            self._check(self._length)
        self.awaits_continue = bool(_CONTINUE.search(head))
        return True

    def _chunks_are_whole(self) -> bool:
        while True:
            end = self.data.find(b"\r\n", self._chunk)
            if end < 0:
                return len(self.data) - self._chunk > MOST_HEAD
            match = _CHUNK.fullmatch(self.data, self._chunk, end)
            if not match:
                return True
            size = int(match[1], 16)
            begin = end + 2
            if not size:  # the last; trailers may follow
                ended = self.data.startswith(b"\r\n", begin) or self.data.find(b"\r\n\r\n", begin) >= 0
                return ended or len(self.data) - begin > MOST_HEAD
            self._check(self._chunks + size)
            if len(self.data) < begin + size + 2:
                return False
            self._chunks += size
            self._chunk = begin + size + 2

    def _check(self, length: int) -> None:
        if length > self.most_body:
            raise Problem(413, f"The body may have {self.most_body} bytes.")
