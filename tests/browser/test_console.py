"""The console in Chromium, over data from a real load on four workers."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from werkzeug.serving import make_server

from profilers import switches
from profilers.console import capture
from profilers.console.viewer import create_viewer
from profilers.reports.units import seconds
from profilers.storage.schema import SLOT
from profilers.store import Period, open_store
from tests.browser.conftest import TOKEN, Shop, Window, lost, open_window
from tests.profilers import hostile
from tests.servers import wait_for

PAGES = {
    "overview": "/",
    "findings": "/findings",
    "requests": "/requests",
    "statements": "/statements",
    "workers": "/workers",
    "compare": "/compare?length=10m",
    "captures": "/captures",
    "switches": "/switches",
}


def request_with_stack(shop: Shop) -> str:
    """The id of a request for the report whose call stack was kept."""
    for row in shop.store.profiles(Period(name="GET /report"), limit=500):
        profile = shop.store.profile(row.id)
        if profile is not None and "pyinstrument" in profile.sections:
            return row.id
    raise AssertionError("no request has a call stack")


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until such an element has the focus."""
    for _ in range(120):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"the keyboard does not reach {selector}")


def cells(page: Page, row: int) -> list[str]:
    return [text.strip() for text in page.locator("tbody tr").nth(row).locator("th, td").all_inner_texts()]


def test_the_overview_says_what_the_store_knows(shop: Shop, window: Window):
    window.page.goto(f"{shop.console}/")
    rows = shop.store.endpoints(Period(since=time.time() - 3600))
    assert window.page.locator("tbody tr").count() == len(rows)
    for number, row in enumerate(rows):
        shown = cells(window.page, number)
        assert shown[0] == row.name
        assert shown[1].startswith(str(row.findings) if row.findings else "–")
        assert shown[2] == str(row.requests)
        assert shown[4:8] == [
            seconds(row.duration_p50), seconds(row.duration_p95), f"{row.statements_p50:g}",
            str(row.statements_max),
        ]  # fmt: skip
        assert shown[10] == str(row.errors or "–")


def test_from_the_overview_to_the_line_to_mend_in_three_clicks(shop: Shop, window: Window):
    page = window.page
    page.goto(f"{shop.console}/")
    page.locator("tr", has_text="GET /customers").locator("a.pill").click()
    finding = page.locator(".finding", has_text="Customer.orders")
    expect(finding.locator(".here").first).to_contain_text("session.scalars(sa.select(Customer)")
    expect(finding.locator(".here").nth(1)).to_contain_text("len(each.orders)")
    finding.get_by_role("button", name="Copy").click()
    expect(finding.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == ".options(selectinload(Customer.orders))"


def test_findings_are_those_of_the_store(shop: Shop, window: Window):
    window.page.goto(f"{shop.console}/findings")
    shown = window.page.locator(".finding h2 code").all_inner_texts()
    rows = shop.store.findings()
    assert [text[:60] for text in shown] == [" ".join(row.finding.subject.split())[:60] for row in rows]
    window.page.get_by_role("link", name="n plus one", exact=True).click()
    expect(window.page.locator(".finding")).to_have_count(2)


def test_a_slow_statement_shows_its_plan_as_a_tree(shop: Shop, window: Window):
    window.page.goto(f"{shop.console}/findings?kind=slow_query")
    finding = window.page.locator(".finding", has_text="pg_sleep")
    finding.locator("summary").click()
    steps = finding.locator(".plan li")
    assert steps.count() > 3
    expect(finding.locator(".plan .node.depth0")).to_have_count(1)
    assert finding.locator(".plan .node.depth1").count() >= 1


def test_the_list_of_requests_goes_back_to_the_first_one(shop: Shop, window: Window):
    page = window.page
    page.goto(f"{shop.console}/requests")
    seen = page.locator("tbody tr").count()
    while page.get_by_role("link", name="Older").count():
        page.get_by_role("link", name="Older").click()
        seen += page.locator("tbody tr").count()
    assert seen == len(shop.store.profiles(limit=10_000))


def test_one_request_shows_layers_statements_and_stack(shop: Shop, window: Window):
    identity = request_with_stack(shop)
    profile = shop.store.profile(identity)
    assert profile is not None
    page = window.page
    page.goto(f"{shop.console}/requests/{identity}")
    expect(page.locator("h1")).to_have_text(profile.name)
    expect(page.locator(".layers rect")).to_have_count(3)
    expect(page.locator(".runs li")).to_have_count(len(profile.statements))
    expect(page.locator(".runs .place").first).to_contain_text("shop.py:")
    report = page.locator("[data-flame] g", has_text="score").first
    width = report.locator("rect").bounding_box()
    report.locator("rect").click()
    zoomed = report.locator("rect").bounding_box()
    assert width is not None
    assert zoomed is not None
    assert zoomed["width"] > width["width"]


def test_an_n_plus_one_is_one_line_of_the_request(shop: Shop, window: Window):
    row = shop.store.profiles(Period(name="GET /customers"))[-1]
    window.page.goto(f"{shop.console}/requests/{row.id}")
    expect(window.page.locator(".runs li")).to_have_count(2)
    expect(window.page.locator(".runs .pill")).to_have_text("× 12")


def test_statements_are_those_of_the_store(shop: Shop, window: Window):
    window.page.goto(f"{shop.console}/statements")
    rows = shop.store.statements()
    assert window.page.locator(".top > tbody > tr").count() == len(rows)
    for number, row in enumerate(rows):
        assert cells(window.page, number)[1] == f"{row.calls:,}"


def test_workers_say_what_they_do_and_what_was_lost(shop: Shop, window: Window):
    page = window.page
    page.goto(f"{shop.console}/workers")
    for status in switches.status(shop.store).workers:
        expect(page.locator("h2", has_text=str(status.pid))).to_be_visible()
    expect(page.locator(".running li")).to_contain_text("GET /forever")
    expect(page.locator(".running li .place")).to_contain_text("shop.py:")
    assert page.locator(".memory").count() >= 4
    expect(page.locator("main")).to_contain_text(lost(shop.store)[0])
    page.get_by_role("link", name=re.compile("^killed after")).click()
    expect(page.locator(".mark").first).to_have_text("killed")


def test_the_page_follows_what_happens(shop: Shop, window: Window):
    page = window.page
    page.goto(f"{shop.console}/?route=GET+/orders/<int:number>")
    before = int(cells(page, 0)[2])
    shop.server.get("/orders/8")
    expect(page.locator("tbody tr").first.locator("td").nth(1)).to_have_text(str(before + 1), timeout=15_000)


def test_with_the_keyboard_alone(shop: Shop, window: Window):
    page = window.page
    page.goto(f"{shop.console}/")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    tab_to(page, "a.pill[href*='customers']")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Findings")
    tab_to(page, "[data-copy]")
    page.keyboard.press("Enter")
    expect(page.locator("[data-copy]").first).to_contain_text("Copied")
    tab_to(page, "a[href*='/requests/']")
    page.goto(f"{shop.console}/")
    tab_to(page, "nav a[href$='/switches']")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Switches")
    tab_to(page, "input[value='slow-queries']")
    page.keyboard.press("Space")
    tab_to(page, "input[name='endpoint']")
    page.keyboard.type("GET /nowhere")
    page.keyboard.press("Enter")
    expect(page.locator(".switches")).to_contain_text("GET /nowhere")
    assert "GET /nowhere" in {each.endpoint for each in switches.status(shop.store).switches.on}


def test_signing_in_by_the_form(shop: Shop, browser: Browser):
    window = open_window(browser, token="")
    page = window.page
    answer = page.goto(f"{shop.console}/")
    assert answer is not None
    assert answer.status == 404
    page.get_by_label("Token").fill("not the token")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Overview")
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("link", name="Workers").click()
    expect(page.locator("h1")).to_have_text("Workers")
    page.context.close()


def test_the_badge_on_the_shop_s_page_leads_to_its_request(shop: Shop, window: Window):
    page = window.page
    page.goto(f"{shop.server.url}/customers")
    badge = page.locator(".flask-profilers-badge")
    expect(badge).to_have_text(re.compile(r"^13 statements · [\d.]+ m?s · 1 finding$"))
    expect(badge).to_have_css("position", "fixed")
    target = badge.get_attribute("href")
    assert target is not None
    wait_for(lambda: shop.store.profile(target.rpartition("/")[2]))
    badge.click()
    expect(page.locator("h1")).to_have_text("GET /customers")
    assert page.url.endswith(target)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_screen_readers_and_phones(shop: Shop, browser: Browser, width: int, scheme: str):
    window = open_window(browser, width=width, scheme=scheme)
    axe = Axe()
    pages = {**PAGES, "request": f"/requests/{request_with_stack(shop)}"}
    for name, path in pages.items():
        window.page.goto(shop.console + path)
        violations = axe.run(window.page).response["violations"]
        told = [(each["id"], each["nodes"][0]["html"][:200]) for each in violations]
        assert told == [], name
        assert window.page.evaluate("document.documentElement.scrollWidth") <= width, name
    window.page.context.close()
    assert window.complaints == []


@contextmanager
def viewed(file: Path, before: Path | None = None) -> Iterator[str]:
    """The address of a viewer over a capture."""
    server = make_server("127.0.0.1", 0, create_viewer(file, before), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_capture_opens_elsewhere_without_the_app(shop: Shop, window: Window, tmp_path: Path):
    page = window.page
    page.goto(f"{shop.console}/")
    with page.expect_download() as download:
        page.get_by_role("link", name="Save as a capture").click()
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    with viewed(file, file) as address:
        page.goto(address)
        rows = shop.store.endpoints()
        assert {cells(page, number)[0] for number in range(len(rows))} == {row.name for row in rows}
        for name in ("Findings", "Requests", "Statements", "Workers", "Compare"):
            page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
            expect(page.locator("h1")).to_have_text(name)
            assert page.locator("table, .finding, .worker").count() > 0, name
        compared = [cells(page, number) for number in range(len(rows))]
        assert {row[0] for row in compared} == {row.name for row in rows}
        for row in compared:
            before, arrow, after = row[5].partition("→")
            assert arrow
            assert before.strip() == after.strip(), row
        assert page.get_by_role("link", name="Switches").count() == 0
        page.goto(f"{address}/findings")
        page.get_by_role("link", name=re.compile("^one of the requests")).first.click()
        expect(page.locator(".runs li").first).to_be_visible()
        page.wait_for_load_state("networkidle")


def test_a_capture_is_started_and_stopped_in_all_workers(shop: Shop, window: Window, tmp_path: Path):
    page = window.page
    time.sleep(SLOT - time.time() % SLOT)  # the sums are of whole slots: not of those before
    page.goto(f"{shop.console}/captures")
    page.get_by_label("Endpoint").fill("GET /orders*")
    page.get_by_role("button", name="Start a capture").click()
    expect(page.locator("h2").first).to_have_text("A capture is running")
    with ThreadPoolExecutor(4) as clients:
        list(clients.map(shop.server.get, ["/orders/9", "/customers"] * 10))
    page.get_by_role("button", name="Stop and save").click()
    with page.expect_download(timeout=30_000) as download:  # the page follows until it is saved
        page.get_by_role("link", name="Download").click(timeout=30_000)
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    names = {row.name: row.requests for row in capture.load(file).endpoints()}
    assert names == {"GET /orders/<int:number>": 10}
    page.get_by_role("button", name="Delete").click()
    expect(page.locator("main")).to_contain_text("None yet.")


def test_hostile_text_stays_text(browser: Browser, tmp_path: Path):
    store = open_store(tmp_path / "profiles")
    hostile.fill(store)
    file = tmp_path / "capture.json"
    file.write_text(capture.save(store, Period(), 1_760_000_000))
    window = open_window(browser)
    with viewed(file) as address:
        for path in ("/", "/findings", "/requests", "/statements", "/requests/request1"):
            window.page.goto(address + path)
            expect(window.page.locator("main")).to_contain_text("<script>alert(1)</script>")
            assert window.page.locator("main script, main img").count() == 0
    window.page.context.close()
    assert window.complaints == []
