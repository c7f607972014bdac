"""What every request passes before Flask sees it: an id, a known Host, a body that is what it says it is.

Gunicorn hands over bodies without telling whether they are whole, and Werkzeug silently cuts those that are
too long, so a body is read here, at most `MAX_CONTENT_LENGTH` bytes of it, and its length is compared.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Iterable
from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from gunicorn.http.errors import ParseException

from pake.errors import MEDIA_TYPE, Problem, body
from pake.headers import missing

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

REQUEST_ID = "pake.request_id"
_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?")


class Guard:
    """WSGI middleware in front of the app. `hosts`: names a request may be for; `*` allows all."""

    def __init__(self, app: WSGIApplication, hosts: Collection[str], max_content_length: int) -> None:
        self.app = app
        self.hosts = frozenset(host.lower() for host in hosts)
        self.domains = tuple(host for host in self.hosts if host.startswith("."))
        self.limit = max_content_length

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        given = environ.get("HTTP_X_REQUEST_ID", "")
        request_id = given if _ID.fullmatch(given) else f"{random.getrandbits(128):032x}"
        environ[REQUEST_ID] = request_id
        secure = environ["wsgi.url_scheme"] == "https"

        def start(
            status: str, headers: list[tuple[str, str]], exc_info: Any = None
        ) -> Callable[[bytes], object]:
            added = [*missing(headers, secure=secure), ("X-Request-ID", request_id)]
            return start_response(status, headers + added, exc_info)

        try:
            self.check_address(environ)
            self.take_body(environ)
        except Problem as problem:
            content = body(problem, request_id)
            status = f"{problem.status} {HTTPStatus(problem.status).phrase}"
            start(status, [("Content-Type", MEDIA_TYPE), ("Content-Length", str(len(content)))])
            return [content]
        return self.app(environ, start)

    def check_address(self, environ: WSGIEnvironment) -> None:
        """Raise Problem 400 unless the request is for this service, 422 for a NUL that no column can hold."""
        if "\0" in environ["PATH_INFO"] or b"\0" in unquote_to_bytes(environ["QUERY_STRING"]):
            raise Problem(422, "The address contains a NUL character.")
        if "*" in self.hosts:
            return
        match = _HOST.fullmatch(environ.get("HTTP_HOST", "").lower())
        name = match[1] if match else ""
        if not name or (name not in self.hosts and not f".{name}".endswith(self.domains or ("\0",))):
            raise Problem(
                400, "The Host of this request is not served here; ALLOWED_HOSTS names those that are."
            )

    def take_body(self, environ: WSGIEnvironment) -> None:
        """Replace the input by its bytes. Raise Problem 400 for a cut one, 413 for one that is too long."""
        chunked = "HTTP_TRANSFER_ENCODING" in environ
        announced = int(environ.get("CONTENT_LENGTH") or 0)
        if announced > self.limit:
            raise Problem(413, f"The body may have {self.limit} bytes.")
        if not chunked and not announced:
            environ["wsgi.input"] = BytesIO()
            return
        try:
            content = environ["wsgi.input"].read(self.limit + 1 if chunked else announced)
        except (OSError, ParseException):  # the connection or a chunk ended, or is no chunk at all
            raise Problem(400, "The body ended too early.") from None
        if chunked and len(content) > self.limit:
            raise Problem(413, f"The body may have {self.limit} bytes.")
        if not chunked and len(content) < announced:
            raise Problem(400, "The body is shorter than its Content-Length.")
        environ["wsgi.input"] = BytesIO(content)
        environ["CONTENT_LENGTH"] = str(len(content))
        environ.pop("HTTP_TRANSFER_ENCODING", None)
