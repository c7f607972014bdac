"""Bearer tokens: issued at sign-in, rotated on refresh, checked with one statement at most.

Every token belongs to a family, which begins with a sign-in. A family ends when its user signs out, changes
the password or is disabled, and when one of its used refresh tokens comes back: then somebody else has a copy
(RFC 9700 section 4.14.2). Answers follow RFC 6750.
"""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import wraps
from typing import Any, NamedTuple, TypeVar, cast

import jwt as pyjwt
from flask import Flask, Response, current_app, g, request
from flask_jwt_extended import (
    create_access_token,
    create_refresh_token,
    get_jwt,
    verify_jwt_in_request,
)
from sqlalchemy import ARRAY, String, any_, bindparam, func, insert, select, update

from pake.audit import audit
from pake.auth.keys import Keys
from pake.auth.memory import Account, Accounts, Claims, Verified
from pake.auth.models import Role, TokenFamily, User
from pake.config import Settings
from pake.database import autocommit
from pake.errors import Problem, answer
from pake.extensions import db, jwt, settings

ALGORITHM = "HS256"
ISSUER = "pake"
_REQUIRED = {"sub": r"[1-9]\d{0,9}", "jti": r"[0-9a-f-]{36}", "type": "access|refresh", "fam": "[0-9a-f]{32}"}
"""Claims without which a token is refused, and what they look like; `exp` and `iss` besides."""

_HEADER = re.compile(r"(?i:bearer) +[A-Za-z0-9._~+/-]{1,4096}=*")
"""RFC 6750 section 2.1."""

_REVOKED = "The token has been revoked"


class TokenPair(NamedTuple):
    """What a sign-in and a refresh give."""

    access_token: str
    refresh_token: str


def init_app(app: Flask, options: Settings) -> None:
    """Bind Flask-JWT-Extended to the app: one algorithm, one issuer, tokens in one header only."""
    keys = Keys.of(options)
    app.extensions["pake_keys"] = keys
    app.config.update(
        JWT_SECRET_KEY=keys.by_id[keys.current],
        JWT_ALGORITHM=ALGORITHM,
        JWT_DECODE_ALGORITHMS=[ALGORITHM],
        JWT_ENCODE_ISSUER=ISSUER,
        JWT_DECODE_ISSUER=ISSUER,
        JWT_DECODE_LEEWAY=options.token_leeway_seconds,
        JWT_TOKEN_LOCATION=["headers"],
        JWT_COOKIE_CSRF_PROTECT=False,
        JWT_ACCESS_TOKEN_EXPIRES=timedelta(minutes=options.access_token_minutes),
        JWT_REFRESH_TOKEN_EXPIRES=timedelta(days=options.refresh_token_days),
    )
    app.extensions["pake_accounts"] = Accounts(options.token_memory_seconds)
    app.extensions["pake_verified"] = Verified()
    jwt.init_app(app)


# ---- issuing


def open_family(user_id: int) -> TokenPair:
    """Begin a family with fresh tokens. Commits: one statement."""
    family_id, refresh_jti = secrets.token_hex(16), str(uuid.uuid4())
    family = insert(TokenFamily).values(
        id=family_id, user_id=user_id, refresh_jti=refresh_jti, expires_at=_family_end()
    )
    with autocommit() as connection:
        connection.execute(family)
    return _pair(user_id, family_id, refresh_jti, fresh=True)


def rotate() -> TokenPair:
    """New tokens for the refresh token of this request, which is used up by that.

    Raises Problem 401 when it has been used before, and revokes its family. Commits.
    """
    account, claims = current_account(), get_jwt()
    refresh_jti = str(uuid.uuid4())
    rotated = db.session.scalar(
        update(TokenFamily)
        .where(TokenFamily.id == account.family_id, TokenFamily.refresh_jti == claims["jti"])
        .values(refresh_jti=refresh_jti, expires_at=_family_end())
        .returning(TokenFamily.id)
    )
    if rotated is None:
        revoke(account.family_id)
        db.session.commit()
        audit(
            "refresh token replayed: family revoked",
            refused=True,
            user_id=account.id,
            family=account.family_id[:8],
        )
        raise unauthorized("invalid_token", "The token has been used before")
    db.session.commit()
    return _pair(account.id, account.family_id, refresh_jti, fresh=False)


def revoke(family_id: str) -> None:
    """End a family. The caller commits."""
    db.session.execute(update(TokenFamily).where(TokenFamily.id == family_id).values(revoked_at=func.now()))
    current_app.extensions["pake_accounts"].forget(family_id)


def _family_end() -> Any:
    return func.now() + timedelta(days=settings.refresh_token_days)


def _pair(user_id: int, family_id: str, refresh_jti: str, *, fresh: bool) -> TokenPair:
    subject, header = str(user_id), {"kid": current_app.extensions["pake_keys"].current}
    return TokenPair(
        create_access_token(
            subject, fresh=fresh, additional_claims={"fam": family_id}, additional_headers=header
        ),
        create_refresh_token(
            subject, additional_claims={"fam": family_id, "jti": refresh_jti}, additional_headers=header
        ),
    )


# ---- checking

View = TypeVar("View", bound=Callable[..., Any])


def bearer(*, role: Role | None = None, fresh: bool = False, refresh: bool = False) -> Callable[[View], View]:
    """Ask for a token. Put it right below the route, so that nothing else is looked at before.

    `role`: 403 for other accounts. `fresh`: a token from a sign-in, not from a refresh. `refresh`: a refresh
    token instead of an access token.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            token = _token(request.headers.get("Authorization", ""))
            g.accept_remembered = not (fresh or refresh)
            if not (g.accept_remembered and _seen_before(token)):
                try:
                    verify_jwt_in_request(fresh=fresh, refresh=refresh)
                except RecursionError:  # nested beyond the standard library's JSON parser
                    raise unauthorized("invalid_token", "The token is malformed") from None
                if not refresh:
                    _remember(token, get_jwt())
            if role is not None and current_account().role != role:
                audit("role refused", refused=True, user_id=current_account().id, wanted=role)
                raise Problem(
                    403,
                    f"This needs the role {role}.",
                    headers={"WWW-Authenticate": _challenge("insufficient_scope", scope=role)},
                )
            return view(*args, **kwargs)

        guarded.bearer_role = role  # type: ignore[attr-defined]
        return cast(View, guarded)

    return decorate


def _token(header: str) -> str:
    """The bearer token. Raise Problem 401 for none; the library fails on some such headers (`, ,`)."""
    if header[:6].lower() != "bearer":
        raise unauthorized()
    if not _HEADER.fullmatch(header):
        raise unauthorized("invalid_token", "The token is malformed")
    # RFC 9110 section 11.1 compares schemes without case, the library does not.
    request.environ["HTTP_AUTHORIZATION"] = f"Bearer{header[6:]}"
    return header[6:].lstrip()


def _seen_before(token: str) -> bool:
    """Whether this token was found right before; then only what may have changed since is looked at.

    Raises Problem 401 when its family has ended.
    """
    claims: Claims | None = current_app.extensions["pake_verified"].get(token)
    if claims is None:
        return False
    g.account = _find_account(claims.user_id, claims.family_id)
    if g.account is None:
        raise unauthorized("invalid_token", _REVOKED)
    return True


def _remember(token: str, claims: dict[str, Any]) -> None:
    known = Claims(int(claims["sub"]), claims["fam"], claims["exp"])
    current_app.extensions["pake_verified"].keep(token, known)


def current_account() -> Account:
    """Who is asking; only below `bearer`."""
    return cast(Account, g.account)


_ACCOUNTS = (
    select(User.id, User.username, User.email, User.full_name, User.role, TokenFamily.id.label("family_id"))
    .join(TokenFamily, TokenFamily.user_id == User.id)
    .where(
        TokenFamily.id == any_(bindparam("families", type_=ARRAY(String))),
        TokenFamily.revoked_at.is_(None),
        TokenFamily.created_at >= User.tokens_valid_after,
        User.disabled.is_(False),
    )
)


def _find_account(user_id: int, family_id: str) -> Account | None:
    """The account of a token, unless its family has ended. One statement at most, and mostly none."""
    accounts: Accounts = current_app.extensions["pake_accounts"]
    account = accounts.get(family_id) if g.accept_remembered else None
    others = accounts.due()
    if account is None or others:
        asked = accounts.clock()
        found = _ask({family_id, *others})
        accounts.renew(asked, others, found)
        account = found.get(family_id)
        if account is None:
            accounts.forget(family_id)
        else:
            accounts.keep(asked, account)
    return account if account and account.id == user_id else None


def _ask(families: Iterable[str]) -> dict[str, Account]:
    """The accounts of those families that have not ended. One statement."""
    with autocommit() as connection:
        rows = connection.execute(_ACCOUNTS, {"families": list(families)})
        return {row.family_id: Account(*row) for row in rows}


def unauthorized(error: str | None = None, description: str | None = None) -> Problem:
    """A 401 with its challenge (RFC 6750 section 3). No error code when no token was sent (section 3.1)."""
    return Problem(
        401,
        f"{description}." if description else "A bearer token is needed.",
        headers={"WWW-Authenticate": _challenge(error, error_description=description)},
    )


def _challenge(error: str | None, **attributes: str | None) -> str:
    given = {"realm": "pake", "error": error, **attributes}
    return "Bearer " + ", ".join(f'{name}="{value}"' for name, value in given.items() if value)


# ---- Flask-JWT-Extended's hooks, each of them


@jwt.decode_key_loader
def _key(header: dict[str, Any], claims: dict[str, Any]) -> str:
    """Before the signature is checked: the library would accept a token without these claims."""
    for name, pattern in _REQUIRED.items():
        if not isinstance(value := claims.get(name), str) or not re.fullmatch(pattern, value):
            raise pyjwt.MissingRequiredClaimError(name)
    for name in ("exp", "iss"):
        if name not in claims:
            raise pyjwt.MissingRequiredClaimError(name)
    keys: Keys = current_app.extensions["pake_keys"]
    key = keys.by_id.get(header.get("kid", keys.current))  # a token without one is older than key ids
    if key is None:
        raise pyjwt.InvalidTokenError("signed by a key that is not known here")
    return key


@jwt.token_in_blocklist_loader
def _ended(_header: dict[str, Any], claims: dict[str, Any]) -> bool:
    g.account = _find_account(int(claims["sub"]), claims["fam"])
    return g.account is None


@jwt.user_lookup_loader
def _account(_header: dict[str, Any], _claims: dict[str, Any]) -> Account | None:
    return cast("Account | None", g.account)


@jwt.unauthorized_loader
def _no_token(_reason: str) -> Response:
    return answer(unauthorized())


@jwt.invalid_token_loader
def _invalid(_reason: str) -> Response:
    return answer(unauthorized("invalid_token", "The token is not valid here"))


@jwt.expired_token_loader
def _expired(_header: dict[str, Any], _claims: dict[str, Any]) -> Response:
    return answer(unauthorized("invalid_token", "The token has expired"))


@jwt.revoked_token_loader
@jwt.user_lookup_error_loader
@jwt.token_verification_failed_loader
def _revoked(_header: dict[str, Any], _claims: dict[str, Any]) -> Response:
    return answer(unauthorized("invalid_token", _REVOKED))


@jwt.needs_fresh_token_loader
def _not_fresh(_header: dict[str, Any], _claims: dict[str, Any]) -> Response:
    # RFC 9470 section 3
    return answer(unauthorized("insufficient_user_authentication", "Sign in again for this"))
