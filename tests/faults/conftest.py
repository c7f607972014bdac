"""One service under Gunicorn for all tests of a module, on a database of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import conftest as postgres
from tests.servers import Server, gunicorn

KEY = "a key that only these tests know, long enough"


@pytest.fixture(scope="module")
def service_database_url(server: postgres.Server) -> Iterator[str]:
    """The database of `service`."""
    with postgres.new_database(server.url, server.template) as url:
        yield url


@pytest.fixture(scope="module")
def service(service_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service, with small limits so that tests reach them."""
    with gunicorn(
        tmp_path_factory.mktemp("service"),
        DATABASE_URL=service_database_url,
        SECRET_KEY=KEY,
        WEB_CONCURRENCY="2",
        MAX_CONTENT_LENGTH="100000",
        LOG_FORMAT="json",
    ) as server:
        yield server
