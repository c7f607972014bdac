"""What a worker was doing when it was killed is told by the others; an orderly end tells nothing."""

import errno
import multiprocessing
import os
import signal
import threading
import time

import pytest

from profilers import worker_slots
from profilers.profile import Location
from profilers.worker_slots import WorkerSlots

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

context = multiprocessing.get_context("fork")


def this_file(frame):
    """The innermost line of this file on a stack."""
    while frame is not None and frame.f_code.co_filename != __file__:
        frame = frame.f_back
    return frame and Location("app.py", frame.f_lineno, frame.f_code.co_name)


def die_in_request(path, ready):
    slots = WorkerSlots.of(path)
    slots.claim()
    slots.end(slots.begin("GET /done", time.time()))
    slots.begin("GET /healthy", time.time())
    slots.note_lines(this_file, older_than=0.0)
    ready.set()
    time.sleep(60)


def run_and_kill(path, target, how=signal.SIGKILL):
    ready = context.Event()
    process = context.Process(target=target, args=(path, ready))
    process.start()
    assert ready.wait(10)
    os.kill(process.pid, how)
    process.join(10)
    return process.pid


def test_the_killed_request_is_named_with_its_line(tmp_path):
    path = tmp_path / "slots"
    pid = run_and_kill(path, die_in_request)

    (profile,) = WorkerSlots.of(path).collect_dead()

    assert (profile.name, profile.worker, profile.outcome) == ("GET /healthy", pid, "killed")
    (finding,) = profile.findings
    assert finding.location.function == "die_in_request"
    assert f"in GET /healthy at app.py:{finding.location.line}" in finding.message
    assert finding.details["rss"] > 1_000_000


def test_it_is_told_once(tmp_path):
    path = tmp_path / "slots"
    run_and_kill(path, die_in_request)
    slots = WorkerSlots.of(path)
    assert len(slots.collect_dead()) == 1
    assert slots.collect_dead() == []


def test_a_living_worker_is_left_alone(tmp_path):
    path = tmp_path / "slots"
    ready = context.Event()
    process = context.Process(target=die_in_request, args=(path, ready))
    process.start()
    try:
        assert ready.wait(10)
        assert WorkerSlots.of(path).collect_dead() == []
    finally:
        process.kill()
        process.join(10)


def end_in_order(path, ready):
    slots = WorkerSlots.of(path)
    slots.claim()
    slots.end(slots.begin("GET /done", time.time()))
    slots.close()
    ready.set()
    time.sleep(60)


def test_a_worker_that_ended_in_order_tells_nothing(tmp_path):
    path = tmp_path / "slots"
    run_and_kill(path, end_in_order)
    assert WorkerSlots.of(path).collect_dead() == []


def idle(path, ready):
    WorkerSlots.of(path).claim()
    ready.set()
    time.sleep(60)


def test_a_worker_killed_between_requests_tells_nothing(tmp_path):
    path = tmp_path / "slots"
    run_and_kill(path, idle)
    assert WorkerSlots.of(path).collect_dead() == []


def abort(path, ready):
    slots = WorkerSlots.of(path)
    slots.claim()
    slot = slots.begin("GET /slow", time.time())
    slots.abort(this_file)
    slots.end(slot)  # the request's own clean-up still runs as the worker leaves, and so does the writer
    slots.note_lines(this_file)
    slots.close()
    ready.set()
    time.sleep(60)


def test_a_request_whose_worker_was_given_up_has_timed_out(tmp_path):
    path = tmp_path / "slots"
    run_and_kill(path, abort)
    (profile,) = WorkerSlots.of(path).collect_dead()
    assert profile.outcome == "timed_out"
    assert profile.findings[0].message.startswith("timed out after")
    assert profile.findings[0].location.function == "abort"


def begin_again(path, ready):
    slots = WorkerSlots.of(path)
    slots.claim()
    slot = slots.begin("GET /first", time.time())
    slots.end(slot)
    slots.note_lines(this_file, older_than=0.0)
    slots.begin("GET /second", time.time())
    ready.set()
    time.sleep(60)


def test_a_line_of_an_earlier_request_is_not_taken_for_a_later_ones(tmp_path):
    path = tmp_path / "slots"
    run_and_kill(path, begin_again)
    (profile,) = WorkerSlots.of(path).collect_dead()
    assert profile.name == "GET /second"
    assert profile.findings[0].location is None


def test_a_part_of_the_file_is_used_again_by_a_replacement(tmp_path):
    path = tmp_path / "slots"
    for _ in range(3):
        run_and_kill(path, die_in_request)
        assert len(WorkerSlots.of(path).collect_dead()) == 1
    slots = WorkerSlots.of(path)
    assert slots.claim()
    assert slots._part == 0


def claim_in_a_child(path, result):
    slots = WorkerSlots.of(path)
    result.put((slots.claim(), slots._part, len(slots.collect_dead())))


def test_a_forked_worker_takes_a_part_of_its_own(tmp_path):
    path = tmp_path / "slots"
    mine = WorkerSlots.of(path)
    assert mine.claim()
    mine.begin("GET /mine", time.time())
    result = context.SimpleQueue()
    child = context.Process(target=claim_in_a_child, args=(path, result))
    child.start()
    assert result.get() == (True, mine._part + 1, 0)
    child.join(10)


def test_requests_of_several_threads_have_their_own_lines(tmp_path):
    path = tmp_path / "slots"
    run_and_kill(path, two_threads)
    profiles = WorkerSlots.of(path).collect_dead()
    assert {(item.name, item.findings[0].location.function) for item in profiles} == {
        ("GET /a", "wait_in_a"),
        ("GET /b", "wait_in_b"),
    }


def two_threads(path, ready):
    slots = WorkerSlots.of(path)
    slots.claim()
    begun = threading.Barrier(3)

    def wait_in_a():
        slots.begin("GET /a", time.time())
        begun.wait()
        time.sleep(60)

    def wait_in_b():
        slots.begin("GET /b", time.time())
        begun.wait()
        time.sleep(60)

    for target in (wait_in_a, wait_in_b):
        threading.Thread(target=target, daemon=True).start()
    begun.wait()
    slots.note_lines(this_file, older_than=0.0)
    ready.set()
    time.sleep(60)


def begin_in_three_threads(path, ready):
    slots = WorkerSlots.of(path)
    slots.claim()
    slots._free = type(slots._free)(list(slots._free)[:2])
    begun = threading.Barrier(4)

    def begin():
        slots.begin("GET /", time.time())
        begun.wait()
        time.sleep(60)

    for _ in range(3):
        threading.Thread(target=begin, daemon=True).start()
    begun.wait()
    ready.set()
    time.sleep(60)


def test_more_requests_than_slots_go_on_unnoted(tmp_path):
    run_and_kill(tmp_path / "slots", begin_in_three_threads)
    assert len(WorkerSlots.of(tmp_path / "slots").collect_dead()) == 2


def begin_routes_without_end(path, ready):
    slots = WorkerSlots.of(path)
    slots.claim()
    for number in range(2 * worker_slots.NAMES):
        slots.end(slots.begin(f"GET /{number}", time.time()))
    slots.begin("GET /0", time.time())
    threading.Thread(target=slots.begin, args=("GET /one more", time.time())).start()
    ready.set()
    time.sleep(60)


def test_more_names_than_there_is_room_for_are_others(tmp_path):
    run_and_kill(tmp_path / "slots", begin_routes_without_end)
    profiles = WorkerSlots.of(tmp_path / "slots").collect_dead()
    assert sorted(each.name for each in profiles) == ["(others)", "GET /0"]


def test_before_it_has_a_part_nothing_is_noted(tmp_path):
    slots = WorkerSlots.of(tmp_path / "slots")
    slots.end(slots.begin("GET /", time.time()))
    assert not any(slots._map[:])


def test_only_its_owner_can_read_the_file(tmp_path):
    path = tmp_path / "slots"
    WorkerSlots.of(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_disk_has_room_for_every_note_before_the_first_is_made(tmp_path):
    slots = WorkerSlots.of(tmp_path / "slots")
    assert (tmp_path / "slots").stat().st_blocks == 0
    slots.claim()
    assert (tmp_path / "slots").stat().st_blocks * 512 >= worker_slots._PART


def test_more_threads_than_slots_use_those_of_threads_that_serve_nothing(tmp_path):
    slots = WorkerSlots.of(tmp_path / "running")
    slots.claim()
    slots._free = type(slots._free)(list(slots._free)[:1])

    def in_a_thread(serve):
        thread = threading.Thread(target=serve)
        thread.start()
        thread.join()

    in_a_thread(lambda: slots.end(slots.begin("GET /first", time.time())))
    slot = slots.begin("GET /second", time.time())
    in_a_thread(lambda: slots.end(slots.begin("GET /no slot left", time.time())))
    assert [each.name for each in slots.running()] == ["GET /second"]
    slots.end(slot)
    assert slots.running() == []
    slots.close()


def test_on_a_full_disk_nothing_is_noted(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    slots = WorkerSlots.of(tmp_path / "slots")
    monkeypatch.setattr(os, "pwrite", full)
    assert not slots.claim()
    slots.end(slots.begin("GET /", time.time()))
    monkeypatch.undo()
    assert slots.claim(), "the part was given back"
