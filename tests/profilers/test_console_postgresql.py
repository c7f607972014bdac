"""The console over a store in PostgreSQL: an app's own requests, and page by page what SQLite gives."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from profilers.console.app import create_console
from profilers.console.views import Source
from profilers.profile import Finding, Location, Profile, Statement
from profilers.storage.memory_samples import append_sample
from profilers.store import MemorySample, Store, open_store
from tests.conftest import new_database
from tests.profilers.test_console import JSON, PAGES, ROOT, SEEN, make_app, wait_for_requests

SAME = ["/overview.json", "/findings.json", "/requests.json", "/statements.json", "/compare.json",
        "/captures.json", "/switches.json"]  # fmt: skip


def fill(store: Store) -> None:
    """Three hours of requests to five endpoints with statements, findings, plans, failures and samples."""
    draw, now = random.Random(4), time.time() // 3600 * 3600
    place = Location("shop/views.py", 19, "orders")
    profiles = []
    for number in range(300):
        profile = Profile(f"GET /{number % 5}", now - 36 * number, duration=draw.uniform(0.01, 0.3))
        profile.id, profile.host, profile.worker = f"request{number:03}", "host", 1 + number % 4
        profile.status = 500 if number % 50 == 0 else 200
        profile.statements = [
            Statement(f"SELECT {each} FROM t{number % 7}", 0.0, draw.uniform(0.001, 0.01), each, place)
            for each in range(1 + number % 4)
        ]
        if number % 9 == 0:
            plan = [f"{'Seq' if number < 150 else 'Index'} Scan on t (cost 9, 1 rows)"]
            profile.findings = [
                Finding("n_plus_one", "lazy_relationship", "Post.author", 5, place, place, "fix", "N+1"),
                Finding("slow_query", "slow_statement", profile.statements[0].shape, 1, duration=0.1,
                        details={"plan": plan, "planned_at": profile.started_at, "database": "shop"}),
            ]  # fmt: skip
        profiles.append(profile)
    store.add(profiles)
    connection = store.database.connect()
    with connection.transaction(write=True):
        for number in range(20):
            append_sample(connection, MemorySample(now - number, "host", 1, 0.5, rss=10**7 + number))
    connection.close()


@pytest.fixture(scope="module")
def clients(server: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two consoles over the same requests, on PostgreSQL and on SQLite."""
    folder: Path = tmp_path_factory.mktemp("stores")
    with new_database(server.url) as url:
        stores = [open_store(url), open_store(folder)]
        for store in stores:
            fill(store)
        consoles = [create_console(Source(reader=each, store=each), lambda _: True) for each in stores]
        yield [console.test_client() for console in consoles]


def rounded(value: Any) -> Any:
    """Without what adding up in another order changes, and without the time that passes."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items() if key not in ("now", "until", "labels")}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return round(value, 6) if isinstance(value, float) else value


@pytest.mark.parametrize("path", [*SAME, "/requests/request027.json", "/workers.json"])
@pytest.mark.parametrize("query", ["last=all", "last=6h&route=GET+/*", "length=1h&route=GET+/3"])
def test_every_page_has_the_same_data_on_both(clients: list[FlaskClient], path, query, monkeypatch):
    at = time.time()
    monkeypatch.setattr(time, "time", lambda: at)  # a period that ends now is the same one for both
    postgresql, sqlite = (client.get(f"{path}?{query}") for client in clients)
    assert postgresql.status_code == sqlite.status_code == 200
    found, expected = rounded(postgresql.get_json()), rounded(sqlite.get_json())
    for each in (found, expected):
        each.pop("leak", None)
    assert found == expected


@pytest.mark.parametrize("path", [*PAGES, "/requests/request027"])
def test_every_page_is_drawn_from_it(clients: list[FlaskClient], path):
    pages = [client.get(f"{path}?last=all") for client in clients]
    assert [page.status_code for page in pages] == [200, 200]
    assert abs(len(pages[0].data) - len(pages[1].data)) < 400


def test_going_back_through_the_requests_shows_each_once(clients: list[FlaskClient]):
    seen: list[str] = []
    before = ""
    while before is not None:
        found = clients[0].get(f"/requests.json?last=all{f'&before={before}' if before else ''}").get_json()
        seen += [row["id"] for row in found["requests"]]
        before = found["before"]
    assert seen == [f"request{number:03}" for number in range(300)]


def test_an_app_with_such_a_store_shows_its_own_requests(empty_database_url, monkeypatch):
    monkeypatch.setenv("FLASK_PROFILE_STORE", empty_database_url)
    client = make_app().test_client()
    store = open_store(empty_database_url)
    client.get("/page")
    wait_for_requests(store, 1)
    assert "GET /page" in client.get(f"{ROOT}/", headers=SEEN).text
    mine = f"/requests/{store.profiles()[0].id}"
    for path in [*PAGES, *JSON, mine, f"{mine}.json"]:
        assert client.get(f"{ROOT}{path}?last=all", headers=SEEN).status_code == 200, path
    assert client.post(f"{ROOT}/clear", headers=SEEN).status_code == 303
    assert store.endpoints() == []
