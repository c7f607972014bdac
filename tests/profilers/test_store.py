"""The store keeps every profile, sums it up, stays within its bounds, and answers on both databases."""

import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import sqlalchemy

from profilers.profile import Finding, Location, Profile, Statement
from profilers.store import Limits, Period, Store, StoreError, open_store

VIEW = Location("shop/views.py", 19, "orders")
TEMPLATE = Location("shop/render.py", 20, "row")


@pytest.fixture
def file_store(tmp_path) -> Store:
    return open_store(tmp_path / "profiles")


@pytest.fixture(params=["file_store", "postgresql_store"])
def store(request) -> Store:
    return request.getfixturevalue(request.param)


@pytest.fixture
def postgresql_store(empty_database_url) -> Store:
    return open_store(empty_database_url)


def statement(shape="SELECT id FROM post WHERE id = ?", duration=0.002, rows=1, **more) -> Statement:
    return Statement(shape=shape, started=0.001, duration=duration, rows=rows, location=VIEW, **more)


def finding(subject="Post.author", count=8, duration=0.02) -> Finding:
    return Finding(
        kind="n_plus_one",
        cause="lazy_relationship",
        subject=subject,
        count=count,
        location=TEMPLATE,
        origin=VIEW,
        fix=".options(joinedload(Post.author))",
        message="queried at 19, touched at 20",
        duration=duration,
        details={"parents": 8},
    )


def profile(name="GET /posts", started_at=1000.0, duration=0.1, **more) -> Profile:
    return Profile(
        name=name, started_at=started_at, duration=duration, status=200, host="h", worker=7, **more
    )


def test_a_profile_comes_back_as_it_was(store):
    sent = profile(
        statements=[statement(parameters=12345), statement("SELECT 1", error="DataError", database="audit")],
        findings=[finding()],
        timings={"database": 0.004, "pool_wait": 0.001},
        counters={"commits": 1},
        sections={"payload": {"kb": 3}},
    )
    store.add([sent])

    kept = store.profile(sent.id)

    assert kept is not None
    assert kept.findings == sent.findings
    assert kept.timings == sent.timings
    assert kept.counters == sent.counters
    assert kept.sections == sent.sections
    assert [item.location for item in kept.statements] == [VIEW, VIEW]
    assert [item.duration for item in kept.statements] == pytest.approx([0.002, 0.002])
    assert (kept.statements[1].error, kept.statements[1].database) == ("DataError", "audit")


def test_equal_parameters_stay_equal_and_different_ones_different(store):
    sent = profile(statements=[statement(parameters=value) for value in (9, 8, 9)])
    store.add([sent])
    first, second, third = (item.parameters for item in store.profile(sent.id).statements)
    assert first == third != second


def test_an_unknown_profile_is_none(store):
    assert store.profile("nothing") is None


def test_profiles_are_listed_newest_first_page_by_page(store):
    store.add([profile(started_at=float(number)) for number in range(5)])
    first = store.profiles(limit=2)
    second = store.profiles(limit=2, before=first[-1].id)
    assert [row.started_at for row in (*first, *second)] == [4.0, 3.0, 2.0, 1.0]


def test_a_period_and_a_name_choose_profiles(store):
    names = ("GET /posts", "GET /posts/<int:id>", "POST /posts")
    store.add([profile(name, started_at=float(number)) for number, name in enumerate(names)])
    assert [row.name for row in store.profiles(Period(since=1.0))] == [names[2], names[1]]
    assert [row.name for row in store.profiles(Period(until=1.0))] == [names[0]]
    assert [row.name for row in store.profiles(Period(name="GET /posts*"))] == [names[1], names[0]]
    assert [row.name for row in store.endpoints(Period(name="POST /posts"))] == [names[2]]
    assert store.endpoints(Period(name="PUT *")) == []


def test_every_profile_goes_through_all_pages_oldest_first(store):
    store.add([profile(started_at=float(number)) for number in range(450)])
    assert [item.started_at for item in store.every_profile()] == [float(number) for number in range(450)]


def test_endpoints_sum_up_requests_statements_time_and_errors(store):
    store.add([profile(duration=number / 100, statements=[statement()] * number) for number in range(1, 101)])
    failed = profile("GET /broken", duration=0.5, outcome="raised", timings={"database": 0.1})
    store.add([failed])

    posts, broken = store.endpoints()

    assert (posts.requests, posts.errors, broken.requests, broken.errors) == (100, 0, 1, 1)
    assert (posts.statements_p50, posts.statements_p95, posts.statements_max) == (50, 95, 100)
    assert posts.duration_p50 == pytest.approx(0.50, rel=0.025)
    assert posts.duration_p95 == pytest.approx(0.95, rel=0.025)
    assert posts.timings["total"] == pytest.approx(50.5)
    assert posts.timings["database"] == pytest.approx(5050 * 0.002)
    assert broken.timings == {"database": 0.1, "total": 0.5}
    assert broken.duration_p95 == 0.5


def test_findings_are_grouped_by_fingerprint(store):
    store.add([profile(findings=[finding(), finding("Post.tags", duration=0.001)])])
    newest = profile("GET /tags", started_at=2000.0, findings=[finding(count=9)])
    store.add([newest])

    author, tags = store.findings()

    assert (author.finding.subject, author.finding.count) == ("Post.author", 9)
    assert author.endpoints == ("GET /posts", "GET /tags")
    assert (author.requests, author.statements) == (2, 17)
    assert (author.first_seen, author.last_seen, author.last_profile) == (1000.0, 2000.0, newest.id)
    assert tags.finding.subject == "Post.tags"
    assert [row.findings for row in store.endpoints()] == [2, 1]


def test_statements_are_summed_up_by_shape_across_endpoints(store):
    store.add([profile(statements=[statement("SELECT a", 0.5), statement("SELECT b", 0.1)])])
    store.add([profile("GET /b", statements=[statement("SELECT b", 0.2, rows=4)])])

    slowest, other = store.statements()

    assert (slowest.shape, slowest.calls, slowest.duration) == ("SELECT a", 1, 0.5)
    assert (other.calls, other.rows, other.duration_max) == (2, 5, 0.2)
    assert other.endpoints == ("GET /b", "GET /posts")


def test_a_literal_in_a_statement_never_reaches_the_file(file_store):
    file_store.add(
        [profile(statements=[statement("SELECT * FROM card WHERE number = '4111-canary' AND cvc = 987321")])]
    )
    assert [row.shape for row in file_store.statements()] == [
        "SELECT * FROM card WHERE number = ? AND cvc = ?"
    ]
    written = b"".join(file.read_bytes() for file in file_store.database.path.parent.iterdir())
    assert b"canary" not in written
    assert b"987321" not in written


def test_two_workers_add_up(store):
    for worker in (store.keeper(), store.keeper()):
        worker.write(worker.batch([profile(statements=[statement()], findings=[finding()])]))
        worker.close()
    (endpoint,) = store.endpoints()
    assert (endpoint.requests, endpoint.statements_max) == (2, 1)
    assert store.statements()[0].calls == 2
    assert store.findings()[0].requests == 2


def test_a_batch_written_twice_counts_once(store):
    keeper = store.keeper()
    batch = keeper.batch([profile(statements=[statement()])])
    keeper.write(batch)
    keeper.write(batch)
    keeper.close()
    assert store.endpoints()[0].requests == 1


def test_only_some_of_the_ordinary_profiles_keep_their_statements(store):
    store.add([profile(statements=[statement()] * 3) for _ in range(30)])
    kept = [item for item in store.every_profile() if item.statements]
    assert len(kept) == 10
    assert {item.statement_count for item in store.every_profile()} == {3}
    assert store.left_out()["statements"] == 20 * 3


def test_profiles_with_findings_keep_theirs(store):
    store.add([profile(statements=[statement()], findings=[finding()]) for _ in range(30)])
    assert all(item.statements for item in store.every_profile())
    assert store.left_out()["statements"] == 0


def test_the_slowest_is_kept_however_many_came_before(store):
    store.add([profile(statements=[statement()]) for _ in range(30)])
    slowest = profile(duration=0.9, statements=[statement()])
    store.add([slowest])
    assert store.profile(slowest.id).statements


def test_the_oldest_profiles_leave_a_full_store_and_are_counted(tmp_path):
    store = open_store(tmp_path / "full.sqlite", Limits(profiles=100))
    store.add([profile(started_at=float(number)) for number in range(150)])
    left = store.profiles(limit=1000)
    assert len(left) <= 100
    assert left[0].started_at == 149.0
    assert store.left_out()["profiles"] == 150 - len(left)
    assert store.endpoints()[0].requests == 150, "the sums remember what the rows do not"


def test_statements_leave_first_where_nothing_was_found(tmp_path):
    store = open_store(tmp_path / "full.sqlite", Limits(detailed=10))
    notable = [profile(started_at=float(n), statements=[statement()], findings=[finding()]) for n in range(8)]
    ordinary = [profile(started_at=100.0 + n, statements=[statement()]) for n in range(9)]
    store.add([*notable, *ordinary])
    assert all(store.profile(item.id).statements for item in notable)
    assert store.left_out()["statements"] == 17 - sum(len(item.statements) for item in store.every_profile())


def test_bytes_are_bounded(tmp_path):
    store = open_store(tmp_path / "full.sqlite", Limits(megabytes=1))
    big = {"payload": "x" * 100_000}
    store.add([profile(started_at=float(number), sections=big) for number in range(30)])
    kept = [item for item in store.every_profile() if item.sections]
    assert 1 <= len(kept) <= 10
    assert store.left_out()["bytes"] >= 20 * 100_000


def test_a_hundred_thousand_statements_of_one_request_are_counted_and_some_kept(store):
    sent = profile(statements=[statement()] * 100_000)
    store.add([sent])
    kept = store.profile(sent.id)
    assert kept.statement_count == 100_000
    assert len(kept.statements) == 2_000
    assert store.left_out()["statements"] == 98_000
    assert store.statements()[0].calls == 100_000


@pytest.mark.fault(45)
def test_a_ten_megabyte_statement_is_cut(store):
    store.add([profile(statements=[statement("SELECT " + "a + " * 2_500_000)])])
    assert len(store.statements()[0].shape) < 10_000


def test_endpoints_and_shapes_without_end_are_put_together(tmp_path):
    store = open_store(tmp_path / "many.sqlite", Limits(endpoints=5, shapes=5))
    store.add(
        [profile(f"GET /{number}", statements=[statement(f"SELECT c{number}")]) for number in range(50)]
    )
    assert len(store.endpoints()) == 6
    assert sum(row.requests for row in store.endpoints()) == 50
    assert sum(row.calls for row in store.statements()) == 50
    assert len(store.statements()) == 6


def test_findings_without_end_are_put_together(tmp_path):
    store = open_store(tmp_path / "many.sqlite", Limits(findings=5))
    store.add([profile(findings=[finding(f"Post.column_{number}")]) for number in range(20)])
    rows = {row.finding.kind: row for row in store.findings() if row.finding.kind == "others"}
    assert len(store.findings()) == 6
    assert rows["others"].requests == 15


def test_findings_that_differ_at_the_end_of_a_long_statement_stay_apart(store):
    long = "SELECT " + "column_name, " * 100
    store.add([profile(findings=[finding(long + "a"), finding(long + "b")])])
    assert len(store.findings()) == 2


def test_old_slots_grow_wider_and_their_sums_stay(store):
    hour = 3600.0
    for age in (0.0, 0.5 * hour, 5 * hour):
        for second in range(0, 600, 10):
            at = 10 * hour - age + second
            store.add([profile(started_at=at, statements=[statement()], findings=[finding()])])
    with store.database.connect().transaction(write=False) as connection:
        widths = connection.execute("SELECT DISTINCT width FROM endpoint_slot ORDER BY width").fetchall()
    assert widths == [(10,), (60,), (3600,)]
    assert (store.endpoints()[0].requests, store.statements()[0].calls) == (180, 180)
    assert store.findings()[0].requests == 180
    assert store.endpoints(Period(until=6 * hour))[0].requests == 60


def test_what_is_older_than_the_limit_expires(tmp_path):
    store = open_store(tmp_path / "old.sqlite", Limits(days=1))
    store.add([profile(started_at=0.0, findings=[finding()]), profile(started_at=3 * 86400.0)])
    assert [row.started_at for row in store.profiles()] == [3 * 86400.0]
    assert store.endpoints()[0].requests == 1
    assert store.findings() == []


def test_clear_forgets_everything_also_for_workers_that_go_on(store):
    keeper = store.keeper()
    keeper.write(keeper.batch([profile(statements=[statement()], findings=[finding()])]))
    store.clear()
    assert (store.profiles(), store.endpoints(), store.findings(), store.statements()) == ([], [], [], [])

    keeper.write(keeper.batch([profile(statements=[statement()])]))
    keeper.close()

    assert store.endpoints()[0].name == "GET /posts"
    assert store.statements()[0].shape == "SELECT id FROM post WHERE id = ?"


def test_workers_that_create_the_store_at_the_same_moment_wait_for_each_other(tmp_path):
    def create(folder):
        together.wait(30)
        open_store(folder).database.connect().close()

    with ThreadPoolExecutor(6) as workers:
        for number in range(60):  # it took 20, before they waited
            together = Barrier(6)
            for created in [workers.submit(create, tmp_path / str(number)) for _ in range(6)]:
                created.result()


def test_only_its_owner_can_read_the_store(file_store):
    file_store.add([profile()])
    folder = file_store.database.path.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


def test_a_store_of_another_version_is_moved_aside(tmp_path, caplog):
    path = tmp_path / "profiles.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE profile (old TEXT)")
    other.execute("PRAGMA user_version = 99")
    other.close()

    store = open_store(path)
    store.add([profile()])

    assert len(store.profiles()) == 1
    assert (tmp_path / "profiles.sqlite.version-99").exists()
    assert "has version 99" in caplog.text


def test_a_file_that_is_no_store_is_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but somebody's notes " * 100)
    with pytest.raises(StoreError, match=r"PROFILE_STORE=.*notes.txt: file is not a database"):
        open_store(path).profiles()
    assert path.read_text().startswith("not a database")


def test_a_database_of_the_app_is_left_alone(tmp_path):
    path = tmp_path / "app.db"
    app = sqlite3.connect(path)
    app.execute("CREATE TABLE users (name TEXT)")
    app.close()
    with pytest.raises(StoreError, match="is not a profile store"):
        open_store(path).profiles()
    assert path.exists()


@pytest.mark.parametrize("where", ["mysql://u:secret@h/d", "oracle://x/y"])
def test_another_database_is_refused_in_one_line(where):
    with pytest.raises(StoreError, match="expected a path or postgresql://") as caught:
        open_store(where)
    assert "secret" not in str(caught.value)


def test_text_that_no_database_takes_is_mended(store):
    store.add([profile("GET /a\0b\udcff", statements=[statement("SELECT a\0 \udcff")])])
    assert store.endpoints()[0].name == "GET /ab?"
    assert store.statements()[0].shape == "SELECT a ?"


def test_the_tables_stay_out_of_sight_of_the_apps_migrations(postgresql_store, empty_database_url):
    postgresql_store.add([profile()])
    engine = sqlalchemy.create_engine(empty_database_url, poolclass=sqlalchemy.NullPool)
    assert sqlalchemy.inspect(engine).get_table_names() == []


def test_no_listener_of_the_app_sees_the_stores_own_statements(store):
    seen = []

    def listener(*arguments):
        seen.append(arguments)

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", listener)
    sqlalchemy.event.listen(sqlalchemy.Pool, "connect", listener)
    try:
        store.add([profile()])
        store.endpoints()
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", listener)
        sqlalchemy.event.remove(sqlalchemy.Pool, "connect", listener)
    assert seen == []
