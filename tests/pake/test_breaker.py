"""The circuit breaker of the database: when it opens, who tries, and what closes it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from pake.breaker import PAUSE_SECONDS, Breaker, KnownSilent
from pake.database import after_each_statement, engine_options
from tests.pake.conftest import Clock, settings

PATIENCE = 6.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(PATIENCE, clock)


def test_closed_it_lets_everybody_ask(breaker: Breaker) -> None:
    for _ in range(3):
        breaker.ask()
        breaker.answered()
    assert not breaker.open


def test_after_a_silence_nobody_asks_for_a_while(breaker: Breaker) -> None:
    breaker.silent()
    for _ in range(3):
        with pytest.raises(KnownSilent):
            breaker.ask()


def test_after_the_pause_one_asks_and_the_others_do_not(breaker: Breaker, clock: Clock) -> None:
    breaker.silent()
    clock.now += PAUSE_SECONDS
    breaker.ask()
    for _ in range(3):
        with pytest.raises(KnownSilent):
            breaker.ask()


def test_a_try_that_fails_begins_another_pause(breaker: Breaker, clock: Clock) -> None:
    breaker.silent()
    clock.now += PAUSE_SECONDS
    breaker.ask()
    breaker.silent()
    with pytest.raises(KnownSilent):
        breaker.ask()
    clock.now += PAUSE_SECONDS
    breaker.ask()


def test_a_try_of_which_nothing_is_heard_does_not_keep_it_open_for_good(
    breaker: Breaker, clock: Clock
) -> None:
    breaker.silent()
    clock.now += PAUSE_SECONDS
    breaker.ask()
    clock.now += PATIENCE + PAUSE_SECONDS
    breaker.ask()


def test_an_answer_closes_it(breaker: Breaker) -> None:
    breaker.silent()
    breaker.answered()
    breaker.ask()


@pytest.fixture
def engine(breaker: Breaker, database_url: str) -> Iterator[sa.Engine]:
    """An engine like the service's, watched by `breaker`."""
    options = engine_options(settings(database_url, database_statement_timeout_ms=300))
    engine = sa.create_engine(database_url, poolclass=breaker.pool_class(sa.QueuePool), **options)
    breaker.watch(engine)
    yield engine
    engine.dispose()


def test_each_answer_is_told_once_and_a_refusal_is_none(engine: sa.Engine) -> None:
    told: list[float] = []
    after_each_statement(engine, told.append)
    with engine.connect() as connection:
        connection.execute(sa.text("CREATE TEMPORARY TABLE number (value int)"))
        connection.execute(sa.text("INSERT INTO number VALUES (:value)"), [{"value": 1}, {"value": 2}])
        assert len(told) == 2
        connection.execute(sa.text("SELECT pg_sleep(0.02)"))
        with pytest.raises(sa.exc.ProgrammingError):
            connection.execute(sa.text("SELECT nonsense"))
    assert len(told) == 3
    assert told[2] >= 0.02


def test_what_the_server_refuses_does_not_open_it(breaker: Breaker, engine: sa.Engine) -> None:
    with engine.connect() as connection, pytest.raises(sa.exc.ProgrammingError):
        connection.execute(sa.text("SELECT nonsense"))
    with engine.connect() as connection, pytest.raises(OperationalError):
        connection.execute(sa.text("SELECT pg_sleep(5)"))
    assert not breaker.open


def test_silence_opens_it_and_an_answer_closes_it(breaker: Breaker, engine: sa.Engine, clock: Clock) -> None:
    with engine.connect() as connection:
        connection.execute(sa.text("SET statement_timeout = 0"))
        with pytest.raises(OperationalError):
            connection.execute(sa.text("SELECT pg_sleep(5)"))
    assert breaker.open
    with pytest.raises(OperationalError) as refused:
        engine.connect()
    assert isinstance(refused.value.orig, KnownSilent)
    clock.now += PAUSE_SECONDS
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT 1")) == 1
    assert not breaker.open
