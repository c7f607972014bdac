"""Captures: what is saved opens again, and what was tampered with is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from profilers.cli import profile as command
from profilers.console.capture import Capture, CaptureError, load, parse, save
from profilers.console.viewer import create_viewer
from profilers.store import MemorySample, Period, Store, open_store
from tests.profilers import hostile


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(tmp_path / "profiles")
    hostile.fill(store)
    return store


@pytest.fixture
def saved(store: Store) -> str:
    return save(store, Period(), 1_760_000_000)


def test_a_capture_says_what_the_store_said(store, saved):
    capture = parse(saved)
    plain = [json.loads(json.dumps(row.name)) for row in capture.endpoints()]
    assert plain == [row.name for row in store.endpoints()]
    assert capture.findings() == store.findings()
    assert capture.statements() == store.statements()
    assert capture.profiles() == store.profiles()
    assert capture.profile("request1") == store.profile("request1")
    assert list(capture.every_profile())
    assert capture.profile("nope") is None


def test_it_goes_through_pages_and_endpoints_as_a_store_does(store, saved):
    capture = parse(saved)
    first, second = capture.profiles()
    assert capture.profiles(limit=1) == [first]
    assert capture.profiles(before=first.id) == [second]
    assert capture.profiles(Period(name=second.name)) == [second]
    assert [row.name for row in capture.endpoints(Period(name="GET*"))] == [
        f"GET /{hostile.TEXT}"[:500].replace("\0", "")
    ]


def test_memory_is_saved_too():
    empty = Capture(
        1.0, (), (), (), (), (), (MemorySample(1.0, "host", 7, 0.5, rss=10, collections=(1, 2)),), {}
    )
    assert parse(save(empty, Period(), 2)).memory() == empty.samples


def changed(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Put a value somewhere into the JSON: `endpoint_rows.0.requests`."""

    def change(data: Any) -> None:
        *steps, last = (int(step) if step.isdigit() else step for step in path.split("."))
        for step in steps:
            data = data[step]
        data[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        changed("format", "something else"),
        changed("version", 1),
        changed("made_at", "yesterday"),
        changed("unknown", 1),
        changed("endpoint_rows", {}),
        changed("endpoint_rows.0", 7),
        changed("endpoint_rows.0.requests", "12"),
        changed("endpoint_rows.0.requests", True),
        changed("endpoint_rows.0.duration_p50", 1e300),
        changed("endpoint_rows.0.timings", [1]),
        changed("finding_rows.0.finding.location", ["a.py", "7", "f"]),
        changed("finding_rows.0.finding.location", ["a.py"]),
        changed("finding_rows.0.finding.__class__", "x"),
        changed("profile_rows.0.status", None),
        changed("details.0.statements.0.shape", ["x"]),
        changed(
            "details.0.sections", {"pyinstrument": {"frames": ["f"], "nodes": [[-1, 9]], "samples": [[0, 1]]}}
        ),
        changed("details.0.sections", {"pyinstrument": {"frames": 7, "nodes": 7, "samples": 7}}),
        changed("details.0.sections", {"memory": {"peak": "<b>", "kept": 1}}),
        changed("details.0.findings.0.details", {"plan": 7}),
    ],
)
def test_what_was_tampered_with_is_refused_in_a_line(saved, change):
    data = json.loads(saved)
    change(data)
    assert json.dumps(data) != saved
    with pytest.raises(CaptureError) as error:
        parse(json.dumps(data))
    assert "\n" not in str(error.value)


@pytest.mark.fault(44)
@pytest.mark.parametrize(
    "text", ["", "[]", "7", "{", "NaN", '{"format": NaN}', "[" * 100_000, "\x80\x04pickle", '{"format": "x"}']
)
def test_what_is_no_capture_is_refused(text):
    with pytest.raises(CaptureError):
        parse(text)


def test_a_loop_of_callers_is_drawn_once(saved):
    data = json.loads(saved)
    section = {
        "frames": ["f\0a.py\x001"],
        "nodes": [[0, 0], [1, 0], [0, 0]],
        "samples": [[0, 5], [1, 5], [2, 5]],
    }
    data["details"][0]["sections"] = {"pyinstrument": section}
    parse(json.dumps(data))


def test_a_file_that_is_none_ends_the_command_in_one_line(tmp_path):
    path = tmp_path / "capture.json"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CaptureError):
        load(path)
    result = CliRunner().invoke(command, ["view", str(path)])
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert "capture.json" in result.output


def test_the_viewer_answers_this_machine_only(saved, tmp_path):
    path = tmp_path / "capture.json"
    path.write_text(saved)
    client = create_viewer(path).test_client()
    assert client.get("/", environ_base={"REMOTE_ADDR": "127.0.0.1"}).status_code == 200
    assert client.get("/", environ_base={"REMOTE_ADDR": "10.0.0.9"}).status_code == 404
    assert (
        client.get("/", base_url="http://evil.example", environ_base={"REMOTE_ADDR": "127.0.0.1"}).status_code
        == 404
    )


def test_the_viewer_changes_nothing(saved, tmp_path):
    path = tmp_path / "capture.json"
    path.write_text(saved)
    client = create_viewer(path).test_client()
    for address in ("/clear", "/switches/on", "/switches/off", "/switches"):
        answer = client.post(
            address, environ_base={"REMOTE_ADDR": "127.0.0.1"}, headers={"Origin": "http://localhost"}
        )
        assert answer.status_code in (404, 405), address


def test_the_viewer_says_whether_the_workers_leaked(tmp_path):
    samples = tuple(MemorySample(100.0 + n, "host", 7, 0.5, rss=10**7, blocks=10**5) for n in range(9))
    path = tmp_path / "capture.json"
    path.write_text(save(Capture(1.0, (), (), (), (), (), samples, {}), Period(), 2))
    client = create_viewer(path).test_client()
    page = client.get("/workers", environ_base={"REMOTE_ADDR": "127.0.0.1"}).text
    assert re.search(r"<strong[^>]*>Not enough data</strong></h2>\s*<p>There were no requests", page)
