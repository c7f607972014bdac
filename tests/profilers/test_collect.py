"""The same verdicts with every way of using SQLAlchemy: extensions, threads, tasks, and real PostgreSQL."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import pickle
import threading

import flask_sqlalchemy
import flask_sqlalchemy_lite
import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session, joinedload

from profilers import Profilers, record
from profilers.collect import new_recording
from profilers.recording import examine
from tests.profilers import loops
from tests.profilers.example import Customer, Order, Product, fill


@pytest.mark.parametrize("order", ["profilers first", "database first"])
@pytest.mark.parametrize("extension", ["flask-sqlalchemy", "flask-sqlalchemy-lite"])
def test_flask_extensions(tmp_path, extension, order):
    app = Flask("shop")
    url = f"sqlite:///{tmp_path}/shop.db"
    app.config.update(SQLALCHEMY_DATABASE_URI=url, SQLALCHEMY_ENGINES={"default": url}, PROFILE="nplusone")
    profilers = Profilers()
    if order == "profilers first":
        profilers.init_app(app)
    if extension == "flask-sqlalchemy":
        db = flask_sqlalchemy.SQLAlchemy(app)
    else:
        db = flask_sqlalchemy_lite.SQLAlchemy(app)
    if order == "database first":
        profilers.init_app(app)
    profiles = []
    profilers.deliver = profiles.append
    with app.app_context():
        fill(db.engine)

    @app.get("/")
    def view() -> str:
        return "".join(order.customer.name for order in db.session.scalars(sa.select(Order)))

    app.test_client().get("/")
    (profile,) = profiles
    examine(profile, profilers.profilers)
    (finding,) = profile.findings
    assert (finding.subject, finding.origin.function, finding.count) == ("Order.customer", "view", 10)


def test_legacy_get_or_404_in_a_loop(tmp_path):
    app = Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path}/shop.db"
    db = flask_sqlalchemy.SQLAlchemy(app)
    with app.app_context():
        fill(db.engine)
        with record("run", profile="nplusone") as profile:
            for number in loops.IDS:
                db.get_or_404(Customer, number)
    assert [finding.cause for finding in profile.findings] == ["get_in_loop"]


def test_real_postgresql(database_url):
    engine = sa.create_engine(database_url)
    fill(engine)

    def lazy(session: Session) -> None:
        for order in session.scalars(sa.select(Order)):
            order.customer.region.name

    def eager(session: Session) -> None:
        query = sa.select(Order).options(joinedload(Order.customer).joinedload(Customer.region))
        for order in session.scalars(query):
            order.customer.region.name

    def run(code) -> tuple[int, list[str]]:
        with record("run", profile="nplusone") as profile, Session(engine) as session:
            code(session)
        return profile.statement_count, [finding.cause for finding in profile.findings]

    assert run(lazy) == (21, ["lazy_relationship"])
    assert run(eager) == (1, [])
    assert run(loops.commits) == (10, ["flush_row_by_row"])
    assert run(loops.one_flush) == (1, [])
    assert run(loops.inserts_of_one_flush) == (10, ["insert_row_by_row"])
    with record("run", profile="queries") as profile, Session(engine) as session:
        session.scalars(sa.select(Order)).all()
    assert profile.statements[0].rows == profile.counters["rows"] == 10
    engine.dispose()


def test_each_thread_has_a_profile_of_its_own(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/shop.db")
    fill(engine)
    seen: dict[int, int] = {}

    def work(times: int) -> None:
        with record("job", profile="nplusone") as profile, Session(engine) as session:
            for number in range(times):
                session.execute(sa.select(Customer.id).where(Customer.id == number))
        seen[times] = profile.statement_count

    threads = [threading.Thread(target=work, args=(times,)) for times in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.dispose()
    assert seen == {times: times for times in range(1, 9)}


def test_a_thread_that_is_given_the_context_belongs_to_the_block(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/shop.db")
    fill(engine)
    with record("job", profile="nplusone") as profile:
        context = contextvars.copy_context()
        with Session(engine) as session:
            thread = threading.Thread(target=context.run, args=(loops.gets, session))
            thread.start()
            thread.join()
    engine.dispose()
    assert [finding.cause for finding in profile.findings] == ["get_in_loop"]


def test_tasks_that_interleave_are_not_mixed_up(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/shop.db")
    fill(engine)

    async def touch(code) -> list[str]:
        with record("task", profile="nplusone") as profile, Session(engine) as session:
            for order in session.scalars(sa.select(Order)):
                await asyncio.sleep(0)
                code(order)
        return [finding.subject for finding in profile.findings]

    async def both() -> list[list[str]]:
        return await asyncio.gather(touch(lambda order: order.customer.name), touch(lambda order: order.id))

    assert asyncio.run(both()) == [["Order.customer"], []]
    engine.dispose()


def test_nothing_of_ours_is_added_to_statements_or_instances(engine):
    """Neither cache keys nor pickles change, and no statement is compiled once more."""

    def run() -> tuple[set[object], bytes]:
        with Session(engine) as session:
            orders = session.scalars(sa.select(Order)).all()
            for order in orders:
                order.customer.name
            session.expunge_all()
            return set(engine._compiled_cache), pickle.dumps(orders)

    without = run()
    with record("run", profile="queries,nplusone"):
        within = run()
    assert within == without


def test_uncached_statements_are_one_loop_as_well(engine):
    with record("run", profile="nplusone") as profile, engine.connect() as connection:
        plain = connection.execution_options(compiled_cache=None)
        for number in loops.IDS:
            plain.execute(sa.select(Product.name).where(Product.id == number))
    assert [finding.cause for finding in profile.findings] == ["select_in_loop"]


def test_no_recording_has_a_dictionary_of_its_own(profiled, engine):
    """CPython makes one for an attribute that the first instances of a class did not have."""
    app, profiles = profiled("queries,nplusone,slow-queries")

    @app.get("/")
    def view() -> str:
        with Session(engine) as session:
            names = [order.customer.name for order in session.scalars(sa.select(Order))]
            session.commit()
        return str(len(names))

    for _ in range(40):  # the first instances have nothing but what all have
        new_recording("", "request", frozenset(), None)
    app.test_client().get("/")
    (profile,) = profiles
    assert profile.commits
    assert profile.statements
    assert profile.findings
    assert not [each for each in gc.get_referents(profile) if isinstance(each, dict) and "begun" in each]
    profile.anything = "that has no place in the shared table"
    assert [each for each in gc.get_referents(profile) if isinstance(each, dict) and "begun" in each]
