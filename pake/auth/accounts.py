"""Accounts: create one, check its password, change it.

Wrong passwords are counted in the database for each name, whether or not an account has it, and the work done
for an unknown name, a disabled account and a wrong password is the same.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from datetime import timedelta
from typing import Any

from flask import current_app
from sqlalchemy import ColumnElement, case, delete, func, insert, literal, or_, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError

from pake.audit import audit
from pake.auth.models import Role, SignInAttempts, TokenFamily, User
from pake.auth.passwords import hash_password, judge, verify_password
from pake.database import autocommit
from pake.errors import Problem
from pake.extensions import db, settings


def create(
    username: str,
    password: str,
    *,
    email: str | None = None,
    full_name: str | None = None,
    role: Role = "user",
) -> int:
    """Store a new account and return its id. Commits.

    Raises Problem 422 when the password breaks a rule, 409 when the name or the address is taken.
    """
    require_good_password(password, "password", username, email)
    values = {"email": email, "full_name": full_name, "role": role, "password_hash": hash_password(password)}
    try:
        user_id = db.session.execute(
            insert(User).values(username=username, **values).returning(User.id)
        ).scalar_one()
        db.session.commit()
    except IntegrityError:
        db.session.rollback()
        raise Problem(409, "An account with this username or e-mail address exists.") from None
    audit("account created", user_id=user_id, role=role)
    return user_id


def require_good_password(password: str, field: str, *context: str | None) -> None:
    """Raise Problem 422 when the password breaks a rule."""
    if errors := judge(password, *context).errors:
        raise Problem(
            422,
            "The password is not allowed.",
            errors=[{"location": "body", "field": field, "message": message} for message in errors],
        )


def authenticate(username: str, password: str) -> int | None:
    """The id of the account that this password opens, or None.

    Two statements, each a transaction of its own. Raises Problem 429 when the name is locked.
    """
    name = username.lower()
    digest = _digest(name)
    asked = select(literal(name).label("name"), literal(digest).label("digest")).subquery()
    statement = (
        select(User.id, User.password_hash, User.disabled, _seconds_locked().label("locked"))
        .select_from(asked)
        .outerjoin(User, User.username == asked.c.name)
        .outerjoin(SignInAttempts, SignInAttempts.name_digest == asked.c.digest)
    )
    with autocommit() as connection:  # given back: the hash takes longer than the statement
        row = connection.execute(statement).one()
    if row.locked:
        audit("sign-in refused: name locked", refused=True, name=digest[:12], user_id=row.id)
        raise _locked(row.locked)
    right = verify_password(password, row.password_hash)
    if right and not row.disabled:
        _forget_failures(digest)
        return int(row.id)
    _count_failure(digest)
    audit("sign-in refused", refused=True, name=digest[:12], user_id=row.id)
    return None


def set_password(user_id: int, password: str) -> None:
    """Store a new password; every token given out before becomes invalid. The caller commits."""
    db.session.execute(
        update(User)
        .where(User.id == user_id)
        .values(password_hash=hash_password(password), tokens_valid_after=func.clock_timestamp())
    )
    audit("password changed", user_id=user_id)


def disable(user_id: int, *, disabled: bool) -> None:
    """Shut an account out, or let it in again. Tokens given out before stay invalid. Commits."""
    db.session.execute(
        update(User)
        .where(User.id == user_id)
        .values(disabled=disabled, tokens_valid_after=func.clock_timestamp())
    )
    db.session.commit()
    audit("account disabled" if disabled else "account enabled", user_id=user_id)


def delete_account(user_id: int) -> None:
    """Delete an account with its tokens. Commits."""
    db.session.execute(delete(User).where(User.id == user_id))
    db.session.commit()
    audit("account deleted", user_id=user_id)


def prune() -> tuple[int, int]:
    """Delete token families and counted failures that no longer matter; how many of each. Commits."""
    families = db.session.execute(delete(TokenFamily).where(TokenFamily.expires_at < func.now()))
    attempts = db.session.execute(delete(SignInAttempts).where(~_recent()))
    db.session.commit()
    return families.rowcount, attempts.rowcount  # type: ignore[attr-defined]


# ---- wrong passwords in a row


def _digest(name: str) -> str:
    """Keyed, because what people mistype as their name is sometimes their password."""
    key = str(current_app.config["JWT_SECRET_KEY"]).encode()
    return hmac.new(key, name.encode(), hashlib.sha256).hexdigest()


def _lock() -> timedelta:
    return timedelta(seconds=settings.sign_in_lock_seconds)


def _recent() -> ColumnElement[bool]:
    return SignInAttempts.last_failure_at > func.now() - _lock()


def _seconds_locked() -> ColumnElement[Any]:
    """Seconds until the name is free again, null when it is."""
    remaining = func.extract("epoch", SignInAttempts.last_failure_at + _lock() - func.now())
    return case((SignInAttempts.failures >= settings.sign_in_attempts, case((_recent(), remaining))))


def _locked(seconds: float) -> Problem:
    return Problem(
        429,
        "Too many wrong passwords for this name.",
        headers={"Retry-After": str(max(1, math.ceil(seconds)))},
    )


def _count_failure(digest: str) -> None:
    row = postgresql.insert(SignInAttempts).values(name_digest=digest, failures=1, last_failure_at=func.now())
    counted = row.on_conflict_do_update(
        index_elements=[SignInAttempts.name_digest],
        set_={
            "failures": case((_recent(), SignInAttempts.failures + 1), else_=1),
            "last_failure_at": func.now(),
        },
    ).returning(SignInAttempts.failures)
    with autocommit() as connection:
        failures = connection.scalar(counted)
    if failures and failures > settings.sign_in_attempts:  # several at once got past the first look
        raise _locked(settings.sign_in_lock_seconds)


def _forget_failures(digest: str) -> None:
    """A right password ends the row of wrong ones, unless others locked the name while it was hashed."""
    of_name = SignInAttempts.name_digest == digest
    unlocked = or_(SignInAttempts.failures < settings.sign_in_attempts, ~_recent())
    forgotten = delete(SignInAttempts).where(of_name, unlocked).cte("forgotten")
    with autocommit() as connection:
        seconds = connection.scalar(select(_seconds_locked()).where(of_name).add_cte(forgotten))
    if seconds:
        raise _locked(float(seconds))
