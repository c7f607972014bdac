"""One pool of connections for reading outside transactions and for transactions."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from apiflask import APIFlask
from sqlalchemy.exc import ProgrammingError

from pake.database import autocommit, read_connection
from pake.extensions import db


@pytest.fixture
def read(app: APIFlask) -> Any:
    """The pool's only connection, after it was read from; the app's context is there."""
    with app.app_context():
        yield a_read()
        db.session.rollback()


def a_read() -> Any:
    with read_connection() as connection:
        assert connection.scalar(sa.text("SELECT 1")) == 1
        return connection.connection.driver_connection


def test_it_stays_as_it_is_from_read_to_read(read: Any, statements: list[str]) -> None:
    assert read.autocommit
    assert a_read() is read
    assert read.autocommit
    assert statements == ["SELECT 1"]


def test_a_transaction_after_a_read_can_be_rolled_back(read: Any) -> None:
    db.session.execute(sa.text("CREATE TABLE never (id int)"))
    assert db.session.connection().connection.driver_connection is read
    db.session.rollback()
    with pytest.raises(ProgrammingError, match="does not exist"):
        db.session.execute(sa.text("SELECT * FROM never"))


def test_autocommit_after_a_transaction_is_outside_of_any(read: Any) -> None:
    db.session.execute(sa.text("CREATE TABLE once (id int)"))
    db.session.commit()
    with autocommit() as connection:
        assert connection.connection.driver_connection is read
        connection.execute(sa.text("INSERT INTO once VALUES (1)"))
    db.session.rollback()
    assert db.session.scalar(sa.text("SELECT count(*) FROM once")) == 1


def test_a_read_that_fails_leaves_nothing_behind(read: Any) -> None:
    with pytest.raises(ProgrammingError), read_connection() as connection:
        connection.execute(sa.text("SELECT nonsense"))
    assert a_read() is read


def test_autocommit_that_somebody_asks_sqlalchemy_for_is_left_to_it(read: Any) -> None:
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM users"))  # refused in a transaction
    with db.engine.begin() as connection:
        connection.execute(sa.text("SET LOCAL statement_timeout = 1234"))
        assert connection.scalar(sa.text("SHOW statement_timeout")) == "1234ms"
