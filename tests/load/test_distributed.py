"""The load in containers, by their own commands and without Docker: not a request is lost on the way."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from tests import conftest as postgres
from tests.monitoring import compose
from tests.servers import gunicorn

WORKERS = 4
NOT_DRIVEN = {"/livez", "/readyz", "/metrics"}


def counted(metrics: str) -> Counter[str]:
    """The service's own count: requests by method and route, over all its workers."""
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == "pake_http_requests_total" and sample.labels["route"] not in NOT_DRIVEN:
                route = re.sub(r"<[^>]*>", "{id}", sample.labels["route"])
                found[f"{sample.labels['method']} {route}"] += int(sample.value)
    return found


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_totals_of_a_master_and_four_workers_are_what_the_service_counted(
    tmp_path: Path, server: postgres.Server
) -> None:
    """Redis, migration, service, accounts, master and Locust workers, as the Compose file has them."""
    with ExitStack() as stack:
        password, redis_port = stack.enter_context(compose.redis(tmp_path))
        settings = compose.services()["pake-backend-perf"]["environment"] | {
            "DATABASE_URL": stack.enter_context(postgres.new_database(server.url)),
            "REDIS_URL": f"redis://:{password}@127.0.0.1:{redis_port}/0",
            "INSTANCE_PATH": str(tmp_path / "instance"),
        }
        here = compose.outside(**settings)
        subprocess.run(compose.command("migrate"), env=here, cwd=tmp_path, check=True)
        service = stack.enter_context(gunicorn(tmp_path / "service", **settings))
        places = {
            "/accounts/accounts.json": str(tmp_path / "accounts.json"),
            "/reports": str(tmp_path / "report"),
            "/app": str(compose.ROOT),
            "http://pake-backend-perf:8000": service.url,
            "locust-master": "127.0.0.1",
            "0.0.0.0": "127.0.0.1",
            "5557": str(compose.free_port()),
        }
        fewer = ["--users", "3", "--services", "20"]
        accounts = [*compose.command("accounts", places), *fewer]
        subprocess.run(accounts, env=here, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
        joining = compose.outside(LOAD_ACCOUNTS=str(tmp_path / "accounts.json"))
        for _ in range(WORKERS):
            worker = subprocess.Popen(
                compose.command("locust-worker", places), env=joining, stdout=subprocess.DEVNULL
            )
            stack.callback(worker.wait)
            stack.callback(worker.kill)  # it has told all; a polite end takes ten seconds
        shorter = ["--users", "12", "--run-time", "5s", "--p95-ms", "20000"]
        master = [*compose.command("locust-master", places), *shorter]
        done = subprocess.run(
            master, env=here, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
        )
        own_count = counted(service.get("/metrics").text)
        with Redis("127.0.0.1", redis_port, password=password) as limits:
            assert limits.dbsize() > 0  # where sign-ins are counted
    assert "smoke: " in done.stdout, done.stderr  # whatever the verdict: machines differ in speed
    summary = json.loads((tmp_path / "report/summary.json").read_text())
    assert {route["name"]: route["requests"] for route in summary["routes"]} == own_count
    assert summary["total"]["requests"] == own_count.total() > 20
    assert len(summary["generators"]) == WORKERS
    assert sum(second["requests"] for second in summary["course"]) == own_count.total()
