"""Demo data is added once and leaves what is there alone."""

import re

import sqlalchemy as sa
from apiflask import APIFlask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from pake.registry.demo import add_demo_services
from pake.registry.models import ServiceHealthCheck, ServiceMetrics, ServiceRegistry


def test_demo_data_is_added_once(database_url: str) -> None:
    engine = sa.create_engine(database_url)
    with Session(engine) as session:
        assert add_demo_services(session, services=10, health_checks=5, metrics=3) == 10
        assert add_demo_services(session, services=12, health_checks=5, metrics=3) == 2
        counts = [
            session.scalar(sa.select(sa.func.count()).select_from(table))
            for table in (ServiceRegistry, ServiceHealthCheck, ServiceMetrics)
        ]
    engine.dispose()
    assert counts == [12, 60, 36]


def test_a_long_history_has_the_time_it_needs(database_url: str) -> None:
    engine = sa.create_engine(database_url, connect_args={"options": "-c statement_timeout=5000"})
    with Session(engine) as session:
        add_demo_services(session, services=1, health_checks=1, metrics=1)
        assert session.scalar(sa.text("SHOW statement_timeout")) == "0"
        session.commit()
        assert session.scalar(sa.text("SHOW statement_timeout")) == "5s"
    engine.dispose()


def test_the_command_shows_a_new_administrators_password_once(app: APIFlask, client: FlaskClient) -> None:
    first = app.test_cli_runner().invoke(args=["pake", "demo-data", "--services", "3", "--checks", "2"])
    assert first.exit_code == 0, first.output
    again = app.test_cli_runner().invoke(args=["pake", "demo-data", "--services", "3", "--checks", "2"])
    assert "added 0 services" in again.output
    assert "password" not in again.output

    (password,) = re.findall(r"^password: (\S+)$", first.output, re.MULTILINE)
    form = {"username": "demo-admin", "password": password}
    token = client.post("/auth/token", data=form).get_json()["access_token"]
    counts = client.get("/admin", headers={"Authorization": f"Bearer {token}"}).get_json()
    assert (counts["services"], counts["health_checks"]) == (3, 6)
