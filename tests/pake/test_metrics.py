"""`/metrics`: what is counted, under which labels, and that no worker's death changes a count."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from apiflask import APIFlask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from pake import create_app, metrics
from pake.extensions import db
from tests.pake.conftest import settings
from tests.servers import Server, gunicorn, wait_for


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """An exposition by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(text: str, name: str, **labels: str) -> float:
    """The sum of the samples of this name that have these labels."""
    return sum(
        value for (each, its), value in samples(text).items() if each == name and labels.items() <= {*its}
    )


def scrape(client: FlaskClient) -> str:
    return client.get("/metrics").text


# ---- what is counted


def test_requests_are_counted_by_route_and_not_by_address(client: FlaskClient) -> None:
    for number in range(3):
        client.get(f"/services/{number}")
        client.get(f"/nowhere/{number}")
        client.open("/livez", method=f"MADEUP{number}")
    client.get("/auth/generate-password?length=20")
    text = scrape(client)
    route = "/auth/generate-password"
    assert total(text, "pake_http_requests_total", method="GET", route=route, status="200") == 1
    assert total(text, "pake_http_request_duration_seconds_count", route=route) == 1
    assert total(text, "pake_http_requests_total", method="any", route="unmatched") == 9
    assert "nowhere" not in text
    assert "MADEUP" not in text


def test_a_request_refused_before_the_app_is_counted(client: FlaskClient) -> None:
    assert client.get("/livez", headers={"Host": "elsewhere.example"}).status_code == 400
    assert total(scrape(client), "pake_http_requests_total", route="unmatched", status="400") == 1


def test_no_address_becomes_a_label(client: FlaskClient, user: dict[str, str]) -> None:
    canary = "0123abcd-0000-4000-8000-00000000cafe"
    client.get(f"/services/{canary}?environment=CANARY", headers=user)
    text = scrape(client)
    assert total(text, "pake_http_requests_total", route="/services/<uuid:service_id>") == 1
    assert canary not in text
    assert "CANARY" not in text


def test_statements_are_counted_by_the_route_that_sent_them(
    client: FlaskClient, statements: list[str]
) -> None:
    for _ in range(3):
        client.get("/readyz")
    client.get("/livez")
    text = scrape(client)
    assert len(statements) == 3
    assert total(text, "pake_database_statement_duration_seconds_count", route="/readyz") == 3
    assert total(text, "pake_database_statement_duration_seconds_count", route="/livez") == 0


def test_a_failed_statement_is_counted_by_its_kind(app: APIFlask, client: FlaskClient) -> None:
    app.get("/fail")(lambda: str(db.session.execute(sa.text("SELECT 1/0"))))
    client.get("/fail")
    assert total(scrape(client), "pake_database_errors_total", error="DataError") == 1


def test_the_pool_tells_how_long_it_was_waited_for_and_who_got_nothing(database_url: str) -> None:
    app = create_app(settings(database_url, database_pool_size=1, database_pool_timeout_seconds=0.05))
    client = app.test_client()
    with app.app_context():
        engine = db.engine
    with engine.connect():
        assert client.get("/readyz").status_code == 503
        busy = scrape(client)
    assert client.get("/readyz").status_code == 200
    idle = scrape(client)
    engine.dispose()
    assert total(busy, "pake_pool_timeouts_total") == total(idle, "pake_pool_timeouts_total") == 1
    assert total(busy, "pake_pool_connections_in_use") == 1
    assert total(idle, "pake_pool_connections_in_use") == 0
    assert total(idle, "pake_pool_size") == 1
    assert total(idle, "pake_pool_wait_seconds_count") == 3
    assert total(idle, "pake_pool_wait_seconds_sum") >= 0.05


def test_a_lost_connection_leaves_none_in_use(app: APIFlask, client: FlaskClient) -> None:
    with app.app_context(), db.engine.connect() as connection:
        connection.invalidate()
    assert total(scrape(client), "pake_pool_connections_in_use") == 0


def test_password_hashes_are_counted_and_those_refused(client: FlaskClient) -> None:
    form = {"username": "nobody", "password": "no such password"}
    client.post("/auth/token", data=form)
    text = scrape(client)
    assert total(text, "pake_password_hash_duration_seconds_count") == 1
    assert total(text, "pake_password_hash_wait_seconds_count") == 1
    assert total(text, "pake_password_hashes_refused_total") == 0


def test_an_n_plus_one_is_counted_by_route_and_relationship(database_url: str) -> None:
    app = create_app(settings(database_url, detect_n_plus_1=True))

    @app.get("/loop/<int:times>")
    def loop(times: int) -> str:
        for number in range(times):
            db.session.execute(sa.text("SELECT :canary"), {"canary": f"CANARY {number}"})
        return ""

    client = app.test_client()
    client.get("/loop/10")
    client.get("/loop/1")
    app.extensions["profilers"].worker.close()
    text = scrape(client)
    with app.app_context():
        db.engine.dispose()
    labels = {"route": "/loop/<int:times>", "relationship": "text"}
    assert total(text, "pake_n_plus_one_total", **labels) == 1
    assert total(text, "pake_n_plus_one_statements_total", **labels) == 10
    assert total(text, "pake_profiler_findings_total", kind="n_plus_one") == 1
    assert total(text, "pake_profiler_profiles_total") >= 2
    assert "SELECT" not in text


def test_each_worker_has_its_memory_and_cpu_time(client: FlaskClient) -> None:
    text = scrape(client)
    assert total(text, "pake_worker_memory_bytes", worker="0", kind="rss") > 10_000_000
    assert total(text, "pake_worker_memory_bytes", worker="0", kind="uss") > 1_000_000
    assert total(text, "pake_worker_cpu_seconds_total", worker="0") > 0


# ---- over several workers

UNREACHABLE = "postgresql://nobody@127.0.0.1:1/none"


def answered(server: Server) -> float:
    return total(server.get("/metrics").text, "pake_http_requests_total", route="/livez", status="200")


def files(server: Server) -> set[str]:
    return {path.name for path in server.folder.glob("instance/metrics-*/*")}


def test_a_scrape_waits_for_a_worker_that_is_just_making_its_files(tmp_path: Path) -> None:
    with gunicorn(tmp_path, DATABASE_URL=UNREACHABLE, WEB_CONCURRENCY="1") as server:
        (folder,) = tmp_path.glob("instance/metrics-*")
        made = folder / "counter_7.db"
        made.touch()  # as prometheus_client does, before it gives it a size
        fill = threading.Timer(0.05, made.write_bytes, [bytes([8]) + bytes(4095)])
        fill.start()
        assert total(server.get("/metrics").text, "pake_worker_cpu_seconds_total", worker="0") > 0
        fill.join()
        made.write_bytes(b"")  # one that stays empty is no accident, and is not passed over
        assert server.get("/metrics").status_code == 500


RECYCLES = int(os.environ.get("METRICS_RECYCLES", "5"))
"""`make test-metrics` has 50 of them."""


@pytest.mark.fault(30)
def test_counts_survive_kills_and_recycles_in_few_files(tmp_path: Path) -> None:
    """Four workers: counters equal the requests sent; a worker that is replaced leaves no file behind."""
    limits = ("--max-requests", "25", "--graceful-timeout", "5")
    with gunicorn(tmp_path, *limits, DATABASE_URL=UNREACHABLE, WEB_CONCURRENCY="4") as server:
        wait_for(lambda: len(server.workers()) == 4)
        sent = answered(server)
        seen: set[int] = set()
        at_first = set(server.workers())
        while len(seen) < 4 + RECYCLES + 1:
            with ThreadPoolExecutor(4) as clients:
                assert {each.status_code for each in clients.map(server.get, ["/livez"] * 40)} == {200}
            sent += 40
            if not seen:
                os.kill(server.workers()[0], signal.SIGKILL)
            seen |= set(server.workers())
        assert answered(server) == sent
        assert not at_first & set(server.workers())
        wait_for(lambda: len(server.workers()) == 4)
        wait_for(lambda: total(server.get("/metrics").text, "pake_pool_size") == 4 * 8)
        text = server.get("/metrics").text
        assert total(text, "pake_http_requests_in_progress") == 1  # the scrape itself
        # A replacement may be there before its predecessor's requests have ended: a slot or two more.
        slots = {name.rpartition("_")[2] for name in files(server)}
        assert 4 <= len(slots) <= 8, slots
        assert len(files(server)) <= 5 * len(slots)


def test_a_killed_service_leaves_no_metrics_for_long(tmp_path: Path) -> None:
    alive = metrics.claim_folder(tmp_path)
    (tmp_path / "metrics-of-a-killed-one").mkdir()
    another = metrics.claim_folder(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([alive, another])


@pytest.mark.parametrize("kind", ["counter", "gauge_livesum"])
def test_only_what_lives_with_a_worker_is_forgotten_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    for slot in (1, 11):
        (tmp_path / f"{kind}_{slot}.db").touch()
    metrics.forget(1)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == ({f"{kind}_11.db"} | ({f"{kind}_1.db"} if kind == "counter" else set()))
