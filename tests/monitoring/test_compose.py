"""The containers: what they promise, and their commands, tried without Docker."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from redis import Redis
from redis.exceptions import AuthenticationError, ConnectionError

from locustfiles import __main__ as load
from locustfiles import prepare
from locustfiles.service import Service
from pake import embedded
from tests.conftest import autocommit
from tests.monitoring import compose
from tests.servers import ROOT

SERVICES = compose.services()
OURS = {"migrate", "pake-backend-perf", "accounts", "locust-master", "locust-worker"}
DOCKERFILE = (ROOT / "Dockerfile").read_text()


# ---- promises


def test_the_lab_is_whole() -> None:
    assert {*SERVICES} == OURS | {
        "postgres-perf",
        "redis-perf",
        "prometheus",
        "grafana",
        "postgres-exporter",
        "redis-exporter",
    }
    assert SERVICES["pake-backend-perf"]["environment"]["WEB_CONCURRENCY"] == "4"
    assert SERVICES["locust-worker"]["deploy"]["replicas"] == 4


def test_nothing_is_published_beyond_loopback() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(ports) == 3
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("name", compose.SECRETS)
def test_no_secret_has_a_default(name: str) -> None:
    others = {each: "x" for each in compose.SECRETS if each != name}
    with pytest.raises(KeyError, match=name):
        compose.read(**others)


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_pinned_limited_watched_and_has_few_rights(name: str) -> None:
    service = SERVICES[name]
    exact = re.search(r":v?\d+\.\d+\.?\d*(-\w+)?(@sha256:[0-9a-f]{64})?$", service["image"])
    assert exact or "build" in service, service["image"]
    assert "build" in service or (exact and exact[2]) or name == "redis-exporter"  # its digest is not known
    limits = service["deploy"]["resources"]["limits"]
    assert {*limits} == {"cpus", "memory", "pids"}
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    ends = service["restart"] == "no" and "locust-" not in name  # a job, whose success is waited for
    assert ends or "test" in service.get("healthcheck", {}) or "HEALTHCHECK" in DOCKERFILE


def test_every_container_that_waits_waits_for_one_that_is_watched() -> None:
    for service in SERVICES.values():
        for name, wait in service.get("depends_on", {}).items():
            job = SERVICES[name]["restart"] == "no" and name != "locust-master"
            assert wait["condition"] == ("service_completed_successfully" if job else "service_healthy"), name


def test_what_is_mounted_and_copied_is_there() -> None:
    mounted = [volume for service in SERVICES.values() for volume in service.get("volumes", ())]
    sources = [volume.split(":")[0] for volume in mounted if volume.startswith("./")]
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.M)
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for path in [*sources, *(path for line in copied for path in line.split())]:
        assert (ROOT / path).exists(), path
    for line in copied:
        for path in line.split():
            assert path.strip("/") in allowed, path


def test_no_image_runs_as_root_or_keeps_what_builds_it() -> None:
    for stage in ("load", "service"):
        body = DOCKERFILE.split(f" AS {stage}\n")[1].split("\nFROM ")[0]
        assert "USER 10001:10001" in body
        assert "FROM run AS" in DOCKERFILE.split(body)[0].splitlines()[-1]


def test_prometheus_scrapes_containers_that_exist() -> None:
    text = "".join(path.read_text() for path in (ROOT / "monitoring/prometheus/targets").iterdir())
    hosts = {*re.findall(r'"([\w-]+):\d+"', text)} - {"localhost"}
    assert hosts == {"pake-backend-perf", "postgres-exporter", "redis-exporter"}


# ---- commands


def test_the_master_and_its_workers_understand_their_commands() -> None:
    python, dash_m, module, *arguments = SERVICES["locust-master"]["command"]
    assert (python, dash_m, module) == ("python", "-m", "locustfiles")
    master = load._options(arguments)
    locust, *arguments = SERVICES["locust-worker"]["command"]
    assert locust == "locust"
    # In a process of its own: Locust changes the one that imports it.
    parse = (
        "import sys, json; from locust.argument_parser import parse_options; "
        "it = parse_options(sys.argv[1:]); print(json.dumps([it.master_host, it.master_port, it.host]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", parse, *arguments], capture_output=True, text=True, check=True
    )
    master_host, master_port, host = json.loads(done.stdout.splitlines()[-1])
    assert master.workers == SERVICES["locust-worker"]["deploy"]["replicas"]
    assert master.listen.endswith(f":{master_port}")
    assert master_host == "locust-master"
    assert host == master.host
    assert SERVICES["locust-worker"]["environment"]["LOAD_ACCOUNTS"] == str(master.accounts)


def test_the_accounts_of_a_load_are_made_and_replace_those_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python, dash_m, module, _, *options = SERVICES["accounts"]["command"]
    assert (python, dash_m, module) == ("python", "-m", "locustfiles.prepare")
    commands: list[tuple[str, ...]] = []

    def flask(_: Service, *arguments: str) -> str:
        commands.append(arguments)
        return 'created\n{"username": "a", "password": "b"}\n' if arguments[0] == "create-users" else ""

    monkeypatch.setattr(Service, "flask", flask)
    file = tmp_path / "accounts.json"
    assert prepare.main([str(file), *options]) == 0
    assert {role: len(accounts) for role, accounts in json.loads(file.read_text()).items()} == {
        "user": 1,
        "admin": 1,
    }
    assert file.stat().st_mode & 0o777 == 0o600
    done = [command[0] for command in commands]
    assert done == ["demo-data", "delete-users", "delete-users", "create-users", "create-users"]


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where an embedded server may be started; stopped after the test."""
    path = Path(tmp_path_factory.mktemp("postgres"))
    path.chmod(0o711)
    yield path / "postgres"
    embedded.stop(path / "postgres")


def test_postgresql_takes_its_settings_and_counts_statements(folder: Path) -> None:
    server, *options = SERVICES["postgres-perf"]["command"]
    assert server == "postgres"
    assert {*options[::2]} == {"-c"}
    settings = dict(option.split("=", 1) for option in options[1::2])
    embedded.start(folder, settings=settings)
    with autocommit(embedded.superuser_url(folder)) as connection:
        for name, value in settings.items():
            assert connection.scalar(sa.text("SELECT current_setting(:name)"), {"name": name}), (name, value)
        connection.exec_driver_sql((ROOT / "monitoring/postgres/statements.sql").read_text())
        connection.exec_driver_sql("SELECT 'a canary'")
        queries = connection.scalars(sa.text("SELECT query FROM pg_stat_statements")).all()
    assert "SELECT $1" in queries  # and not the value
    assert "canary" not in " ".join(queries)


def test_redis_takes_its_settings_and_wants_the_password(tmp_path: Path) -> None:
    with compose.redis(tmp_path) as (password, port), Redis("127.0.0.1", port) as stranger:
        with pytest.raises(AuthenticationError):
            stranger.ping()
        with Redis("127.0.0.1", port, password=password, decode_responses=True) as client:
            settings = client.config_get("save", "appendonly", "maxmemory", "maxmemory-policy")
    assert settings == {
        "save": "",
        "appendonly": "no",
        "maxmemory": str(64 * 1024 * 1024),
        "maxmemory-policy": "volatile-ttl",
    }
    with pytest.raises(ConnectionError):  # the signal to stop had come to Redis itself
        Redis("127.0.0.1", port).ping()


@pytest.mark.parametrize("name", ["pake-backend-perf", "locust-master", "locust-worker"])
def test_a_health_check_fails_where_nothing_listens(name: str) -> None:
    probe = SERVICES[name].get("healthcheck", {}).get("test") or _image_probe()
    code = probe[-1].replace("8000", "1").replace("5557", "1").replace("locust-master", "127.0.0.1")
    assert probe[-3:-1] == ["python", "-c"]
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 1


def _image_probe() -> Any:
    return json.loads(DOCKERFILE.split("HEALTHCHECK")[1].split("CMD ")[1].split("\n")[0])


def test_the_secrets_are_made_once_and_for_the_owner_only(tmp_path: Path) -> None:
    for name in ("Makefile", "setup.cfg"):
        shutil.copy(ROOT / name, tmp_path)
    command = ["make", "compose-secrets"]
    subprocess.run(command, cwd=tmp_path, check=True)
    file = tmp_path / ".env.performance"
    made = file.read_text()
    subprocess.run(command, cwd=tmp_path, check=True)
    assert file.read_text() == made
    assert file.stat().st_mode & 0o777 == 0o600
    secrets = dict(line.split("=", 1) for line in made.splitlines())
    assert {*secrets} == {*compose.SECRETS}
    assert len({*secrets.values()}) == len(secrets)
    compose.read(**secrets)
