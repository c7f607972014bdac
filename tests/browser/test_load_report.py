"""The page of a load run in Chromium, from disk: read on a desk and on a phone, in light and in dark."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from locustfiles import page
from tests.browser.conftest import open_window
from tests.load.results import result


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_a_run_opens_from_disk_without_complaint_and_fits_the_screen(
    browser: Browser, tmp_path: Path, width: int, scheme: str
) -> None:
    path = tmp_path / "report.html"
    path.write_text(page.render(result()), encoding="utf-8")
    window = open_window(browser, width=width, scheme=scheme, token="")
    asked: list[str] = []
    window.page.on("request", lambda request: asked.append(request.url))
    window.page.goto(path.as_uri())
    assert window.page.evaluate("document.documentElement.scrollWidth") <= width
    assert window.page.locator("figure svg polyline").count() >= 9
    assert window.page.get_by_role("heading", name="smoke: PASSED").is_visible()
    for text in window.page.locator("svg text").all()[:10]:
        box = text.bounding_box()
        assert box is not None
        assert 0 <= box["x"] <= box["x"] + box["width"] <= width
    assert asked == [path.as_uri()]
    assert window.complaints == []
    window.page.context.close()
