"""Profiles reach the store in the background, each once, whatever the store or a profiler does."""

import logging
import multiprocessing
import os
import shutil
import threading

import pytest

from profilers.profile import Profile, Statement
from profilers.store import open_store
from profilers.writer import Writer
from tests.conftest import autocommit
from tests.servers import wait_for

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "profiles")


@pytest.fixture
def writers():
    """Makes writers that are closed at the end."""
    made = []

    def make(store, *args, **more):
        made.append(Writer(store, *args, **{"interval": 0.01, **more}))
        return made[-1]

    yield make
    for writer in made:
        writer.close()


def profile(number=0, **more) -> Profile:
    return Profile("GET /", started_at=1000.0 + number, duration=0.1, **more)


def test_what_is_put_is_written(store, writers):
    writer = writers(store)
    for number in range(50):
        writer.put(profile(number))
    assert writer.flush()
    assert len(store.profiles()) == writer.written == 50


def test_putting_never_waits_for_the_store(store, writers):
    waiting, go_on = threading.Event(), threading.Event()

    def examine(_):
        waiting.set()
        assert go_on.wait(10)

    writer = writers(store, examine, profiles=3)
    writer.put(profile())
    assert waiting.wait(10)
    for number in range(1, 10):
        writer.put(profile(number))
    go_on.set()

    assert writer.flush()
    assert len(store.profiles()) == 4
    assert store.left_out()["profiles"] == writer.left_out == 6


def test_the_queue_is_bounded_by_statements_too(store, writers):
    go_on = threading.Event()
    writer = writers(store, lambda _: go_on.wait(10), statements=10)
    writer.put(profile())
    many = [Statement("SELECT 1", 0.0)] * 11
    for number in range(5):
        writer.put(profile(number, statements=many))
    assert writer.left_out >= 3
    go_on.set()


def test_each_profile_is_examined_before_it_is_written(store, writers):
    def examine(item):
        item.counters["examined"] = 1

    writer = writers(store, examine)
    sent = profile()
    writer.put(sent)
    writer.flush()
    assert store.profile(sent.id).counters == {"examined": 1}


def test_a_profiler_that_raises_loses_nothing_and_is_logged_once(store, writers, caplog):
    def examine(_):
        raise LookupError("canary")

    writer = writers(store, examine)
    for number in range(5):
        writer.put(profile(number))
    writer.flush()
    assert len(store.profiles()) == 5
    assert len(caplog.records) == 1


def test_a_profile_that_cannot_be_summed_up_is_left_out_alone(store, writers):
    writer = writers(store)
    writer.put(profile(1))
    writer.put(Profile("GET /", started_at="yesterday"))  # type: ignore[arg-type]
    writer.put(profile(2))
    writer.flush()
    assert len(store.profiles()) == 2
    assert writer.left_out == 1


def test_closing_writes_what_is_queued(store, writers):
    writer = writers(store, interval=60)
    writer.put(profile())
    writer.close(timeout=10)
    assert len(store.profiles()) == 1


def test_after_closing_profiles_are_left_out(store, writers):
    writer = writers(store)
    writer.put(profile())
    writer.close()
    writer.put(profile())
    assert (len(store.profiles()), writer.left_out) == (1, 1)


def work_in_a_child(writer, done):
    writer.put(profile(1))
    done.put(writer.flush())
    writer.close()


def test_it_survives_a_fork_and_the_parents_queue_stays_the_parents(store, writers):
    writer = writers(store, interval=60)
    writer.put(profile(0))
    context = multiprocessing.get_context("fork")
    done = context.SimpleQueue()
    child = context.Process(target=work_in_a_child, args=(writer, done))
    child.start()
    assert done.get()
    child.join(10)
    assert [row.started_at for row in store.profiles()] == [1001.0]

    writer.flush()

    assert [row.started_at for row in store.profiles()] == [1001.0, 1000.0]


def test_a_locked_store_is_written_when_it_is_free_again(store, writers, caplog, monkeypatch):
    monkeypatch.setattr("profilers.storage.database.BUSY_SECONDS", 0.01)
    monkeypatch.setattr("profilers.writer.RETRY_SECONDS", (0.01, 0.05))
    store.clear()
    writer = writers(store)
    other = store.database.connect()
    with other.transaction(write=True):
        for number in range(20):
            writer.put(profile(number))
        wait_for(lambda: writer.failing_since is not None)
        assert not writer.flush(timeout=0.1)
    other.close()

    assert writer.flush()
    assert len(store.profiles()) == 20
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "profiles cannot be written" in messages[0]
    assert "database is locked" in messages[0]
    assert "written again" in messages[1]


def test_a_store_that_cannot_be_created_is_logged_once(tmp_path, writers, caplog, monkeypatch):
    monkeypatch.setattr("profilers.writer.RETRY_SECONDS", (0.01, 0.05))
    (tmp_path / "file").write_text("in the way")
    tries = []
    failed = Writer._failed
    monkeypatch.setattr(Writer, "_failed", lambda self, error: failed(self, error) or tries.append(error))
    writer = writers(open_store(tmp_path / "file" / "profiles"))
    writer.put(profile())
    wait_for(lambda: len(tries) >= 5)
    assert len(caplog.records) == 1
    assert "PROFILE_STORE=" in caplog.text
    assert writer.failing_since is not None


def test_a_store_deleted_under_a_running_worker_is_begun_anew(store, writers):
    writer = writers(store)
    writer.put(profile(0, statements=[Statement("SELECT 1", 0.0)]))
    writer.flush()
    shutil.rmtree(store.database.path.parent)

    writer.put(profile(1, statements=[Statement("SELECT 1", 0.0)]))
    writer.flush()

    fresh = open_store(store.database.path)
    assert [row.started_at for row in fresh.profiles()] == [1001.0]
    assert fresh.statements()[0].shape == "SELECT ?"


def test_what_was_left_out_while_the_store_failed_is_counted_in_it(store, writers, monkeypatch):
    monkeypatch.setattr("profilers.storage.database.BUSY_SECONDS", 0.01)
    monkeypatch.setattr("profilers.writer.RETRY_SECONDS", (0.01, 0.05))
    store.clear()
    writer = writers(store, profiles=2)
    other = store.database.connect()
    with other.transaction(write=True):
        writer.put(profile(0))
        wait_for(lambda: writer.failing_since is not None)
        for number in range(1, 6):
            writer.put(profile(number))
    other.close()
    writer.flush()
    assert len(store.profiles()) + store.left_out()["profiles"] == 6
    assert store.left_out()["profiles"] == 3


def test_a_chore_runs_in_each_round_and_may_fail(store, writers, caplog):
    calls = []
    twice = threading.Event()

    def chore(_):
        calls.append(os.getpid())
        if len(calls) >= 2:
            twice.set()
        raise LookupError

    writer = writers(store, chores=[chore])
    writer.start()
    assert twice.wait(10)
    writer.put(profile())
    assert writer.flush()
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1


def test_many_threads_put_each_profile_once(store, writers):
    writer = writers(store)

    def put(first):
        for number in range(first, first + 50):
            writer.put(profile(number))

    threads = [threading.Thread(target=put, args=(first,)) for first in range(0, 500, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.flush()
    kept = sorted(row.started_at for row in store.profiles(limit=1000))
    assert kept == [1000.0 + number for number in range(500)]


def test_a_database_that_drops_its_connections_gets_everything_once(empty_database_url, writers, monkeypatch):
    monkeypatch.setattr("profilers.writer.RETRY_SECONDS", (0.01, 0.05))
    store = open_store(empty_database_url)
    looks = []

    def look(keeper):
        if keeper is not None:
            with keeper.connection.transaction(write=False) as connection:
                looks.append(connection.execute("SELECT 1").fetchone())

    writer = writers(store, chores=[look])
    writer.put(profile(0))
    assert writer.flush()
    with autocommit(empty_database_url) as admin:
        admin.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    looked = len(looks)
    wait_for(lambda: len(looks) > looked + 2)
    writer.put(profile(1))
    assert writer.flush()
    assert [row.started_at for row in store.profiles()] == [1001.0, 1000.0]
    assert writer.failing_since is None
