"""The memory of the hot endpoints: a limit at the peak, and nothing kept from request to request."""

from __future__ import annotations

import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient

from profilers.testing.memory import assert_no_growth

HOT = ("/", "/protected", "/services?limit=20&include=health_checks", "/auth/me", "/health-checks")
Headers = dict[str, str]


@pytest.mark.limit_memory("8 MB")
@pytest.mark.parametrize("path", HOT)
def test_a_hot_endpoint_stays_within_its_limit(client: FlaskClient, user: Headers, path: str) -> None:
    for _ in range(5):
        assert client.get(path, headers=user).status_code == 200


@pytest.mark.parametrize("path", HOT)
def test_a_hot_endpoint_keeps_nothing(app: APIFlask, client: FlaskClient, user: Headers, path: str) -> None:
    writer = app.extensions["profilers"].worker.writer

    def call() -> None:
        client.get(path, headers=user)
        assert writer.flush()  # a profile is kept until it is written

    assert_no_growth(call, 25, bytes_per_call=1000)  # the sums of the last seconds come and go
