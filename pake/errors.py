"""Every error answer of the service: RFC 9457 problem details as `application/problem+json`.

Views raise `Problem`; what libraries raise is translated here. An answer never holds a stack trace, SQL or
the rejected input; the log does hold the stack trace, under the request id that the answer names.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import orjson
import structlog
from flask import Flask, Response, g, request
from flask.typing import ResponseReturnValue
from flask_limiter import RateLimitExceeded
from limits.errors import StorageError
from sqlalchemy import exc
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

from pake.extensions import limiter

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):  # noqa: N818 - RFC 9457's word
    """An error answer. Raise it anywhere below a view.

    `detail` is shown to the client; `fields` become further members of the body (RFC 9457 section 3.2).
    """

    def __init__(
        self,
        status: int,
        detail: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail or HTTPStatus(status).description
        self.headers = dict(headers or {})
        self.fields = fields


def body(problem: Problem, request_id: str) -> bytes:
    """The problem details as JSON."""
    return orjson.dumps(
        {
            "type": "about:blank",
            "title": HTTPStatus(problem.status).phrase,
            "status": problem.status,
            "detail": problem.detail,
            "instance": request_id,
            **problem.fields,
        }
    )


def answer(problem: Problem) -> Response:
    """The problem as a response to the current request."""
    if problem.status == 503:
        problem.headers.setdefault("Retry-After", "1")
    return Response(body(problem, g.request_id), problem.status, problem.headers, mimetype=MEDIA_TYPE)


def init_app(app: Flask) -> None:
    """Answer every exception with a problem."""
    app.register_error_handler(Problem, answer)
    app.register_error_handler(RateLimitExceeded, _limited)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(exc.SQLAlchemyError, _database)
    app.register_error_handler(Exception, _unexpected)


def _limited(error: RateLimitExceeded) -> Response:
    seconds: float = error.limit.limit.get_expiry() if error.limit else 1
    with suppress(StorageError):  # Redis went away between the count and this question
        if limiter.current_limit:
            seconds = limiter.current_limit.reset_at - time.time()
    return answer(
        Problem(
            429,
            "Too many requests from this address.",
            headers={"Retry-After": str(max(1, math.ceil(seconds)))},
        )
    )


def _http(error: HTTPException) -> ResponseReturnValue:
    if isinstance(error, RequestRedirect) or error.code is None:
        return error.get_response()
    headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    # Only the class's own words: an instance's description may hold what the client sent.
    return answer(Problem(error.code, type(error).description, headers=headers))


def _database(error: Exception) -> Response:
    if isinstance(error, exc.IntegrityError):
        log.warning("constraint violated", kind=type(error.orig).__name__)
        return answer(Problem(409, "This conflicts with what is stored."))
    if isinstance(error, exc.DataError):
        log.warning("value out of range", kind=type(error.orig).__name__)
        return answer(Problem(422, "A value is outside what can be stored."))
    if isinstance(error, exc.OperationalError | exc.InterfaceError | exc.TimeoutError):
        cause = getattr(error, "orig", None) or error
        log.error("database unavailable", kind=type(cause).__name__, route=str(request.url_rule))
        return answer(Problem(503, "The database does not answer; try again."))
    return _unexpected(error)


def _unexpected(error: Exception) -> Response:
    log.error("unhandled exception", exc_info=error)
    return answer(Problem(500, "Something went wrong here; the log says what, under this request id."))
