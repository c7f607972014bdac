"""queries.lock: read, compare, write; what a reviewer sees when a route asks more."""

from pathlib import Path

import pytest

from profilers.profile import Finding, Location, Profile, Statement
from profilers.testing import lock_file

LINE = Location("api.py", 41, "list_services")


def request(*shapes: str, findings: tuple[str, ...] = ()) -> Profile:
    return Profile(
        "GET /services",
        0.0,
        statements=[Statement(shape, 0.0, location=LINE) for shape in shapes],
        findings=[Finding("n_plus_one", "lazy_relationship", subject, 5) for subject in findings],
    )


def test_the_same_run_agrees_with_what_it_wrote(tmp_path: Path) -> None:
    seen = lock_file.collect([request("SELECT a", "SELECT b", findings=("Post.author",))])
    lock_file.write(tmp_path / "queries.lock", {}, seen)
    assert lock_file.differences(lock_file.read(tmp_path / "queries.lock"), seen) == []


def test_one_more_query_is_named_with_its_line() -> None:
    locked = lock_file.collect([request("SELECT a")])
    seen = lock_file.collect([request("SELECT a", "SELECT b")])
    assert lock_file.differences(locked, seen) == [f"GET /services: +1 query at {LINE}: SELECT b"]


def test_fewer_queries_are_a_difference_too() -> None:
    locked = lock_file.collect([request("SELECT a", "SELECT a", "SELECT a")])
    seen = lock_file.collect([request("SELECT a")])
    assert lock_file.differences(locked, seen) == [f"GET /services: -2 queries at {LINE}: SELECT a"]


def test_new_and_gone_findings_are_named() -> None:
    locked = lock_file.collect([request(findings=("Post.author",))])
    seen = lock_file.collect([request(findings=("Post.tags",))])
    assert lock_file.differences(locked, seen) == [
        "GET /services: new finding: lazy_relationship Post.tags",
        "GET /services: finding gone: lazy_relationship Post.author",
    ]


def test_a_route_the_run_did_not_visit_is_not_judged_and_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "queries.lock"
    lock_file.write(path, {}, lock_file.collect([request("SELECT a")]))
    other = lock_file.collect([Profile("GET /other", 0.0)])
    assert lock_file.differences(lock_file.read(path), other) == ["GET /other: not in the lock (0 queries)"]
    lock_file.write(path, lock_file.read(path), other)
    assert list(lock_file.read(path)) == ["GET /other", "GET /services"]


def test_the_worst_request_of_a_route_counts() -> None:
    seen = lock_file.collect([request("SELECT a"), request("SELECT a", "SELECT a"), request("SELECT a")])
    assert seen["GET /services"].statements.total() == 2


def test_workers_are_joined_by_their_worst_request_and_all_findings() -> None:
    runs = [
        lock_file.to_json(lock_file.collect([request("SELECT a", findings=("Post.author",))])),
        lock_file.to_json(lock_file.collect([request("SELECT a", "SELECT b")])),
    ]
    merged = lock_file.merge(runs)["GET /services"]
    assert (merged.statements.total(), merged.findings) == (2, {"lazy_relationship Post.author"})


@pytest.mark.parametrize("text", ["[]", '{"version": 99, "routes": {}}', "not json"])
def test_a_file_that_is_no_lock_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "queries.lock"
    path.write_text(text)
    with pytest.raises(ValueError):
        lock_file.read(path)
