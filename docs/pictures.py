"""Make the pictures of the documentation from the real thing: `make pictures` (needs Chromium)."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
VISITS = """
from blog import create_app
client = create_app().test_client()
for path in ["/posts"] * 20 + ["/nowhere"] * 2:
    client.get(path)
"""


def main() -> None:
    """Profile the example blog and picture its report."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"FLASK_PROFILE": "queries,nplusone", "FLASK_PROFILE_STORE": folder, "PATH": ""}
        page = Path(folder, "report.html")
        for command in (
            ["-c", VISITS],
            ["-m", "profilers", "report", "--format", "html", "--output", str(page)],
        ):
            subprocess.run([sys.executable, *command], cwd=ROOT / "examples/blog", env=settings, check=True)
        picture = ROOT / "docs/images/report.png"
        size = ["--window-size=1100,760", "--hide-scrollbars"]
        subprocess.run(["chromium", *QUIET, *size, f"--screenshot={picture}", page.as_uri()], check=True)


if __name__ == "__main__":
    main()
