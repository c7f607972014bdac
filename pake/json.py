"""JSON by orjson: fast, strict, and bounded in depth."""

from __future__ import annotations

from typing import Any

import orjson
from flask import Response
from flask.json.provider import JSONProvider


def json_response(data: Any) -> Response:
    """A response of plain data; moments as RFC 3339 with `Z`, as pydantic shows them."""
    return Response(orjson.dumps(data, option=orjson.OPT_UTC_Z), mimetype="application/json")


class OrjsonProvider(JSONProvider):
    """Flask's JSON, in and out."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """The JSON text of an object."""
        return orjson.dumps(obj).decode()

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """The object of a JSON text. Raises ValueError."""
        return orjson.loads(s)

    def response(self, *args: Any, **kwargs: Any) -> Response:
        """A JSON response, without the way over text."""
        content = orjson.dumps(self._prepare_response_obj(args, kwargs))
        return Response(content, mimetype="application/json")
