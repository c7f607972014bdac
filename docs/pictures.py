"""Make the pictures of the documentation from the real thing: `make pictures` (needs Chromium)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
    """Make all pictures, or those that are named: report, leak, memray."""
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


PICTURES = {"report": report, "leak": leak, "memray": memray}
LEAKY = ROOT / "examples/leaky"


@contextmanager
def leaky(store: str, *command: str, **settings: str) -> Iterator[str]:
    """The leaking example under Gunicorn; its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        bind = f"127.0.0.1:{probe.getsockname()[1]}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FLASK_PROFILE_STORE": store, **settings}
    options = ["--bind", bind, "--no-control-socket"]
    server = subprocess.Popen([sys.executable, *command, *options], cwd=LEAKY, env=environment)
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
