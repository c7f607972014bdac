"""`/auth/…`: sign-in, tokens, registration, passwords; `/protected`."""

from __future__ import annotations

from apiflask import APIBlueprint

from pake.audit import audit
from pake.auth import accounts, passwords, tokens
from pake.auth.schemas import (
    AccountOut,
    GeneratedPassword,
    GenerateQuery,
    Greeting,
    PasswordChange,
    PasswordToJudge,
    PasswordVerdict,
    Registration,
    SignIn,
    Tokens,
)
from pake.auth.tokens import bearer, current_account
from pake.errors import Problem
from pake.extensions import db, limiter, settings

bp = APIBlueprint("auth", __name__, tag="Accounts")
costly = limiter.shared_limit(
    lambda: settings.auth_rate_limit, scope="auth", exempt_when=lambda: settings.auth_rate_limit == "none"
)
"""For routes that anyone may call and that cost CPU time."""


@bp.post("/auth/token")
@costly
@bp.input(SignIn, location="form")
@bp.output(Tokens)
@bp.doc(responses=[401, 429, 503])
def sign_in(form_data: SignIn) -> Tokens:
    """Sign in.

    For this service's own clients: RFC 9700 section 2.4 retires the password grant for any other. After some
    wrong passwords in a row for one name, that name is locked for a while: 429.
    """
    user_id = accounts.authenticate(form_data.username, form_data.password.get_secret_value())
    if user_id is None:
        raise Problem(
            401,
            "Wrong username or password.",
            headers={"WWW-Authenticate": 'Bearer realm="pake"'},
        )
    pair = tokens.open_family(user_id)
    audit("signed in", user_id=user_id)
    return _tokens(pair)


@bp.post("/auth/refresh")
@bearer(refresh=True)
@bp.output(Tokens)
def refresh() -> Tokens:
    """New tokens for a refresh token, sent as the bearer token.

    It works once. When a used one comes back, all tokens of that sign-in are revoked.
    """
    return _tokens(tokens.rotate())


@bp.post("/auth/logout")
@bearer()
@bp.doc(responses={204: "Signed out"})
def sign_out() -> tuple[str, int]:
    """Sign out: all tokens of this sign-in are revoked."""
    tokens.revoke(current_account().family_id)
    db.session.commit()
    audit("signed out", user_id=current_account().id)
    return "", 204


@bp.post("/auth/register")
@costly
@bp.input(Registration)
@bp.output(AccountOut, status_code=201)
@bp.doc(responses=[409, 429, 503])
def register(json_data: Registration) -> AccountOut:
    """Create an account with the role `user`."""
    accounts.create(
        json_data.username,
        json_data.password.get_secret_value(),
        email=json_data.email,
        full_name=json_data.full_name,
    )
    return AccountOut(
        username=json_data.username, email=json_data.email, full_name=json_data.full_name, role="user"
    )


@bp.post("/auth/password")
@bearer(fresh=True)
@bp.input(PasswordChange)
@bp.doc(responses={204: "Changed", 429: "Locked", 503: "Busy"})
def change_password(json_data: PasswordChange) -> tuple[str, int]:
    """Change the password. All tokens given out before are revoked: sign in again."""
    account = current_account()
    new_password = json_data.new_password.get_secret_value()
    accounts.require_good_password(new_password, "new_password", account.username, account.email)
    if accounts.authenticate(account.username, json_data.current_password.get_secret_value()) is None:
        wrong = {"location": "body", "field": "current_password", "message": "Wrong password."}
        raise Problem(422, "The current password is wrong.", errors=[wrong])
    accounts.set_password(account.id, new_password)
    db.session.commit()
    return "", 204


@bp.get("/auth/me")
@bearer()
@bp.output(AccountOut)
def me() -> AccountOut:
    """One's own account."""
    return AccountOut.model_validate(current_account())


@bp.get("/auth/generate-password")
@bp.input(GenerateQuery, location="query")
@bp.output(GeneratedPassword)
def generate_password(query_data: GenerateQuery) -> GeneratedPassword:
    """A random password."""
    return GeneratedPassword(password=passwords.generate(query_data.length), length=query_data.length)


@bp.post("/auth/validate-password")
@costly
@bp.input(PasswordToJudge)
@bp.output(PasswordVerdict)
@bp.doc(responses=[429])
def validate_password(json_data: PasswordToJudge) -> PasswordVerdict:
    """Judge a password by the rules of NIST SP 800-63B-4. It is neither stored nor logged."""
    verdict = passwords.judge(json_data.password.get_secret_value(), json_data.username)
    return PasswordVerdict(
        is_valid=not verdict.errors,
        errors=verdict.errors,
        strength_score=verdict.strength_score,
        suggestions=verdict.suggestions,
    )


@bp.get("/protected")
@bearer()
@bp.output(Greeting)
def protected() -> Greeting:
    """A page for whoever is signed in."""
    username = current_account().username
    return Greeting(message=f"Hello, {username}.", username=username)


def _tokens(pair: tokens.TokenPair) -> Tokens:
    return Tokens(
        access_token=pair.access_token,
        refresh_token=pair.refresh_token,
        expires_in=settings.access_token_minutes * 60,
    )
