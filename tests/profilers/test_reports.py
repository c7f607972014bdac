"""Each report says what the store holds, and shows whatever an app puts into it as text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest

from profilers.profile import Finding, Location, Profile, Statement
from profilers.reports import VERSION, build, formats, sarif, text
from profilers.reports.units import shortened, visible
from profilers.store import Period, Store, open_store
from tests.profilers import hostile

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(tmp_path / "reports")


@pytest.fixture
def filled(store) -> Store:
    """Two endpoints; ten statements of one are an N+1."""
    lazy = Statement("SELECT author", 0.001, 0.001, 1, Location("blog.py", 12, "posts"))
    finding = Finding(
        "n_plus_one",
        "lazy_relationship",
        "Post.author",
        10,
        Location("blog.html", 3, "template"),
        Location("blog.py", 9, "posts"),
        ".options(joinedload(Post.author))",
        "N+1: Post.author was loaded one at a time",
        0.01,
    )
    for number in range(4):
        slow = Profile("GET /posts", 1_760_000_000.0 + number, duration=0.1, status=200, host="h", worker=1)
        slow.statements = [lazy] * 10
        slow.findings = [finding]
        fast = Profile("GET /", 1_760_000_000.0 + number, duration=0.001, status=500, host="h", worker=1)
        store.add([slow, fast])
    return store


def drawn(store: Store, name: str, period: Period = Period()) -> str:
    return formats()[name](build(store, period))


def test_json_round_trips_and_says_what_the_store_says(filled):
    report = json.loads(drawn(filled, "json"))
    assert report["version"] == VERSION
    assert {row["name"]: row["requests"] for row in report["endpoints"]} == {"GET /posts": 4, "GET /": 4}
    (finding,) = report["findings"]
    assert (finding["statements"], finding["finding"]["origin"]) == (40, ["blog.py", 9, "posts"])
    rebuilt = Profile.from_json(report["slowest"][0])
    assert rebuilt == filled.profile(rebuilt.id)


@pytest.mark.parametrize("name", ["text", "md", "html"])
def test_it_names_the_endpoint_the_finding_both_lines_and_the_fix(filled, name):
    page = drawn(filled, name).replace("\\", "")
    for words in (
        "GET /posts",
        "40 statements in 4 requests",
        "Post.author",
        "blog.py:9 in posts",
        "blog.html:3 in template",
        ".options(joinedload(Post.author))",
    ):
        assert words in page


@pytest.mark.parametrize("name", sorted(formats()))
def test_a_period_limits_it(filled, name):
    assert "/posts" not in drawn(filled, name, Period(name="GET /"))
    assert "/posts" in drawn(filled, name, Period(name="GET /p*")) or name == "sarif"


@pytest.mark.parametrize("name", sorted(formats()))
def test_an_empty_store_is_a_whole_report(store, name):
    page = drawn(store, name)
    assert page
    if name == "text":
        assert page == text.EMPTY


def test_rows_that_the_driver_does_not_count_are_no_zero(store):
    profile = Profile("GET /posts", 1_760_000_000.0, duration=0.1, host="h", worker=1)
    profile.statements = [
        Statement("SELECT uncounted", 0.001, 0.001),
        Statement("SELECT ten", 0.001, 0.001, 10),
    ]
    store.add([profile])
    page = " ".join(re.sub("<[^>]+>", " ", drawn(store, "html")).split())
    assert re.search(r"SELECT uncounted \S+ \S+ ms \S+ ms \N{EN DASH}", page)
    lines = text.statements(store.statements(Period())).splitlines()
    assert sorted(line.split()[-1] for line in lines[2:]) == ["-", "10"]


def test_what_was_left_out_is_said(filled, monkeypatch):
    monkeypatch.setattr(type(filled), "left_out", lambda self: {"profiles": 7, "bytes": 0})
    for name in ("text", "md", "html"):
        assert "7 profiles" in drawn(filled, name)
        assert "0 bytes" not in drawn(filled, name)


class Page(HTMLParser):
    """The elements, attributes and text of a page, as a browser would see them."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.fault(46)
def test_html_shows_hostile_text_as_text(store):
    hostile.fill(store)
    source = drawn(store, "html")
    page = Page(source)
    assert "script" not in page.tags | page.attributes
    assert "img" not in page.tags
    assert not {name for name in page.attributes if name.startswith("on")}
    assert page.text.count(hostile.HTML) >= 6, "statement, route, block, subject, fix, place"
    assert "{{ 7 * 7 }}" in page.text
    assert not CONTROL.search(source)


@pytest.mark.fault(46)
def test_markdown_shows_hostile_text_as_text(store):
    hostile.fill(store)
    page = drawn(store, "md")
    assert "<script" not in page
    assert "<img" not in page
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {9}, "no cell is broken in two"
    assert not re.search(r"(?<!\\)(`|\*\*f|\[d)", page)
    assert not re.search(r"^# g", page, re.MULTILINE)
    assert not CONTROL.search(page)


def test_a_terminal_is_not_commanded_by_what_it_is_shown(store):
    profile = hostile.fill(store)
    kept = store.profile(profile.id)
    assert kept is not None
    pages = (
        drawn(store, "text"),
        text.profile(kept),
        text.profiles(store.profiles()),
        text.statements(store.statements()),
    )
    for page in pages:
        assert "\\x1b[2J" in page or "SELECT" in page
        assert not CONTROL.search(page)
    assert len(text.profiles(store.profiles()).splitlines()) == 4, "a name with a line break is one line"


def test_visible_leaves_ordinary_text_alone():
    assert visible("naïve\tΩ 日本\n") == "naïve\tΩ 日本\n"
    assert visible("\x1b[31m\x9b\u202e\ud800") == "\\x1b[31m\\x9b\\u202e\\ud800"
    assert shortened("a\nb\x1b", 10) == "a b\\x1b"


@pytest.mark.parametrize("name", ["json", "sarif", "speedscope"])
def test_tools_get_json_without_a_raw_control_character(store, name):
    hostile.fill(store)
    page = drawn(store, name)
    assert not CONTROL.search(page)
    assert hostile.HTML in str(json.loads(page))


def check_sarif(log: dict) -> list[dict]:
    """The rules of SARIF 2.1.0 (OASIS) that a log of findings can break; the results."""
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"]
    ids = [rule["id"] for rule in driver["rules"]]
    assert len(ids) == len(set(ids)), "3.19.23: rules are unique"
    assert all(rule["shortDescription"]["text"] for rule in driver["rules"])
    for result in run["results"]:
        assert result["ruleId"] in ids
        assert result["level"] in ("none", "note", "warning", "error")
        assert result["message"]["text"]
        assert all(isinstance(value, str) for value in result["partialFingerprints"].values())
        for place in result.get("locations", []) + result.get("relatedLocations", []):
            physical = place["physicalLocation"]
            uri = physical["artifactLocation"]["uri"]
            assert re.fullmatch(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*", uri), f"RFC 3986: {uri!r}"
            assert urlsplit(uri).scheme in ("", "file")
            assert physical["region"]["startLine"] >= 1
    return run["results"]


def test_sarif_puts_one_result_on_the_line_to_mend(filled):
    (result,) = check_sarif(json.loads(drawn(filled, "sarif")))
    assert result["ruleId"] == "n_plus_one/lazy_relationship"
    place = result["locations"][0]["physicalLocation"]
    assert (place["artifactLocation"]["uri"], place["region"]["startLine"]) == ("blog.py", 9)
    touched = result["relatedLocations"][0]["physicalLocation"]
    assert touched["artifactLocation"]["uri"] == "blog.html"


@pytest.mark.parametrize("file", ["/srv/my app/ü.py", "<template>", "a b/c:d%.py", hostile.TEXT, "c:\\x.py"])
def test_sarif_is_valid_whatever_the_file_is_called(file):
    finding = Finding("n_plus_one", "get_in_loop", "x", 5, Location(file, 0, "f"))
    assert check_sarif(json.loads(sarif.render_findings([finding])))


def test_sarif_without_findings_is_valid(store):
    assert check_sarif(json.loads(drawn(store, "sarif"))) == []


def test_speedscope_events_are_nested_ordered_and_point_to_frames(filled):
    file = json.loads(drawn(filled, "speedscope"))
    assert file["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    frames = file["shared"]["frames"]
    assert all(frame["name"] for frame in frames)
    assert file["profiles"]
    for profile in file["profiles"]:
        assert (profile["type"], profile["unit"]) == ("evented", "seconds")
        opened, now = [], profile["startValue"]
        for event in profile["events"]:
            assert now <= event["at"] <= profile["endValue"]
            now = event["at"]
            assert 0 <= event["frame"] < len(frames)
            if event["type"] == "O":
                opened.append(event["frame"])
            else:
                assert event["type"] == "C"
                assert opened.pop() == event["frame"]
        assert opened == []


def test_speedscope_cuts_statements_of_threads_that_overlap(store):
    profile = Profile("GET /", 1_760_000_000.0, duration=0.01, id="overlap", status=200)
    profile.statements = [Statement("A", 0.001, 0.008), Statement("B", 0.002, 0.5)]
    profile.findings = [Finding("n_plus_one", "get_in_loop", "x", 2)]
    store.add([profile])
    events = json.loads(drawn(store, "speedscope"))["profiles"][0]["events"]
    times = [event["at"] for event in events]
    assert times == sorted(times)
    assert max(times) == pytest.approx(0.01)
