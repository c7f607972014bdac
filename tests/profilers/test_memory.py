"""The `memory` profiler in one process: looks at the worker, snapshots by line, what a request keeps."""

from __future__ import annotations

import json
import threading
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from flask import Flask

from profilers import Profilers, record
from profilers.memory import Memory, snapshots, tracing
from profilers.memory.snapshots import Frame, Snapshot, SnapshotError, Statistic, View
from profilers.memory.tracing import Tracing
from profilers.storage.memory_samples import append_sample, keep_samples_bounded
from profilers.store import Limits, MemorySample, Store, open_store
from profilers.testing.conformance import Conformance
from tests.servers import wait_for

KEPT: list[bytearray] = []


class TestMemory(Conformance):
    profiler = Memory


@pytest.fixture(autouse=True)
def _not_tracing() -> Iterator[None]:
    yield
    KEPT.clear()
    tracemalloc.stop()


@pytest.fixture
def watched(_own_store: None) -> Flask:
    """An app that is looked at ten times a second."""
    app = Flask("leaky")
    app.config.update(PROFILE="memory", PROFILE_MEMORY_INTERVAL=0.1, PROFILE_BRAKE=0)
    Profilers(app)

    @app.get("/keep/<int:size>")
    def keep(size: int) -> str:
        KEPT.append(bytearray(size))
        return ""

    @app.get("/use/<int:size>")
    def use(size: int) -> str:
        return str(len(bytearray(size)))

    return app


def store_of(app: Flask) -> Store:
    return app.extensions["profilers"].worker.store


def test_a_worker_is_looked_at_again_and_again_while_the_profiler_is_on(watched):
    client = watched.test_client()
    client.get("/use/1")
    client.get("/use/2")
    client.get("/nowhere")
    wait_for(lambda: len(store_of(watched).memory()) >= 3)
    wait_for(lambda: sum(store_of(watched).memory()[-1].requests.values()) == 3)
    sample = store_of(watched).memory()[-1]
    assert sample.requests == {"GET /use/<int:size>": 2, "GET (no route)": 1}
    assert sample.rss >= sample.uss > 1_000_000
    assert sample.blocks > 10_000
    assert len(sample.collections) == 3
    assert not sample.tracing


def test_switched_off_it_looks_no_more_and_on_again_it_goes_on(watched):
    before = threading.enumerate()

    def looking() -> bool:
        new = [thread.name for thread in threading.enumerate() if thread not in before]
        return "profilers-memory" in new

    watched.test_client().get("/use/1")
    memory = watched.extensions["profilers"].profilers[0]
    wait_for(lambda: store_of(watched).memory())
    assert looking()
    memory.on_switched(False)
    wait_for(lambda: not looking())
    count = len(store_of(watched).memory())
    memory.on_switched(True)
    wait_for(lambda: len(store_of(watched).memory()) > count)
    assert store_of(watched).memory()[-1].requests == {"GET /use/<int:size>": 1}


def test_tracing_goes_on_by_the_switch_and_off_by_itself(watched):
    client = watched.test_client()
    client.get("/use/1")
    assert not tracemalloc.is_tracing()
    tracing.turn(store_of(watched), Tracing("run", time.time() + 3, 4, snapshot_every=0.3, sample_every=0.1))
    wait_for(tracemalloc.is_tracing)
    client.get("/keep/2000000")
    folder = store_of(watched).database.path.parent / "memory"
    wait_for(lambda: len(snapshots.read_snapshots(folder, "run")) >= 2)
    newest = snapshots.read_snapshots(folder, "run")[-1]
    (line,) = [one for one in newest.statistics if one.bytes >= 2_000_000]
    assert Path(line.frames[0].file).name == Path(__file__).name
    assert snapshots.route_of(line.frames, newest.views) == "GET /keep/<int:size>"
    wait_for(lambda: not tracemalloc.is_tracing())
    wait_for(lambda: not store_of(watched).memory()[-1].tracing)


def test_a_tracemalloc_that_somebody_else_started_is_left_on(watched):
    tracemalloc.start(1)
    watched.test_client().get("/use/1")
    tracing.turn(store_of(watched), Tracing("run", time.time() + 2, sample_every=0.1))
    wait_for(lambda: any(sample.tracing for sample in store_of(watched).memory()))
    wait_for(lambda: not store_of(watched).memory()[-1].tracing)
    assert tracemalloc.is_tracing()


def test_a_request_says_what_it_took_and_what_it_kept(profiled):
    app, profiles = profiled("memory")
    app.add_url_rule("/keep", "keep", view_func=lambda: KEPT.append(bytearray(3_000_000)) or "")
    app.add_url_rule("/use", "use", view_func=lambda: str(len(bytearray(5_000_000))))
    client = app.test_client()
    client.get("/use")
    assert "memory" not in profiles[-1].sections
    tracemalloc.start(1)
    client.get("/keep")
    client.get("/use")
    kept, used = (profile.sections["memory"] for profile in profiles[-2:])
    assert kept["kept"] >= 3_000_000
    assert used["peak"] >= 5_000_000
    assert used["kept"] < 500_000
    assert not kept["shared"]


def test_a_request_beside_another_is_marked_as_shared_and_that_one_not_measured(profiled):
    app, profiles = profiled("memory")
    inside, leave = threading.Event(), threading.Event()
    app.add_url_rule("/slow", "slow", view_func=lambda: str((inside.set(), leave.wait(10))))
    app.add_url_rule("/quick", "quick", view_func=lambda: "")
    tracemalloc.start(1)
    slow = threading.Thread(target=app.test_client().get, args=("/slow",))
    slow.start()
    assert inside.wait(10)
    app.test_client().get("/quick")
    leave.set()
    slow.join()
    sections = {profile.name: profile.sections for profile in profiles}
    assert sections["GET /slow"]["memory"]["shared"]
    assert "memory" not in sections["GET /quick"]


def test_a_request_with_a_large_peak_is_a_finding_and_a_small_one_is_not(profiled):
    app, profiles = profiled("memory", PROFILE_MEMORY_PEAK_MEGABYTES=4)
    app.add_url_rule("/use/<int:size>", view_func=lambda size: str(len(bytearray(size))))
    tracemalloc.start(1)
    app.test_client().get("/use/3000000")
    app.test_client().get("/use/6000000")
    small, large = profiles
    assert not small.findings
    assert [finding.kind for finding in large.findings] == ["large_request"]


def test_a_block_is_measured_without_an_app():
    with record("import", profile="memory") as profile:
        KEPT.append(bytearray(1_000_000))
    assert profile.sections["memory"]["kept"] >= 1_000_000
    assert not tracemalloc.is_tracing()


def test_samples_are_bounded_in_number(tmp_path):
    store = open_store(tmp_path, Limits(memory_samples=10))
    connection = store.database.connect()
    with connection.transaction(write=True):
        for second in range(25):
            append_sample(connection, MemorySample(1e9 + second, "host", 1, 1e9, rss=second))
        keep_samples_bounded(connection, store.limits)
    connection.close()
    assert [sample.rss for sample in store.memory()] == list(range(15, 25))


def test_samples_are_kept_in_postgresql_as_well(empty_database_url):
    store = open_store(empty_database_url)
    sample = MemorySample(
        1e9, "host", 1, 9e8, rss=5, collections=(1, 2, 3), requests={"GET /": 2}, tracing="x"
    )
    connection = store.database.connect()
    with connection.transaction(write=True):
        append_sample(connection, sample)
        keep_samples_bounded(connection, store.limits)
    connection.close()
    tracing.turn(store, Tracing("run", time.time() + 60))
    assert store.memory() == [sample]
    asked = tracing.asked_for(store)
    assert asked is not None
    assert asked.id == "run"
    store.clear()
    assert store.memory() == []


SNAPSHOT = Snapshot(
    at=1e9,
    host="host",
    pid=7,
    born=9e8,
    tracing="run",
    statistics=(Statistic((Frame("/app/views.py", 12),), 1000, 10),),
    traced=1200,
    requests={"GET /": 3},
    views=(View("/app/views.py", 10, 14, "GET /"),),
)


def test_a_snapshot_is_json_that_only_its_owner_reads(tmp_path):
    path = snapshots.write_snapshot(tmp_path / "memory", SNAPSHOT, 10, 10**6)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert json.loads(path.read_text())["traced"] == 1200
    assert snapshots.read_snapshot(path) == SNAPSHOT


def test_snapshots_are_bounded_in_number_and_bytes(tmp_path):
    paths = [snapshots.write_snapshot(tmp_path, replace(SNAPSHOT, at=1e9 + n), 5, 10**6) for n in range(8)]
    assert sorted(tmp_path.iterdir()) == paths[3:]
    size = paths[-1].stat().st_size
    last = snapshots.write_snapshot(tmp_path, replace(SNAPSHOT, at=2e9), 5, 2 * size)
    assert sorted(tmp_path.iterdir()) == [paths[-1], last]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04\x95\x1f\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04true\x94\x85\x94R\x94.",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"format": "flask-profilers memory snapshot 1"}',
        json.dumps({**SNAPSHOT.to_json(), "pid": "7"}).encode(),
        json.dumps({**SNAPSHOT.to_json(), "statistics": [[["/etc/passwd"], 1, 1]]}).encode(),
        json.dumps({**SNAPSHOT.to_json(), "views": {"a": 1}}).encode(),
        b" " * (snapshots.MAX_FILE_BYTES + 1),
    ],
    ids=["empty", "a pickle", "a list", "null", "nested", "members missing", "text for a number", "frames",
         "views", "too large"],
)  # fmt: skip
def test_a_crafted_file_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "crafted.json"
    path.write_bytes(content)
    with pytest.raises(SnapshotError, match="is not a memory snapshot") as refused:
        snapshots.read_snapshot(path)
    assert "\n" not in str(refused.value)


def test_of_a_traceback_the_projects_lines_are_kept_and_the_library_that_it_called():
    project = __file__
    frames = [(json.__file__, 1), (json.__file__, 2), (project, 3), (json.__file__, 4), (project, 5)]
    assert snapshots.way_through_project(frames) == (
        Frame(json.__file__, 2),
        Frame(project, 3),
        Frame(project, 5),
    )
    assert snapshots.way_through_project(frames[:2]) == (Frame(json.__file__, 1), Frame(json.__file__, 2))
