"""Fixtures on real PostgreSQL: one server for the whole run, a database of its own for each test.

The server is embedded, in a temporary folder, shared by all xdist workers. `TEST_DATABASE_URL` names another
one instead (its role needs CREATEDB).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import flask_migrate
import pytest
import sqlalchemy as sa

from pake import create_app, embedded
from pake.config import load_settings
from pake.extensions import db

FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "max_connections": "200"}
"""A test's data need not survive a power cut."""


@contextmanager
def autocommit(url: str) -> Iterator[sa.Connection]:
    """One connection for statements that no transaction can hold, such as CREATE DATABASE."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        yield connection


@contextmanager
def postgres_for_the_run() -> Iterator[str]:
    """The URL of the server that this run uses, for a role that may create databases."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield url
        return
    folder = Path(tempfile.mkdtemp(prefix="pake-test-"))
    try:
        url = embedded.start(folder / "postgres", settings=FAST)
        with autocommit(embedded.superuser_url(folder / "postgres")) as connection:
            connection.exec_driver_sql(f"ALTER ROLE {embedded.ROLE} CREATEDB")
        yield url
    finally:
        embedded.stop(folder / "postgres")
        shutil.rmtree(folder)


class OneServer:
    """In the process that starts the xdist workers: starts the server before them, stops it at the end."""

    def __init__(self) -> None:
        self.context = postgres_for_the_run()
        self.url: str | None = None

    def start(self) -> str:
        if self.url is None:
            self.url = self.context.__enter__()
        return self.url

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: object) -> None:
        node.workerinput["server_url"] = self.start()  # type: ignore[attr-defined]

    def pytest_unconfigure(self) -> None:
        if self.url is not None:
            self.context.__exit__(None, None, None)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(OneServer(), "one_server")


@pytest.fixture(scope="session")
def server_url(request: pytest.FixtureRequest) -> str:
    """The run's PostgreSQL server, as a role that may create databases. Most tests want `database_url`."""
    if workerinput := getattr(request.config, "workerinput", None):
        return str(workerinput["server_url"])
    one_server = request.config.pluginmanager.get_plugin("one_server")
    assert isinstance(one_server, OneServer)
    return one_server.start()


@contextmanager
def new_database(server_url: str, template: str = "template1") -> Iterator[str]:
    """A database that exists inside the block, copied from `template`."""
    name = f"test_{uuid.uuid4().hex}"
    with autocommit(server_url) as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield sa.make_url(server_url).set(database=name).render_as_string(hide_password=False)
    finally:
        with autocommit(server_url) as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty_database_url(server_url: str) -> Iterator[str]:
    """A fresh database without a table, dropped after the test."""
    with new_database(server_url) as url:
        yield url


@pytest.fixture(scope="session")
def migrated_template(server_url: str) -> str:
    """Name of a database with the migrations of `pake` applied; the first worker makes it."""
    name = "migrated_template"
    with autocommit(server_url) as connection:
        connection.exec_driver_sql("SELECT pg_advisory_lock(1)")
        exists = sa.text("SELECT EXISTS (SELECT FROM pg_database WHERE datname = :name)")
        if not connection.scalar(exists, {"name": name}):
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
            url = sa.make_url(server_url).set(database=name).render_as_string(hide_password=False)
            app = create_app(load_settings(database_url=url, secret_key="for tests only " * 3))
            with app.app_context():
                flask_migrate.upgrade()
                db.engine.dispose()
    return name


@pytest.fixture
def database_url(server_url: str, migrated_template: str) -> Iterator[str]:
    """A fresh, migrated database, dropped after the test."""
    with new_database(server_url, migrated_template) as url:
        yield url
