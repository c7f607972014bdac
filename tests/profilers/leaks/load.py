"""The shop under Gunicorn with a mixed load, and the memory command on it."""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from tests.servers import Server, environment, gunicorn

CONFIGURATION = """
from profilers.gunicorn import post_worker_init, worker_abort, worker_exit
wsgi_app = "tests.profilers.leaks.app:app"
control_socket_disable = True
preload_app = True  # one process makes the shop's tables
workers = 2
threads = 4
worker_class = "gthread"
graceful_timeout = 5
"""
LEAKS = (
    "module_list",
    "cache_on_method",
    "dict_by_request",
    "listener_per_request",
    "open_session",
    "native",
)
HEALTHY = ("bounded_cache", "lazy_import", "large_response", "fragmentation", "growing_pool")
LONGEST = 180.0
"""Seconds of load until there has to be an answer."""
PATHS = ("/report", "/items", "/items/3", "/search?q=one+two", "/about")


@contextmanager
def shop(folder: Path, variant: str, *arguments: str, **settings: str) -> Iterator[Server]:
    """The shop with two workers of four threads."""
    folder.mkdir(exist_ok=True)
    (folder / "gunicorn.conf.py").write_text(CONFIGURATION)
    store = str(folder / "profiles")
    settings = {"VARIANT": variant, "SHOP": str(folder / "shop.db"), "FLASK_PROFILE_STORE": store} | settings
    with gunicorn(folder, *arguments, **settings) as server:
        yield server


class Load(threading.Thread):
    """Asks for the five routes in random order, so many times a second, until it is stopped."""

    def __init__(self, server: Server, rate: float = 100.0, clients: int = 4) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.failures: list[str] = []
        self.answers = 0
        self._pause = clients / rate
        self._stop_asking = threading.Event()
        self._clients = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]

    def __enter__(self) -> Load:
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_asking.set()
        for client in self._clients:
            client.join(30)

    def _ask(self) -> None:
        choose = random.Random()
        while not self._stop_asking.wait(choose.expovariate(1 / self._pause)):
            try:
                found = self.server.get(choose.choice(PATHS))
            except requests.RequestException as error:
                self.failures.append(repr(error))
                continue
            self.answers += 1
            if found.status_code != 200:
                self.failures.append(f"{found.url}: {found.status_code}")


def command(server: Server, *arguments: str) -> subprocess.Popen[str]:
    """`python -m profilers memory` on the shop's store."""
    store = str(server.folder / "profiles")
    return subprocess.Popen(
        [sys.executable, "-m", "profilers", "--store", store, "memory", *arguments],
        cwd=server.folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def measure(server: Server, duration: float, interval: float) -> tuple[dict[str, Any], str]:
    """What the memory command wrote, and what it printed."""
    output = server.folder / "memory.json"
    arguments = ("--duration", f"{duration}s", "--interval", f"{interval}s", "--output", str(output))
    process = command(server, *arguments)
    printed, progress = process.communicate(timeout=duration + 90)
    assert process.returncode == 0, printed + progress
    return json.loads(output.read_text()), progress + printed


def advised(server: Server, duration: float) -> tuple[dict[str, Any], float]:
    """What a person is told who runs on for as long as the verdict says, and after how long."""
    found, _ = measure(server, duration, duration / 8)
    if found["verdict"]["answer"] != "not enough data":
        return found["verdict"], duration
    longer = min(LONGEST - duration, duration + found["verdict"]["seconds_more"])
    found, _ = measure(server, longer, longer / 8)
    return found["verdict"], duration + longer


def main() -> int:
    """Every variant so many times; a line each with what was said and what is true."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("variants", nargs="*", help="all of them by default")
    parser.add_argument("--duration", type=float, default=60.0, help="seconds of the first measurement")
    parser.add_argument("--repeat", type=int, default=1)
    options = parser.parse_args()
    wrong = 0
    for variant in options.variants or [*LEAKS, *HEALTHY]:
        for _ in range(options.repeat):
            with (
                tempfile.TemporaryDirectory() as folder,
                shop(Path(folder) / "shop", variant) as server,
                Load(server) as load,
            ):
                said, seconds = advised(server, options.duration)
            right = is_right(variant, said)
            wrong += not right
            lines = [line["frames"][0].rpartition("/")[2] for line in said["lines"][:1]]
            print(
                f"{'ok   ' if right else 'WRONG'} {variant:22} {said['answer']:16} {said['kind']:7} "
                f"{said['route']:12} {said['bytes_per_request']:8.0f} B a request "
                f"({said['low']:.0f} to {said['high']:.0f})  {' '.join(lines):20} {load.answers} answers in "
                f"{seconds:.0f} s",
                *([] if right else [said["reason"]]),
                *load.failures[:2],
                flush=True,
            )
    return min(wrong, 1)


def is_right(variant: str, said: dict[str, Any]) -> bool:
    """Whether the verdict is the truth, and names all that can be named."""
    if variant in HEALTHY:
        return bool(said["answer"] == "no leak")
    if variant == "native":
        return (said["answer"], said["kind"]) == ("leak", "native")
    found = any("leaks/app.py" in frame for line in said["lines"] for frame in line["frames"])
    return (said["answer"], said["kind"], said["route"]) == ("leak", "python", "GET /report") and found


if __name__ == "__main__":
    sys.exit(main())
