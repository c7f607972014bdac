"""docker-compose.performance.yml as Docker Compose would read it, for what can be tried without Docker."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.servers import ROOT

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
