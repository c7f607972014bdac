"""`make bench-sign-in`: whether the time of a refused sign-in tells if the name has an account.

A wrong password for an account, one for a name that nobody has, and the right password of a disabled account
are sent in turns to the service under Gunicorn, each name once, 200 of each. Exit status 1 when a median
differs by more than 10 % from that of the wrong password. That the statements are equal in number and kind is
a test, tests/pake/test_auth.py::test_every_refusal_takes_the_same_statements_and_one_hash.

    make bench-sign-in
    make bench-sign-in ARGS="--rounds 1000"
"""

from __future__ import annotations

import argparse
import http.client
import sys
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from urllib.parse import urlencode

import sqlalchemy as sa

from benchmarks.keep_alive import gunicorn
from benchmarks.service import postgres, service
from benchmarks.turns import WARM_UP, take_turns
from pake.auth import passwords
from pake.auth.models import User
from pake.extensions import db

WRONG, UNKNOWN, DISABLED = "wrong password", "unknown user", "disabled account"
RIGHT = "quiet river stones"
PASSWORD = {WRONG: "loud river stones", UNKNOWN: "loud river stones", DISABLED: RIGHT}
MOST = 0.10


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(
        "bench_sign_in", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=200, help="tries of each kind (200)")
    rounds = parser.parse_args().rounds
    with postgres() as folder, ExitStack() as stack:
        app = stack.enter_context(service(folder, "sign-in", services=0, health_checks=0))
        with app.app_context():
            add_accounts(rounds + WARM_UP)
        server = stack.enter_context(
            gunicorn(
                folder.parent / "service",
                None,
                DATABASE_URL=app.config["SQLALCHEMY_DATABASE_URI"],
                WEB_CONCURRENCY="1",
                AUTH_RATE_LIMIT="none",
            )
        )
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        stack.callback(connection.close)
        times = take_turns({kind: refused(connection, kind) for kind in PASSWORD}, rounds, "sign-in")
    medians = {kind: times.milliseconds(kind) for kind in PASSWORD}
    print("| sign-in | median, ms | to a wrong password's | neighbouring tries, quartiles |")
    print("|---|---|---|---|")
    for kind, median in medians.items():
        ratio = median / medians[WRONG]
        print(f"| {kind} | {median:.2f} | {ratio:.3f} | {times.ratio(kind, to=WRONG)} |")
    told = [kind for kind, median in medians.items() if abs(median / medians[WRONG] - 1) > MOST]
    if told:
        sys.exit(f"the time tells: {', '.join(told)} differs by more than {MOST:.0%}")


def add_accounts(number: int) -> None:
    """Accounts and disabled accounts, all with the same password."""
    password_hash = passwords.hash_password(RIGHT)
    rows = [
        {"username": name(kind, index), "password_hash": password_hash, "disabled": kind == DISABLED}
        for kind in (WRONG, DISABLED)
        for index in range(number)
    ]
    db.session.execute(sa.insert(User), rows)
    db.session.commit()


def name(kind: str, index: int) -> str:
    """The same number of letters for each kind."""
    return f"{kind[:5]}-{index:06}"


def refused(connection: http.client.HTTPConnection, kind: str) -> Callable[[], None]:
    """A function that tries to sign in as the next name of this kind."""
    indexes = count()
    headers = {"Host": "localhost", "Content-Type": "application/x-www-form-urlencoded"}

    def sign_in() -> None:
        form = urlencode({"username": name(kind, next(indexes)), "password": PASSWORD[kind]})
        connection.request("POST", "/auth/token", form, headers)
        answer = connection.getresponse()
        said = answer.read()
        assert answer.status == 401, said

    return sign_in


if __name__ == "__main__":
    main()
