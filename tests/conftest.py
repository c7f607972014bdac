"""Fixtures on real PostgreSQL: one server for the whole run, a database of its own for each test.

The server is embedded, in a temporary folder, shared by all xdist workers. `TEST_DATABASE_URL` names another
one instead (its role needs CREATEDB).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pytest
import sqlalchemy as sa

from pake import embedded

pytest.register_assert_rewrite("tests.faults.client")

# A shell that runs the tests in its background has them, and what they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

FAST = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "200",
    "autovacuum": "off",  # its workers are a superuser's: a database they are in cannot be dropped
}
"""A test's data need not survive a power cut."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long tests, in whatever order they and the others are."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@contextmanager
def autocommit(url: str) -> Iterator[sa.Connection]:
    """One connection for statements that no transaction can hold, such as CREATE DATABASE."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        yield connection


@contextmanager
def postgres() -> Iterator[str]:
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


def migrate(url: str) -> None:
    """Bring a database up to date as a user would, in a process of its own."""
    with tempfile.TemporaryDirectory() as instance:
        subprocess.run(
            [sys.executable, "-m", "flask", "--app", "pake", "db", "upgrade"],
            cwd=Path(__file__).parent.parent,
            env=os.environ | {"DATABASE_URL": url, "INSTANCE_PATH": instance},
            check=True,
        )


class Server(NamedTuple):
    """The run's server, and a migrated database on it that is there to be copied."""

    url: str
    template: str


class OneServer:
    """In the process that starts the xdist workers: starts the server before them, stops it at the end."""

    def __init__(self) -> None:
        self.stack = ExitStack()

    @cached_property
    def server(self) -> Server:
        url = self.stack.enter_context(postgres())
        template = self.stack.enter_context(new_database(url))
        migrate(template)
        return Server(url, str(sa.make_url(template).database))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: object) -> None:
        node.workerinput["server"] = tuple(self.server)  # type: ignore[attr-defined]

    def pytest_unconfigure(self) -> None:
        self.stack.close()


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(OneServer(), "one_server")


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Server:
    """The run's PostgreSQL server, as a role that may create databases. Most tests want `database_url`."""
    if workerinput := getattr(request.config, "workerinput", None):
        return Server(*workerinput["server"])
    one_server = request.config.pluginmanager.get_plugin("one_server")
    assert isinstance(one_server, OneServer)
    return one_server.server


@pytest.fixture
def empty_database_url(server: Server) -> Iterator[str]:
    """A fresh database without a table, dropped after the test."""
    with new_database(server.url) as url:
        yield url


@pytest.fixture
def database_url(server: Server) -> Iterator[str]:
    """A fresh, migrated database, dropped after the test."""
    with new_database(server.url, server.template) as url:
        yield url
