"""Which line sent a statement: right for the first time, and again where the way is only compared."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from profilers import listeners, record
from profilers.collect import Recording
from profilers.location import find_way, resolve
from tests.profilers.example import Customer


def ask(session: Session, key: int = 1) -> None:
    session.scalar(sa.select(Customer.name).where(Customer.id == key))


def ask_deep(session: Session, depth: int) -> None:
    if depth:
        ask_deep(session, depth - 1)
    else:
        ask(session)


def collect(engine: sa.Engine, act: Callable[[Session], object]) -> Recording:
    with Session(engine) as session, record("run", profile="queries") as profile:
        act(session)
    return profile  # type: ignore[return-value]


def lines(profile: Recording) -> list[str]:
    return [resolve(each.site).function for each in profile.records]


def test_one_statement_from_different_callers_keeps_them_apart_each_time(engine):
    def twice_from_each(session: Session) -> None:
        for _ in range(3):
            ask(session)
            ask(session)

    profile = collect(engine, twice_from_each)
    stacks = [each.site.stack for each in profile.records]
    assert lines(profile) == ["ask"] * 6
    assert stacks == stacks[:2] * 3
    assert stacks[0] != stacks[1]


def test_more_callers_than_are_kept_in_mind(engine):
    def from_many(session: Session) -> None:
        for _ in range(2):
            ask(session)
            ask(session)
            ask(session)
            ask(session)
            ask(session)
            ask(session)

    assert listeners.MAX_WAYS < 6
    stacks = [each.site.stack for each in collect(engine, from_many).records]
    assert len(set(stacks)) == 6
    assert stacks[:6] == stacks[6:]


def test_a_statement_in_a_loop_is_walked_up_from_once(engine, monkeypatch):
    walks = []
    monkeypatch.setattr(listeners, "find_way", lambda frame: walks.append(frame) or find_way(frame))

    def loop(session: Session) -> None:
        for key in range(5):
            session.scalar(sa.select(Customer.email).where(Customer.id == key))

    assert lines(collect(engine, loop)) == ["loop"] * 5
    assert len(walks) == 1


@pytest.mark.parametrize("depths", [(0, 3), (3, 0), (2, 2)])
def test_a_function_that_calls_itself_is_one_line_however_deep(engine, depths):
    def run(session: Session) -> None:
        for depth in depths:
            ask_deep(session, depth)

    first, second = (each.site for each in collect(engine, run).records)
    assert (first.code, first.instruction) == (second.code, second.instruction)
    assert (first.stack == second.stack) == (0 not in depths)


def test_a_way_longer_than_the_stack_is_none(engine):
    def deep(session: Session, frames: int) -> None:
        if frames:
            deep(session, frames - 1)
        else:
            ask(session)

    def run(session: Session) -> None:
        deep(session, 60)
        ask(session)

    first, second = (each.site for each in collect(engine, run).records)
    assert first.stack != second.stack
