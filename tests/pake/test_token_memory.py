"""What a worker remembers of tokens: what that saves, and that nobody stays signed in by it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient

from pake.auth import memory
from pake.auth.memory import Account, Accounts, Claims, Verified
from pake.extensions import db
from tests.pake.conftest import Clock, signed_in

SECONDS = 4.0


@pytest.fixture
def clock(app: APIFlask) -> Iterator[Clock]:
    clock = Clock()
    before = app.extensions["pake_accounts"]
    app.extensions["pake_accounts"] = Accounts(SECONDS, clock=clock)
    yield clock
    app.extensions["pake_accounts"] = before


@pytest.fixture
def people(app: APIFlask, client: FlaskClient, clock: Clock) -> list[dict[str, str]]:
    """The headers of three people who have just asked for something."""
    people = [signed_in(app, name, "user") for name in ("alice", "bob", "carol")]
    for headers in people:
        assert client.get("/protected", headers=headers).status_code == 200
    return people


def change(app: APIFlask, statement: str) -> None:
    """As another worker would."""
    with app.app_context():
        db.session.execute(db.text(statement))
        db.session.commit()


REVOKE_BOB = """
    UPDATE token_families SET revoked_at = now() WHERE user_id = (SELECT id FROM users WHERE username = 'bob')
"""


def test_all_who_are_in_use_are_asked_about_with_one_statement(
    client: FlaskClient, clock: Clock, people: list[dict[str, str]], statements: list[str]
) -> None:
    for _ in range(10):
        statements.clear()
        clock.now += SECONDS / 2
        for headers in people * 3:
            assert client.get("/protected", headers=headers).status_code == 200
        assert len(statements) == 1


def test_nobody_is_trusted_longer_than_was_said(
    client: FlaskClient, clock: Clock, people: list[dict[str, str]], statements: list[str]
) -> None:
    statements.clear()
    clock.now += SECONDS
    assert client.get("/protected", headers=people[1]).status_code == 200
    assert len(statements) == 1


def test_who_signed_out_elsewhere_is_trusted_until_somebody_asks(
    app: APIFlask, client: FlaskClient, clock: Clock, people: list[dict[str, str]]
) -> None:
    alice, bob, carol = people
    change(app, REVOKE_BOB)
    assert client.get("/protected", headers=bob).status_code == 200
    clock.now += SECONDS / 2
    assert client.get("/protected", headers=alice).status_code == 200
    answer = client.get("/protected", headers=bob)
    assert (answer.status_code, answer.get_json()["detail"]) == (401, "The token has been revoked.")
    assert client.get("/protected", headers=carol).status_code == 200


def test_who_signed_out_elsewhere_and_asks_for_all_is_refused(
    app: APIFlask, client: FlaskClient, clock: Clock, people: list[dict[str, str]]
) -> None:
    change(app, REVOKE_BOB)
    clock.now += SECONDS / 2
    assert client.get("/protected", headers=people[1]).status_code == 401


@pytest.mark.parametrize(
    ("statement", "status"),
    [
        ("UPDATE users SET role = 'admin' WHERE username = 'bob'", 200),
        ("UPDATE users SET role = 'admin', disabled = true WHERE username = 'bob'", 401),
        ("DELETE FROM users WHERE username = 'bob'", 401),
        ("UPDATE users SET role = 'admin' WHERE username = 'carol'", 403),
    ],
)
def test_an_account_that_was_changed_elsewhere_is_seen_changed(
    app: APIFlask,
    client: FlaskClient,
    clock: Clock,
    people: list[dict[str, str]],
    statement: str,
    status: int,
) -> None:
    change(app, statement)
    clock.now += SECONDS / 2
    assert client.get("/protected", headers=people[0]).status_code == 200
    assert client.get("/admin", headers=people[1]).status_code == status


def account(family_id: str) -> Account:
    return Account(1, "alice", None, None, "user", family_id)


def test_who_has_left_is_not_asked_about() -> None:
    clock = Clock()
    accounts = Accounts(SECONDS, clock=clock)
    accounts.keep(clock(), account("left"))
    clock.now += memory.VISIT_SECONDS
    accounts.keep(clock(), account("here"))
    assert accounts.due() == ["here"]
    assert accounts.due() == []


def test_who_was_forgotten_while_the_answer_was_on_its_way_stays_forgotten() -> None:
    clock = Clock()
    accounts = Accounts(SECONDS, clock=clock)
    for family_id in ("signs out", "stays"):
        accounts.keep(clock(), account(family_id))
    asked, families = clock(), accounts.due()
    accounts.forget("signs out")
    accounts.renew(asked, families, {family_id: account(family_id) for family_id in families})
    assert accounts.get("signs out") is None
    assert accounts.get("stays")


def test_no_statement_asks_about_more_than_a_thousand() -> None:
    accounts = Accounts(SECONDS)
    for number in range(memory.MOST_TOGETHER + 1):
        accounts.keep(accounts.clock(), account(str(number)))
    assert len(accounts.due()) == memory.MOST_TOGETHER


def test_remembered_for_no_time_is_not_remembered() -> None:
    accounts = Accounts(0)
    accounts.keep(accounts.clock(), account("f"))
    assert accounts.get("f") is None
    assert accounts.due() == []


def test_accounts_are_bounded() -> None:
    accounts = Accounts(60, size=3)
    for number in range(10):
        accounts.keep(accounts.clock(), account(str(number)))
    assert accounts.get("9") == account("9")
    assert sum(accounts.get(str(number)) is not None for number in range(10)) <= 3


def test_what_was_verified_is_bounded_and_holds_no_token() -> None:
    verified = Verified(size=3)
    claims = Claims(1, "f", expires_at=float("inf"))
    for number in range(10):
        verified.keep(f"token {number}", claims)
    assert verified.get("token 9") is claims
    assert sum(verified.get(f"token {number}") is not None for number in range(10)) <= 3
    assert "token" not in repr(vars(verified))
