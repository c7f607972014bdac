"""The console's page Compare, and the command: two periods of a store, two captures, all endpoints."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient

from profilers.cli import profile as command
from profilers.console import capture, capturing, views
from profilers.console.app import create_console
from profilers.console.views import Source
from profilers.profile import Finding, Profile, Statement
from profilers.store import Period, Store, open_store

NOW = 1_760_000_000.0


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request, tmp_path) -> Store:
    postgresql = request.param == "postgresql"
    return open_store(request.getfixturevalue("empty_database_url") if postgresql else tmp_path / "profiles")


def fill(
    store: Store,
    since: float,
    name: str = "GET /",
    *,
    requests: int = 700,
    statements: int = 1,
    every: float = 1,
) -> None:
    """So many requests, one every second, each with so many statements of a millisecond."""
    kept = [Statement("SELECT 1", 0.0, 0.001, 2)] * statements
    found = [Finding("n_plus_one", "lazy_relationship", "Post.author", 3)] if statements > 3 else []
    profiles = [
        Profile(name, since + number * every, duration=0.001 * statements) for number in range(requests)
    ]
    for profile in profiles:
        profile.statements, profile.findings = kept, found
    store.add(profiles)


def client_of(store: Store) -> FlaskClient:
    return create_console(Source(reader=store, store=store), lambda request: True).test_client()


def test_the_newest_hour_and_the_one_before_with_all_their_requests(store):
    now = time.time()
    fill(store, now - 7000)
    fill(store, now - 3000, statements=4)
    found = client_of(store).get("/compare.json?length=1h").get_json()
    (difference,) = found["compared"]["differences"]
    assert difference["requests"] == [700, 700]
    assert difference["statements"] == [1, 4]
    assert difference["rows"] == [2, 8]
    assert [row["finding"]["subject"] for row in found["compared"]["new_findings"]] == ["Post.author"]
    page = client_of(store).get("/compare?length=1h").text
    assert '<span class="bad">slower</span>' in page


@pytest.mark.parametrize("until", [f"{NOW:.0f}", time.strftime("%Y-%m-%dT%H:%M", time.localtime(NOW))])
def test_a_period_of_long_ago_and_the_same_time_a_day_before(store, until):
    fill(store, NOW - 3000)
    fill(store, NOW - 86400 - 3000, statements=2)
    found = client_of(store).get(f"/compare.json?length=1h&back=1d&until={until}").get_json()
    (difference,) = found["compared"]["differences"]
    assert difference["statements"] == [2, 1]


@pytest.mark.parametrize("query", ["length=2w", "until=x", "back=3d", "a=nope&b=nope"])
def test_a_mistake_is_told(store, query):
    assert client_of(store).get(f"/compare?{query}").status_code in (400, 404)


def test_what_changed_is_first_and_each_endpoint_is_on_one_page(store, monkeypatch):
    monkeypatch.setattr(views, "COMPARED", 3)
    now = time.time()
    for number in range(8):
        fill(store, now - 7000, f"GET /{number}", requests=8)
        fill(store, now - 3000, f"GET /{number}", requests=8, statements=2 if number == 7 else 1)
    client = client_of(store)
    seen: list[str] = []
    query = "length=1h"
    while query:
        found = client.get(f"/compare.json?{query}").get_json()
        seen += [each["name"] for each in found["compared"]["differences"]]
        last = found["next"]
        query = f"length=1h&until={found['until']}&after={last}" if last else ""
    assert seen == ["GET /7", *(f"GET /{number}" for number in range(7))]
    assert "after=GET+/1" in client.get("/compare?length=1h").text


def test_two_captures_of_the_store(store, monkeypatch):
    monkeypatch.setattr(capturing, "SAVE_AFTER", 0.0)
    for statements in (1, 2):
        capturing.start(store, seconds=60)
        fill(store, time.time(), requests=9, statements=statements, every=0)
        capturing.stop(store)
        keeper = store.keeper()
        capturing.Saver(store)(keeper)
        keeper.close()
        store.clear()
    after, before = capturing.captures(store)
    client = client_of(store)
    found = client.get(f"/compare.json?a={before.id}&b={after.id}").get_json()
    assert found["compared"]["differences"][0]["statements"] == [1, 2]
    assert client.get(f"/compare?a={before.id}&b={after.id}").text.count("capture of ") == 2
    assert "Compare captures" in client.get("/compare").text


class TestCommand:
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return open_store(tmp_path / "profiles")

    def run(self, store: Store, *arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(command, ["--store", str(store.database), "compare", *arguments])
        return result.exit_code, result.output

    def test_two_periods_of_a_store(self, store):
        now = time.time()
        fill(store, now - 7000)
        fill(store, now - 3000, statements=2)
        status, output = self.run(store, "--last", "1h")
        assert status == 0
        assert "GET /: 1 -> 2 statements" in output
        status, output = self.run(store, "--last", "1h", "--fail-on", "more-statements")
        assert (status, "more-statements: see above" in output) == (1, True)
        status, output = self.run(store, "--last", "1h", "--back", "24h")
        assert (status, "holds no profile" in output) == (1, True)

    def test_two_captures(self, store, tmp_path):
        fill(store, NOW)
        made = json.loads(capture.save(store, Period(), NOW))
        (tmp_path / "before.json").write_text(json.dumps(made))
        made["endpoint_rows"][0]["statements"] *= 3
        (tmp_path / "after.json").write_text(json.dumps(made))
        status, output = self.run(store, str(tmp_path / "before.json"), str(tmp_path / "after.json"))
        assert status == 0
        assert "GET /: 1 -> 3 statements" in output

    @pytest.mark.parametrize("arguments", [[], ["a"], ["a", "b", "--last", "1h"], ["--back", "1h"]])
    def test_what_is_missing_is_told(self, store, arguments):
        status, output = self.run(store, *arguments)
        assert (status, "expected two stores A and B, or --last" in output) == (2, True)
