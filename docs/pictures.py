"""Make the pictures of the documentation from the real thing: `make pictures` (needs Chromium)."""

from __future__ import annotations

import itertools
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import requests
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from locustfiles import memory  # noqa: E402 - this file is run by its path

IMAGES = ROOT / "docs/images"
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
VISITS = """
from blog import create_app
client = create_app().test_client()
for path in ["/posts"] * 20 + ["/nowhere"] * 2:
    client.get(path)
"""

HURRY = "<script>{const now = performance.now.bind(performance); performance.now = () => now() * 50}</script>"
"""The flame graph grows in an animation, which Chromium does not wait for."""


def main() -> None:
    """Make all pictures, or those that are named: load, report, leak, memray, console."""
    for picture in sys.argv[1:] or PICTURES:
        PICTURES[picture]()


def report() -> None:
    """Profile the example blog and picture its report."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"FLASK_PROFILE": "queries,nplusone", "FLASK_PROFILE_STORE": folder, "PATH": ""}
        page = Path(folder, "report.html")
        for command in (
            ["-c", VISITS],
            ["-m", "profilers", "report", "--format", "html", "--output", str(page)],
        ):
            subprocess.run([sys.executable, *command], cwd=ROOT / "examples/blog", env=settings, check=True)
        photograph(page, "report.png", "1100,760")


def leak(seconds: int = 60) -> None:
    """Measure the leaking example under load, and draw the memory of its workers."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "memory.json")
        with leaky(folder, "-m", "gunicorn", FLASK_PROFILE="memory") as url:
            visitors = subprocess.Popen([sys.executable, "visit.py", url, str(seconds + 15)], cwd=LEAKY)
            command = ["memory", "--duration", f"{seconds}s", "--interval", "10s", "--output", str(output)]
            profilers(folder, *command)
            visitors.wait()
        run = json.loads(output.read_text())
        found = memory.Memory(run["verdict"]["answer"], curves=memory.curves(run["samples"]))
        (IMAGES / "leak.svg").write_text(memory.chart(found))


def memray() -> None:
    """Track every allocation of the leaking example, and picture the flame graph of both workers."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["-m", "profilers", "--store", folder, "memray", "run", "--", "gunicorn"]
        with leaky(folder, *command) as url:
            subprocess.run([sys.executable, "visit.py", url, "10"], cwd=LEAKY, check=True)
        page = Path(folder, "flamegraph.html")
        profilers(folder, "memray", "flamegraph", "--output", str(page))
        page.write_text(page.read_text().replace("<head>", f"<head>{HURRY}", 1))
        photograph(page, "memray.png", "1280,900", "--timeout=8000")


PAGES = {
    "console": ("/?last=10m", 620),
    "console-findings": ("/findings", 900),
    "console-requests": ("/requests", 620),
    "console-request": ("/requests/{slowest}", 900),
    "console-statements": ("/statements", 620),
    "console-workers": ("/workers", 620),
    "console-compare": ("/compare?a={older}&b={newer}", 620),
    "console-captures": ("/captures", 620),
    "console-switches": ("/switches", 620),
}
"""Of the console: address, height on a wide screen. Light and dark alternate."""


def console() -> None:
    """Drive the example shop on four workers for a minute, and picture the console's pages."""
    token = secrets.token_urlsafe()
    settings = {
        "FLASK_PROFILE": "queries,nplusone,pyinstrument,memory",
        "FLASK_PROFILE_PYINSTRUMENT_SLOWER_THAN_MS": "20",
        "FLASK_PROFILE_MEMORY_INTERVAL": "0.5",
        "FLASK_PROFILE_CONSOLE": "1",
        "FLASK_PROFILE_CONSOLE_TOKEN": token,
    }
    gunicorn = ["-m", "gunicorn", "shop:create_app()", "--workers", "4", "--threads", "2"]
    with (
        tempfile.TemporaryDirectory() as folder,
        served(ROOT / "examples/shop", folder, *gunicorn, **settings) as url,
        sync_playwright() as playwright,
    ):
        headers = {"X-Profile-Token": token}
        console = f"{url}/__profilers__"
        for times in (160, 80):
            capture = {"profiler": "queries", "for": "10s"}
            requests.post(f"{console}/captures/start", capture, headers=headers, timeout=10)
            visit(url, times)
        saved = requests.get(f"{console}/captures.json", headers=headers, timeout=10).json()["captures"]
        newer, older = (capture["id"] for capture in saved)
        asked = {"route": "GET /report"}
        rows = requests.get(f"{console}/requests.json", asked, headers=headers, timeout=10).json()["requests"]
        slowest = max(rows, key=lambda row: row["duration"])["id"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        shades = itertools.cycle(("light", "dark", "dark", "light"))
        for name, (path, height) in PAGES.items():
            for suffix, width, tall in (("", 1280, height), ("-phone", 390, 780)):
                page = browser.new_page(
                    viewport={"width": width, "height": tall},
                    color_scheme=next(shades),
                    extra_http_headers=headers,
                )
                page.goto(console + path.format(slowest=slowest, older=older, newer=newer))
                page.get_by_text("being judged").wait_for(state="detached")
                page.screenshot(path=IMAGES / f"{name}{suffix}.png")
                page.close()
        browser.close()


def visit(shop: str, times: int) -> None:
    """Browse the example shop, five requests a round."""
    for number in range(times):
        for path in ("/customers", "/orders", f"/orders/{number % 60}", "/report", "/export"):
            requests.get(shop + path, timeout=10)
        if number % 60 == 7:
            requests.get(shop + "/broken", timeout=10)
        time.sleep(0.2)


def load() -> None:
    """Drive the service for a minute, and picture the report of the run."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["-m", "locustfiles", "normal", "--users", "40", "--run-time", "60s", "--output", folder]
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
        picture_run(Path(folder, "report.html"))


def picture_run(report: Path) -> None:
    """The report of a run on a desk and on a phone. Raises AssertionError when the browser complains."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, width, height, scheme in (("load", 1280, 1150, "light"), ("load-phone", 390, 780, "dark")):
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            said: list[str] = []
            page.on("console", lambda message, said=said: said.append(message.text))
            page.on("pageerror", lambda error, said=said: said.append(str(error)))
            page.goto(report.as_uri())
            page.screenshot(path=IMAGES / f"{name}.png")
            assert said == [], said
        browser.close()


PICTURES = {"load": load, "report": report, "leak": leak, "memray": memray, "console": console}
LEAKY = ROOT / "examples/leaky"


def leaky(store: str, *command: str, **settings: str) -> AbstractContextManager[str]:
    """The leaking example under Gunicorn; its URL."""
    return served(LEAKY, store, *command, **settings)


@contextmanager
def served(example: Path, store: str, *command: str, **settings: str) -> Iterator[str]:
    """An example under Gunicorn; its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        bind = f"127.0.0.1:{probe.getsockname()[1]}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FLASK_PROFILE_STORE": store, **settings}
    options = ["--bind", bind, "--no-control-socket"]
    server = subprocess.Popen([sys.executable, *command, *options], cwd=example, env=environment)
    try:
        time.sleep(5)
        yield f"http://{bind}"
    finally:
        server.terminate()
        server.wait(30)


def profilers(store: str, *arguments: str) -> None:
    """Run `python -m profilers` on a store."""
    command = [sys.executable, "-m", "profilers", "--store", store, *arguments]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)


def photograph(page: Path, name: str, size: str, *options: str) -> None:
    """Open a page in Chromium and keep what is seen."""
    command = ["chromium", *QUIET, f"--window-size={size}", "--hide-scrollbars", *options]
    subprocess.run([*command, f"--screenshot={IMAGES / name}", page.as_uri()], check=True)


if __name__ == "__main__":
    main()
