"""Who may see the console: those a function of the app lets in, who has the token, or, while debugging, this
machine. For everybody else there is nothing here: 404 on every address.

    app.config["PROFILE_CONSOLE_ACCESS"] = lambda: current_user.is_admin
    FLASK_PROFILE_CONSOLE_TOKEN=<secret>        without it, one is made and kept beside the store, mode 0600

The token is sent by the sign-in form, in a body, so that it comes into no log and no history; what the
browser keeps is a signed date in a cookie for this app only (HttpOnly, SameSite=Strict). Tools send it as
`X-Profile-Token`.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ipaddress
import logging
import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from flask import Flask, Request

from profilers import options
from profilers.server_timing import HEADER, SHORTEST
from profilers.storage.database import make_private

log = logging.getLogger("profilers")

COOKIE = "flask_profilers_console"
SIGNED_IN_SECONDS = 12 * 3600
FILE = "console-token"
TOLD_SECONDS = 5.0
"""Workers that start together tell the address once."""
_FORWARDED = ("X-Forwarded-For", "Forwarded", "X-Real-IP")


class Access:
    """The rule of one app."""

    def __init__(self, app: Flask, token: str, asked: Callable[[], bool] | None) -> None:
        self._app = app
        self._token = token.encode()
        self._asked = asked
        self._failed = False

    def allows(self, request: Request) -> bool:
        """Whether this request may see the console; within the context of a request of the app."""
        return self.has_token(request) or self._app_allows() or (self._app.debug and is_local(request))

    def has_token(self, request: Request) -> bool:
        """Whether the request carries the token in its header, or the cookie that was given for it."""
        sent = request.headers.get(HEADER)
        return (sent is not None and self.is_token(sent)) or self._signed_in(request)

    def is_token(self, sent: str) -> bool:
        """Compared in a time that does not tell how much of it was right."""
        return hmac.compare_digest(sent.strip().encode(errors="replace"), self._token)

    def cookie(self) -> str:
        """What a browser that has sent the token is given."""
        until = str(int(time.time()) + SIGNED_IN_SECONDS)
        return f"{until}.{self._signature(until)}"

    def _signed_in(self, request: Request) -> bool:
        until, _, signature = request.cookies.get(COOKIE, "").partition(".")
        right = hmac.compare_digest(signature.encode(errors="replace"), self._signature(until).encode())
        return right and int(until) > time.time()

    def _signature(self, until: str) -> str:
        return hmac.new(self._token, b"console " + until.encode(errors="replace"), hashlib.sha256).hexdigest()

    def _app_allows(self) -> bool:
        if self._asked is None:
            return False
        try:
            return self._asked() is True
        except Exception:
            if not self._failed:
                log.exception("PROFILE_CONSOLE_ACCESS failed; the console stays closed")
            self._failed = True
            return False


def is_local(request: Request) -> bool:
    """Whether a person at this machine asks: no proxy between, and not another site's name for it."""
    if any(header in request.headers for header in _FORWARDED):
        return False
    name = urlsplit(f"//{request.host}").hostname or ""
    return _is_loopback(request.remote_addr or "") and (name == "localhost" or _is_loopback(name))


def is_same_origin(request: Request) -> bool:
    """Whether a request that changes something comes from a page of this app, or from no browser at all.

    `Sec-Fetch-Site` (W3C Fetch Metadata) where the browser sends it, else `Origin` (RFC 6454).
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("Origin")
    if origin is None:
        return HEADER in request.headers
    return urlsplit(origin).netloc == request.host


def create(app: Flask, folder: Path) -> Access:
    """The rule that an app's settings give; `folder` is where the token lies when no setting names one.

    Raises:
        ConfigError: the token is too short, or the function is none.
        OSError: the token cannot be kept.
    """
    asked = app.config.get("PROFILE_CONSOLE_ACCESS")
    if asked is not None and not callable(asked):
        raise options.ConfigError(
            f"PROFILE_CONSOLE_ACCESS={asked!r}: expected a function that returns a bool"
        )
    token = str(options.setting("PROFILE_CONSOLE_TOKEN", app.config) or "")
    if token and len(token) < SHORTEST:
        raise options.ConfigError(
            f"PROFILE_CONSOLE_TOKEN has {len(token)} characters: expected {SHORTEST} or more"
        )
    return Access(app, token or kept_token(folder / FILE), asked)


def kept_token(path: Path) -> str:
    """The token in a file of mode 0600, which the first worker writes and all read; told at the start.

    A terminal is told the token, anything else (a log) where it lies.

    Raises:
        ConfigError: others may read the file, or there is no token in it.
        OSError: it can be neither read nor made.
    """
    if new := not path.exists():
        # Linked into place when it is whole: of several workers that start at once, one wins.
        aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        make_private(aside)
        try:
            aside.write_text(secrets.token_urlsafe(32))
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
        finally:
            aside.unlink()
    found, token = path.stat(), path.read_text().strip()
    if sys.platform != "win32" and found.st_mode & 0o077:
        raise options.ConfigError(f"{path}: others may read the console's token; chmod 600 it, or delete it")
    if len(token) < SHORTEST:
        raise options.ConfigError(
            f"{path}: expected a token of {SHORTEST} characters or more; delete the file"
        )
    if new or time.time() - found.st_mtime > TOLD_SECONDS:
        os.utime(path)
        said = token if sys.stderr.isatty() else f"in {path}"
        print(f"profilers: the console is at /__profilers__/, its token: {said}", file=sys.stderr)
    return token


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
