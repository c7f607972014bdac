"""What all request and response models share: strict types, known fields only, text PostgreSQL can store.

Views declare models with APIFlask's `input` and `output`; `StrictAdapter` is how they are applied. A body is
parsed once, by pydantic's own JSON parser, which bounds nesting and knows that "5" is not a number.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

from apiflask.schema_adapters import registry
from apiflask.schema_adapters.pydantic import PydanticAdapter
from flask import Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from pake.errors import Problem


def without_nul(value: str) -> str:
    """The text itself. Raises ValueError when it holds a NUL, which PostgreSQL cannot store."""
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


Text = Annotated[str, AfterValidator(without_nul), Field(json_schema_extra={"pattern": r"^[^\u0000]*$"})]
"""A string that PostgreSQL can store. Add limits: `Annotated[Text, Field(max_length=80)]`.

A pattern belongs on a plain `str`: on this it would be missing from the OpenAPI document.
"""

Int4 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
"""An integer that fits an `integer` column."""

Int8 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
"""An integer that fits a `bigint` column."""


class In(BaseModel):
    """Base of what clients send."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class Out(BaseModel):
    """Base of what clients get; reads attributes of rows as well as keys."""

    model_config = ConfigDict(from_attributes=True)


Item = TypeVar("Item")


class Page(Out, Generic[Item]):
    """One page of a collection."""

    items: list[Item]
    next_cursor: str | None = Field(None, description="Pass as `cursor` for the next page; null on the last.")


class StrictAdapter(PydanticAdapter):
    """Validates a request by a model: 400 for no JSON, 415 for another media type, 422 for a wrong value."""

    def validate_input(self, request: Request, location: str, **kwargs: Any) -> BaseModel:
        """The model's instance. Raises Problem."""
        try:
            if location == "json":
                _expect(request, "application/json")
                return self.model_class.model_validate_json(request.get_data())
            if location == "form":
                _expect(request, "application/x-www-form-urlencoded")
                return self.model_class.model_validate_strings(_single(request.form))
            if location == "query":
                return self.model_class.model_validate_strings(_single(request.args))
        except ValidationError as error:
            raise self.problem(error, location) from None
        raise ValueError(f"no such location here: {location}")

    def get_openapi_schema(self, **kwargs: Any) -> dict[str, Any]:
        """The model's JSON Schema. `pake.system.openapi` puts nested models under the names it refers to."""
        schema: dict[str, Any] = self.model_class.model_json_schema(
            ref_template="#/components/schemas/{model}"
        )
        return schema

    def problem(self, error: ValidationError, location: str) -> Problem:
        """What to tell the client: where and why, never what was sent."""
        entries = error.errors(include_url=False, include_input=False, include_context=False)
        if entries[0]["type"] == "json_invalid":
            return Problem(400, "The body is not valid JSON.")
        names = _property_names(self.model_class.model_json_schema())
        return Problem(
            422,
            "The request holds a value that is not allowed.",
            errors=[
                {
                    "location": "query" if location == "query" else "body",
                    "field": ".".join(
                        str(part) for part in entry["loc"] if part in names or isinstance(part, int)
                    ),
                    "message": _message(entry["type"], entry["msg"]),
                }
                for entry in entries[:20]
            ],
        )


registry.register("pydantic", StrictAdapter)


def _expect(request: Request, media_type: str) -> None:
    if request.mimetype != media_type:
        raise Problem(415, f"Send the body as {media_type}.")


def _single(values: Any) -> dict[str, str]:
    """A form or query string in which each name occurs once."""
    if any(len(found) > 1 for found in values.listvalues()):
        raise Problem(422, "A parameter is given more than once.")
    return dict(values.items())


def _property_names(schema: Any) -> set[str]:
    """Names of all properties, at any depth: what an error may name without repeating the client's words."""
    if isinstance(schema, list):
        return set().union(*map(_property_names, schema))
    if not isinstance(schema, dict):
        return set()
    own = set(schema["properties"]) if isinstance(schema.get("properties"), dict) else set()
    return own.union(*map(_property_names, schema.values()))


def _message(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "Unknown field"
    if kind.endswith("_parsing"):  # such messages quote the input
        return f"Input should be a valid {kind.removesuffix('_parsing')}"
    return message.removeprefix("Value error, ")
