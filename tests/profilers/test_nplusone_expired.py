"""Objects read again one at a time because something expired them: cause, and a fix that is executed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import sqlalchemy as sa
from sqlalchemy import orm, select
from sqlalchemy.orm import Session

from profilers import Profile, record
from tests.profilers.example import Customer, Seat, memory_engine

Expire = Callable[[Session, Sequence[Customer]], None]


def commit(session: Session, customers: Sequence[Customer]) -> None:
    session.commit()


def rollback(session: Session, customers: Sequence[Customer]) -> None:
    session.rollback()


def expire(session: Session, customers: Sequence[Customer]) -> None:
    for each in customers:
        session.expire(each)


def expire_all(session: Session, customers: Sequence[Customer]) -> None:
    session.expire_all()


def nothing(session: Session, customers: Sequence[Customer]) -> None:
    pass


def run(session: Session, expire: Expire, fix: str = "None") -> Profile:
    """Load ten, expire them, and touch each; the fix is done before that."""
    with session, record("run", profile="nplusone") as profile:
        customers = session.scalars(select(Customer)).all()
        ids = list(range(1, 11))
        expire(session, customers)
        eval(fix, {"session": session, "select": select, "Customer": Customer, "ids": ids})
        assert [each.name for each in customers]
    return profile


@pytest.mark.parametrize(
    ("expire", "cause"),
    [(rollback, "expired_after_rollback"), (expire, "expired_attribute"), (expire_all, "expired_attribute")],
)
def test_one_query_for_all_of_the_expired(engine, expire, cause):
    profile = run(Session(engine), expire)
    (finding,) = profile.findings
    assert (finding.cause, finding.subject, finding.count) == (cause, "Customer", 10)
    after = run(Session(engine), expire, finding.fix)
    assert after.findings == []
    assert after.statement_count == profile.statement_count - 10 + finding.details["statements_after"] == 2


def test_the_one_query_knows_a_key_of_two_columns(engine):
    with Session(engine) as session, record("run", profile="nplusone") as profile:
        for seat in session.scalars(select(Seat)).all():
            session.refresh(seat)
    (finding,) = profile.findings
    with Session(engine) as session:
        keys = [(number, number) for number in range(1, 11)]
        names = {"session": session, "select": select, "Seat": Seat, "tuple_": sa.tuple_, "keys": keys}
        assert len(eval(finding.fix, names)) == 10


def test_after_a_commit_the_session_may_keep_what_it_has(engine):
    (finding,) = run(Session(engine), commit).findings
    assert (finding.cause, finding.subject, finding.count) == ("expired_after_commit", "Customer", 10)
    assert "expire_on_commit=False" in finding.fix
    after = run(Session(engine, expire_on_commit=False), commit)
    assert after.findings == []
    assert after.statement_count == 1 + finding.details["statements_after"] == 1


def test_a_commit_in_the_loop_expires_all_that_come_after_it(engine):
    def rename(session: Session, ending: Callable[[Session, int], None]) -> Profile:
        with session, record("run", profile="nplusone") as profile:
            for number, each in enumerate(session.scalars(select(Customer)).all()):
                each.name = each.name + "!"
                ending(session, number)
        return profile

    findings = rename(Session(engine), lambda session, number: session.commit()).findings
    (finding,) = [finding for finding in findings if finding.cause == "expired_after_commit"]
    assert finding.count == 9
    kept = Session(engine, expire_on_commit=False)
    after = rename(kept, lambda session, number: session.commit() if number == 9 else None)
    assert after.findings == []
    assert after.statement_count == 2


def test_a_refresh_in_a_loop_and_the_one_query_that_replaces_it(engine):
    def refresh(session: Session, customers: Sequence[Customer]) -> None:
        for each in customers:
            session.refresh(each)

    profile = run(Session(engine), refresh)
    (finding,) = profile.findings
    assert (finding.cause, finding.subject, finding.count) == ("refresh_in_loop", "Customer", 10)

    def written_meanwhile(session: Session, customers: Sequence[Customer]) -> None:
        with engine.begin() as other:
            other.execute(sa.update(Customer).values(name="new"))

    with Session(engine) as session:
        after = run(session, written_meanwhile, finding.fix)
        assert {each.name for each in session.scalars(select(Customer))} == {"new"}
    assert after.statement_count == 2 + finding.details["statements_after"]


@pytest.mark.parametrize("expire", [nothing, commit])
def test_silent_on_what_is_not_touched_or_not_expired(engine, expire):
    with Session(engine) as session, record("run", profile="nplusone") as profile:
        customers = session.scalars(select(Customer)).all()
        expire(session, customers)
    assert profile.findings == []


def stamped(engine: sa.Engine, in_class: str, fix: str = "None", *, update: bool) -> Profile:
    """Write ten rows and read back what the server filled in; `in_class` is a line of the model."""
    names = {**vars(sa), **vars(orm)}
    exec(STAMP.format(in_class), names)
    stamp = names["Stamp"]
    stamp.metadata.create_all(engine)
    stamps = [stamp(name=str(number)) for number in range(10)]
    if update:
        with Session(engine) as session:
            session.add_all(stamps)
            session.commit()
    with Session(engine) as session, record("run", profile="nplusone") as profile:
        if update:
            stamps = session.scalars(select(stamp)).all()
            for each in stamps:
                each.name += "!"
        else:
            session.add_all(stamps)
        session.flush()
        if update:
            eval(fix, {"session": session, "select": select, "Stamp": stamp, "ids": list(range(1, 11))})
        assert all(each.at for each in stamps)
    return profile


STAMP = """
class Base(DeclarativeBase):
    pass

class Stamp(Base):
    __tablename__ = "stamp"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    at: Mapped[str] = mapped_column(server_default=func.now(), onupdate=func.now())
    {}
"""


def test_what_the_server_filled_in_comes_back_with_the_insert():
    lazy = '__mapper_args__ = {"eager_defaults": False}'
    profile = stamped(memory_engine(1), lazy, update=False)
    (finding,) = profile.findings
    assert (finding.cause, finding.subject, finding.count) == ("server_default", "Stamp.at", 10)
    after = stamped(memory_engine(1), finding.fix, update=False)
    assert after.findings == []
    assert after.statement_count == profile.statement_count - 10 + finding.details["statements_after"]


def test_what_the_server_filled_in_at_an_update_is_one_query():
    profile = stamped(memory_engine(1), "", update=True)
    (finding,) = profile.findings
    assert (finding.cause, finding.subject, finding.count) == ("server_default", "Stamp.at", 10)
    after = stamped(memory_engine(1), "", finding.fix, update=True)
    assert after.findings == []
    assert after.statement_count == profile.statement_count - 10 + finding.details["statements_after"]
