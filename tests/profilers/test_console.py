"""The console without a browser: who sees it, what it answers, what it leaves alone."""

from __future__ import annotations

import json
import os
import re
import stat
import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask, Response
from flask.testing import FlaskClient

from profilers import ConfigError, Profilers
from profilers.console.access import COOKIE
from profilers.profile import Finding, Profile, Statement
from profilers.store import Store, open_store
from tests.profilers import hostile
from tests.profilers.example import memory_engine

TOKEN = "a token that only these tests know"
SEEN = {"X-Profile-Token": TOKEN}
ROOT = "/__profilers__"
PAGES = ["/", "/findings", "/requests", "/statements", "/workers", "/compare", "/captures", "/switches"]
JSON = ["/overview.json", *(f"{page}.json" for page in PAGES[1:]), "/capture.json"]
EVERYTHING = [*PAGES, *JSON, "/requests/request1", "/requests/request1.json", "/static/console.css",
              "/static/console.js", "/static/icon.svg", "/static/badge.css"]  # fmt: skip
CHANGES = [
    "/switches/on",
    "/switches/off",
    "/clear",
    "/captures/start",
    "/captures/stop",
    "/captures/1/delete",
]
LOCAL = {"REMOTE_ADDR": "127.0.0.1"}
INLINE = re.compile(r"<style|<[^>]*\s(style|on\w+)=|<script(?! type=\"module\" src=)")
HTML = "<html><body><h1>Hello</h1></body></html>"


def make_app(**config: Any) -> Flask:
    app = Flask("shop")
    settings = {"PROFILE": "queries,nplusone", "PROFILE_CONSOLE": True, "PROFILE_CONSOLE_TOKEN": TOKEN}
    app.config.update({**settings, "PROFILE_BRAKE": 0, **config})
    Profilers(app)
    engine = memory_engine()

    @app.get("/page")
    def page() -> str:
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
        return HTML

    return app


@pytest.fixture
def client() -> FlaskClient:
    return make_app().test_client()


@pytest.fixture
def store() -> Store:
    return open_store(os.environ["FLASK_PROFILE_STORE"])


def wait_for_requests(store: Store, count: int) -> None:
    deadline = time.monotonic() + 20
    while sum(row.requests for row in store.endpoints()) < count:
        assert time.monotonic() < deadline, "the profiles were not written"
        time.sleep(0.05)


def sign_in(client: FlaskClient, token: str = TOKEN, **headers: str) -> Any:
    return client.post(
        f"{ROOT}/", data={"token": token}, headers={"Sec-Fetch-Site": "same-origin", **headers}
    )


@pytest.mark.fault(44)
def test_without_permission_every_address_is_not_found(client):
    for path in EVERYTHING:
        assert client.get(ROOT + path).status_code == 404, path
        assert client.post(ROOT + path).status_code in (404, 405), path
    for path in CHANGES:
        assert client.post(ROOT + path, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 404


@pytest.mark.fault(44)
def test_what_a_stranger_sends_is_neither_run_nor_opened(client, tmp_path):
    opened = tmp_path / "opened"
    pickled = f"cposix\nsystem\n(S'touch {opened}'\ntR.".encode()
    for path in [*EVERYTHING, *CHANGES]:
        for body in (pickled, b"sql=DROP TABLE profiles"):
            assert client.post(ROOT + path, data=body).status_code in (404, 405), path
    assert not opened.exists()


@pytest.mark.fault(44)
def test_a_stranger_starts_no_profiler(store):
    answer = make_app(PROFILE="").test_client().get("/page?profile=1")
    assert answer.data == HTML.encode()
    make_app(PROFILE="queries").test_client().get("/page")
    wait_for_requests(store, 1)
    assert sum(row.requests for row in store.endpoints()) == 1


def test_with_the_token_every_address_answers(client, store):
    hostile.fill(store)
    for path in EVERYTHING:
        assert client.get(f"{ROOT}{path}?last=all", headers=SEEN, buffered=True).status_code == 200, path


def test_a_refusal_looks_like_flask_s_own(client):
    assert client.get(f"{ROOT}/findings").data == client.get("/nowhere").data


@pytest.mark.parametrize(
    "path", ["/nope", "/requests/nope", "/?last=3", "/findings?from=x", "/__profilers__"]
)
def test_wrong_addresses_are_errors_of_the_client(client, path):
    assert client.get(ROOT + path, headers=SEEN).status_code in (400, 404)


def test_off_by_default():
    app = make_app(PROFILE_CONSOLE=False)
    assert app.test_client().get(f"{ROOT}/", headers=SEEN).status_code == 404


def test_a_console_alone_has_everything_ready_to_be_switched_on(client):
    client = make_app(PROFILE="").test_client()
    assert client.get(f"{ROOT}/switches.json", headers=SEEN).get_json()["configured"] == []


class TestAccess:
    def test_signing_in_gives_a_cookie_that_scripts_and_other_sites_do_not_get(self, client):
        answer = sign_in(client)
        assert answer.status_code == 303
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert TOKEN not in cookie
        assert client.get(f"{ROOT}/findings").status_code == 200

    def test_a_wrong_token_is_told_apart_from_a_right_one_by_404(self, client):
        assert sign_in(client, "another token altogether").status_code == 404
        assert client.get(f"{ROOT}/").status_code == 404

    def test_another_site_cannot_sign_a_browser_in(self, client):
        assert sign_in(client, **{"Sec-Fetch-Site": "cross-site"}).status_code == 404

    @pytest.mark.parametrize("value", ["", "9999999999.", "9999999999.0000", "x.y", "é.é", "."])
    def test_a_made_up_cookie_opens_nothing(self, client, value):
        client.set_cookie(COOKIE, value)
        assert client.get(f"{ROOT}/findings").status_code == 404

    def test_a_cookie_ends(self, client, monkeypatch):
        sign_in(client)
        later = time.time() + 13 * 3600
        monkeypatch.setattr("profilers.console.access.time.time", lambda: later)
        assert (
            client.get(f"{ROOT}/findings", headers={"Cookie": client.get_cookie(COOKIE).value}).status_code
            == 404
        )

    @pytest.mark.parametrize(("answer", "status"), [(True, 200), (False, 404), (None, 404), ("yes", 404)])
    def test_a_function_of_the_app_decides(self, answer, status):
        client = make_app(PROFILE_CONSOLE_ACCESS=lambda: answer).test_client()
        assert client.get(f"{ROOT}/findings").status_code == status

    def test_a_function_that_raises_lets_nobody_in(self, caplog):
        client = make_app(PROFILE_CONSOLE_ACCESS=lambda: 1 / 0).test_client()
        assert client.get(f"{ROOT}/findings").status_code == 404
        assert "PROFILE_CONSOLE_ACCESS failed" in caplog.text

    def test_this_machine_sees_it_while_debugging(self, client):
        client.application.debug = True
        assert client.get(f"{ROOT}/", environ_base=LOCAL).status_code == 200

    @pytest.mark.parametrize(
        "differing",
        [
            {"environ_base": {"REMOTE_ADDR": "10.0.0.9"}},
            {"environ_base": LOCAL, "headers": {"X-Forwarded-For": "127.0.0.1"}},
            {"environ_base": LOCAL, "base_url": "http://evil.example/"},
        ],
        ids=["another machine", "a proxy", "another name"],
    )
    def test_nobody_else_does(self, client, differing):
        client.application.debug = True
        assert client.get(f"{ROOT}/findings", **differing).status_code == 404

    def test_a_made_token_is_one_for_all_workers_private_and_told_without_a_terminal_by_its_place(
        self, capsys, tmp_path
    ):
        for _ in range(3):
            make_app(PROFILE_CONSOLE_TOKEN="")
        path = tmp_path / "profiles" / "console-token"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        token = path.read_text()
        assert len(token) >= 40
        told = capsys.readouterr().err
        assert told.count(str(path)) == 1
        assert token not in told
        assert list(path.parent.glob("console-token.*")) == []
        client = make_app(PROFILE_CONSOLE_TOKEN="").test_client()
        assert client.get(f"{ROOT}/", headers={"X-Profile-Token": token}).status_code == 200

    @pytest.mark.parametrize(
        ("key", "value"),
        [("PROFILE_CONSOLE_TOKEN", "short"), ("PROFILE_CONSOLE_ACCESS", "x"), ("PROFILE_CONSOLE", "maybe")],
    )
    def test_a_wrong_setting_stops_the_start_in_one_line(self, key, value):
        with pytest.raises(ConfigError) as error:
            make_app(**{key: value})
        assert key in error.value.message
        assert "\n" not in error.value.message

    def test_a_token_that_others_can_read_stops_the_start(self, tmp_path):
        path = tmp_path / "profiles" / "console-token"
        path.parent.mkdir()
        path.write_text("x" * 40)
        path.chmod(0o644)
        with pytest.raises(ConfigError, match="others may read"):
            make_app(PROFILE_CONSOLE_TOKEN="")


class TestChanges:
    @pytest.mark.parametrize("path", CHANGES)
    def test_nothing_changes_by_get(self, client, path):
        assert client.get(ROOT + path, headers=SEEN).status_code == 405

    @pytest.mark.parametrize(
        "headers",
        [
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
            {"Origin": "http://evil.example"},
            {},
        ],
    )
    def test_another_site_changes_nothing(self, client, store, headers):
        hostile.fill(store)
        sign_in(client)
        assert client.post(f"{ROOT}/clear", headers=headers).status_code == 403
        assert len(store.endpoints()) == 2

    def test_the_page_itself_does(self, client, store):
        hostile.fill(store)
        sign_in(client)
        assert client.post(f"{ROOT}/clear", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 303
        assert client.post(f"{ROOT}/clear", headers={"Origin": "http://localhost"}).status_code == 303
        assert store.endpoints() == []

    def test_switches(self, client):
        form = {"profiler": ["slow-queries"], "endpoint": "GET /page", "sample": "50%", "for": "5m"}
        assert client.post(f"{ROOT}/switches/on", data=form, headers=SEEN).status_code == 303
        (switch,) = client.get(f"{ROOT}/switches.json", headers=SEEN).get_json()["on"]
        assert (switch["profilers"], switch["endpoint"], switch["sample"]) == (
            ["slow-queries"],
            "GET /page",
            0.5,
        )
        assert 290 < switch["left"] <= 300
        client.post(f"{ROOT}/switches/off", headers=SEEN)
        shown = client.get(f"{ROOT}/switches.json", headers=SEEN).get_json()
        assert (shown["on"], shown["off"]) == ([], [{"profiler": "*", "left": None}])

    @pytest.mark.parametrize(
        "form",
        [
            {},
            {"profiler": "nope"},
            {"profiler": "queries", "for": "3 weeks"},
            {"profiler": "queries", "sample": "2"},
        ],
    )
    def test_a_mistake_is_told_in_a_line(self, client, form):
        answer = client.post(f"{ROOT}/switches/on", data=form, headers=SEEN)
        assert answer.status_code == 400
        assert "That cannot be done" in answer.text


@pytest.mark.fault(46)
def test_hostile_text_is_text_on_every_page(client, store):
    hostile.fill(store)
    for path in (*PAGES, "/requests/request1"):
        page = client.get(f"{ROOT}{path}?last=all", headers=SEEN, buffered=True).text
        assert "<script>alert" not in page, path
        assert "<img src=x" not in page, path
        assert "\x1b" not in page, path
        assert "\u202e" not in page, path
        assert "{{ 7 * 7 }}" in page or "7 * 7" not in page, path


def test_a_plan_that_changed_is_on_the_page_of_statements(client, store):
    now = time.time()
    for asked_at, plan in ((100.0, ["Index Scan (cost 8, 1 rows)"]), (200.0, ["Seq Scan (cost 99, 1 rows)"])):
        details = {"plan": plan, "planned_at": now - 300 + asked_at, "database": "shop"}
        profile = Profile("GET /", time.time(), duration=1.0, status=200)
        profile.statements = [Statement("SELECT 1", 0.0, 0.9)]
        profile.findings = [Finding("slow_query", "slow_statement", "SELECT ?", 1, details=details)]
        store.add([profile])
    page = client.get(f"{ROOT}/statements", headers=SEEN).text
    assert page.index("Plans that changed") < page.index("Index Scan") < page.index("Seq Scan")
    (flip,) = client.get(f"{ROOT}/statements.json", headers=SEEN).get_json()["flips"]
    assert (flip["old"], flip["new"]) == (["Index Scan (cost 8, 1 rows)"], ["Seq Scan (cost 99, 1 rows)"])
    assert flip["at"] - flip["after"] == pytest.approx(100)
    assert "Plans that changed" not in client.get(f"{ROOT}/statements?route=GET+/x", headers=SEEN).text


def test_every_page_forbids_what_is_inline_or_elsewhere(client, store):
    hostile.fill(store)
    for path in EVERYTHING:
        answer = client.get(f"{ROOT}{path}?last=all", headers=SEEN, buffered=True)
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';"), path
        assert "unsafe" not in policy
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        if answer.mimetype == "text/html":
            assert not INLINE.search(answer.text), path


def test_the_console_is_not_profiled_and_changes_no_figure(client, store):
    for _ in range(10):
        client.get("/page")
    wait_for_requests(store, 10)
    before = (store.endpoints(), store.statements(), store.profiles(limit=1000))
    sign_in(client)
    for path in EVERYTHING:
        client.get(ROOT + path, buffered=True)
        client.get(ROOT + path, headers=SEEN, buffered=True)
    client.get("/page")
    wait_for_requests(store, 11)
    endpoints, statements, profiles = store.endpoints(), store.statements(), store.profiles(limit=1000)
    assert [(row.name, row.requests) for row in endpoints] == [("GET /page", 11)]
    assert [row.calls for row in statements] == [11]
    assert profiles[1:] == before[2]


def test_the_hooks_of_the_app_do_not_see_the_console():
    app = make_app()
    seen: list[str] = []
    app.before_request(lambda: seen.append("before"))
    app.after_request(lambda response: seen.append("after") or response)
    app.test_client().get(f"{ROOT}/", headers=SEEN)
    assert seen == []


class TestBadge:
    def shown(self, view: Callable[[], Any], **options: Any) -> str:
        app = make_app()
        app.add_url_rule("/view", view_func=view, endpoint="view")
        headers = options.pop("headers", SEEN)
        return app.test_client().get("/view", headers=headers, **options).text

    def test_a_page_says_what_it_cost_and_links_to_its_request(self, client, store):
        page = client.get("/page", headers=SEEN).text
        found = re.search(r'href="(/__profilers__/requests/(\w+))">1 statement · [\d.]+ ms</a></body>', page)
        assert found, page
        wait_for_requests(store, 1)
        assert client.get(found[1], headers=SEEN).status_code == 200

    def test_nobody_else_gets_it(self, client):
        assert client.get("/page").text == HTML

    def test_it_can_be_left_out(self):
        assert make_app(PROFILE_CONSOLE_BADGE=False).test_client().get("/page", headers=SEEN).text == HTML

    def test_no_cache_keeps_it(self, client):
        assert "no-store" in client.get("/page", headers=SEEN).headers["Cache-Control"]

    @pytest.mark.parametrize(
        "make",
        [
            lambda: Response(HTML, mimetype="text/plain"),
            lambda: Response(json.dumps(HTML), mimetype="application/json"),
            lambda: Response(iter([HTML]), mimetype="text/html"),
            lambda: Response("<p>A fragment</p>", mimetype="text/html"),
            lambda: Response(HTML, mimetype="text/html", headers={"Content-Encoding": "br"}),
            lambda: Response(
                HTML, mimetype="text/html", headers={"Content-Security-Policy": "default-src 'none'"}
            ),
            lambda: Response(
                HTML,
                mimetype="text/html",
                headers={"Content-Security-Policy": "style-src 'self', style-src x"},
            ),
        ],
        ids=["text", "JSON", "stream", "fragment", "encoded", "strict policy", "two policies"],
    )
    def test_only_whole_pages_whose_policy_lets_it_in(self, make):
        assert "flask-profilers" not in self.shown(make)

    def test_a_policy_of_the_own_origin_lets_it_in(self):
        headers = {"Content-Security-Policy": "default-src 'self'; script-src 'none'"}
        shown = self.shown(lambda: Response(HTML, mimetype="text/html", headers=headers))
        assert "flask-profilers-badge" in shown
        assert "<script" not in shown
        assert "style=" not in shown
