"""What accounts, tokens and passwords look like on the wire."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from pake.auth.models import Role
from pake.auth.passwords import MAXIMUM_BYTES, MINIMUM_LENGTH
from pake.schemas import In, Out, Text


def _storable(value: SecretStr) -> SecretStr:
    password = value.get_secret_value()
    if "\0" in password:
        raise ValueError("must not contain a NUL character")
    if len(password.encode()) > MAXIMUM_BYTES:
        raise ValueError(f"must have at most {MAXIMUM_BYTES} bytes")
    return value


Password = Annotated[SecretStr, AfterValidator(_storable), Field(min_length=1, max_length=MAXIMUM_BYTES)]
"""Never shown by a log or a repr."""

NewPassword = Annotated[
    Password, Field(description=f"At least {MINIMUM_LENGTH} characters, none of the common ones.")
]
Username = Annotated[
    str,
    Field(min_length=3, max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$", description="In lower case."),
]
Email = Annotated[str, Field(max_length=254, pattern=r"^[^@\s\x00]+@[^@\s.\x00]+(\.[^@\s.\x00]+)+$")]
Name = Annotated[Text, Field(min_length=1, max_length=200)]


class SignIn(In):
    """The form of OAuth2's password grant, for this service's own clients."""

    username: Annotated[Text, Field(min_length=1, max_length=256)]
    password: Password
    grant_type: Literal["password"] = "password"  # RFC 6749 section 4.3.2
    scope: Annotated[Text, Field(max_length=256, description="Accepted and not used.")] = ""


class Tokens(Out):
    """RFC 6749 section 5.1."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - RFC 6750
    expires_in: int = Field(description="Seconds until the access token expires.")
    refresh_token: str


class Registration(In):
    """A new account."""

    username: Username
    password: NewPassword
    email: Email | None = None
    full_name: Name | None = None


class PasswordChange(In):
    """A new password for one's own account."""

    current_password: Password
    new_password: NewPassword


class AccountOut(Out):
    """An account as its owner sees it."""

    username: str
    email: str | None
    full_name: str | None
    role: Role


class GenerateQuery(In):
    """How long a generated password is."""

    length: Annotated[int, Field(ge=MINIMUM_LENGTH, le=128)] = 20


class GeneratedPassword(Out):
    """A password that nobody has seen before."""

    password: str
    length: int


class PasswordToJudge(In):
    """A password, and the name it would be for."""

    password: Password
    username: Annotated[Text, Field(max_length=64)] | None = None


class PasswordVerdict(Out):
    """What is to be said about a password."""

    is_valid: bool
    errors: list[str] = Field(description="The rules it breaks.")
    strength_score: int = Field(ge=0, le=4, description="zxcvbn's score: advice, not a rule.")
    suggestions: list[str]


class Greeting(Out):
    """Proof that the token is good."""

    message: str
    username: str
