"""Debian's Chromium, and the example shop under four Gunicorn workers after a real load."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page, sync_playwright

from profilers.store import Store, open_store
from tests import conftest as postgres
from tests.servers import Server, gunicorn, wait_for

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
TOKEN = "a token that only these tests know"
CONFIGURATION = """
from profilers.gunicorn import post_worker_init, worker_abort, worker_exit
wsgi_app = "examples.shop.shop:create_app()"
control_socket_disable = True
workers = 4
threads = 2
"""
PATHS = ("/customers", "/orders", "/orders/7", "/report", "/export", "/broken")
ROUNDS = 15


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    mine = [item for item in items if item.path.is_relative_to(here)]
    if CHROMIUM is None and mine:
        needs = "needs Chromium: apt-get install chromium"
        if "CI" in os.environ:  # which installs it: there a check that is left out is a failure
            raise pytest.UsageError(needs)
        for item in mine:
            item.add_marker(pytest.mark.skip(reason=needs))


@dataclass
class Shop:
    """The running shop and the store that its workers share."""

    server: Server
    store: Store

    @property
    def console(self) -> str:
        return self.server.url + "/__profilers__"


@pytest.fixture(scope="session")
def shop(server: postgres.Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The shop after 90 requests by eight clients; one request runs on, the worker of another was killed."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "gunicorn.conf.py").write_text(CONFIGURATION)
    settings = {
        "FLASK_PROFILE": "queries,nplusone,slow-queries,pyinstrument,memory",
        "FLASK_PROFILE_STORE": str(folder / "profiles"),
        "FLASK_PROFILE_BRAKE": "0",
        "FLASK_PROFILE_CONSOLE": "1",
        "FLASK_PROFILE_CONSOLE_TOKEN": TOKEN,
        "FLASK_PROFILE_MEMORY_INTERVAL": "0.5",
        "FLASK_PROFILE_PYINSTRUMENT_SAMPLE": "1",
        "FLASK_PROFILE_PYINSTRUMENT_SLOWER_THAN_MS": "25",
        "FLASK_PROFILE_SLOW_QUERIES_THRESHOLD_MS": "20",
    }
    with (
        postgres.new_database(server.url) as url,
        gunicorn(folder, SHOP_DATABASE_URL=url, **settings) as running,
    ):
        shop = Shop(running, open_store(folder / "profiles"))
        try:
            drive(shop)
            yield shop
        finally:
            for pid in running.workers():  # one of them still serves the request that does not end
                os.kill(pid, signal.SIGKILL)


def drive(shop: Shop) -> None:
    """The load, and all of it in the store."""
    with ThreadPoolExecutor(8) as clients:
        list(clients.map(shop.server.get, PATHS * ROUNDS))
    wait_for(lambda: sum(row.requests for row in shop.store.endpoints()) >= len(PATHS) * ROUNDS)
    kill_one(shop.server)
    threading.Thread(target=_ask_for_ever, args=(shop.server,), daemon=True).start()
    wait_for(lambda: lost(shop.store))
    wait_for(lambda: len({sample.pid for sample in shop.store.memory()}) >= 4)


def lost(store: Store) -> list[str]:
    return [row.finding.message for row in store.findings() if row.finding.kind == "lost_request"]


def _ask_for_ever(server: Server) -> None:
    with suppress(requests.RequestException):
        server.get("/forever")


def kill_one(server: Server) -> None:
    """Kill the worker that has come to serve `/forever`."""
    threading.Thread(target=_ask_for_ever, args=(server,), daemon=True).start()
    headers = {"X-Profile-Token": TOKEN}

    def serving() -> list[int]:
        workers = server.get("/__profilers__/workers.json", headers=headers).json()["workers"]
        return [worker["pid"] for worker in workers if worker["running"]]

    wait_for(serving)
    os.kill(serving()[0], signal.SIGKILL)


@pytest.fixture(scope="module")  # no longer: Playwright's event loop runs in the thread that runs the tests
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Window:
    """A page of the browser and what it complained of."""

    page: Page
    complaints: list[str] = field(default_factory=list)


def open_window(browser: Browser, *, width: int = 1280, scheme: str = "light", token: str = TOKEN) -> Window:
    """A fresh profile of the browser; with the token it is authorised."""
    headers = {"X-Profile-Token": token} if token else {}
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,  # type: ignore[arg-type]
        extra_http_headers=headers,
        permissions=["clipboard-read", "clipboard-write"],
    )
    context.route("**/favicon.ico", lambda route: route.fulfill(status=204))  # the shop has none
    context.set_default_timeout(15_000)
    window = Window(context.new_page())
    window.page.on("console", lambda message: window.complaints.append(f"{message.type}: {message.text}"))
    window.page.on("pageerror", lambda error: window.complaints.append(str(error)))
    window.page.on("dialog", lambda dialog: (window.complaints.append(dialog.message), dialog.dismiss()))
    return window


@pytest.fixture
def window(browser: Browser) -> Iterator[Window]:
    """An authorised window; at the end nothing may have been complained of."""
    window = open_window(browser)
    yield window
    window.page.context.close()
    assert window.complaints == []
