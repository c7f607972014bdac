"""Fixtures of the service's tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from apiflask import APIFlask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from pake import create_app, embedded
from pake.auth import accounts, passwords, tokens
from pake.auth.models import Role
from pake.config import Settings
from pake.extensions import db

PASSWORD = "quiet river stones"

KEY = "a key for tests that is long enough"

if os.geteuid() != 0:  # what only root can try
    collect_ignore = ["test_embedded_as_root.py"]


@pytest.fixture
def place() -> Iterator[Path]:
    """A short directory that every user may enter, unlike `tmp_path`."""
    path = Path(tempfile.mkdtemp(prefix="pake-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Path]:
    """A folder with an initialised cluster, there to be copied: initialising takes ten times as long."""
    path = Path(tempfile.mkdtemp(prefix="pake-test-"))
    embedded.start(path / "postgres", settings={"fsync": "off"})
    embedded.stop(path / "postgres")
    yield path / "postgres"
    shutil.rmtree(path)


@pytest.fixture
def empty_folder(place: Path) -> Iterator[Path]:
    """Where an embedded server may be initialised; stopped after the test."""
    yield place / "postgres"
    embedded.stop(place / "postgres")


@pytest.fixture
def folder(empty_folder: Path, cluster: Path) -> Path:
    """Where an embedded server may be started, initialised already; stopped after the test."""
    subprocess.run(["cp", "-a", cluster, empty_folder], check=True)
    return empty_folder


@pytest.fixture(autouse=True)
def _profiles_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the service's profilers see in a test goes to a store of the test's."""
    monkeypatch.setenv("FLASK_PROFILE_STORE", str(tmp_path / "profiles"))


class Clock:
    """A clock that stands still until a test sets it."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def app(database_url: str) -> Iterator[APIFlask]:
    """The service on a fresh database; pytest-flask's `client` speaks to it."""
    app = create_app(settings(database_url))
    yield app
    app.extensions["profilers"].worker.close()
    with app.app_context():
        db.engine.dispose()


def settings(database_url: str, **others: Any) -> Settings:
    """Settings that no file or variable of this machine has a say in, and no token is remembered."""
    given = {"secret_key": KEY, "token_memory_seconds": 0} | others
    return Settings(_env_file=None, database_url=database_url, **given)  # type: ignore[call-arg]


@pytest.fixture
def statements(app: APIFlask) -> list[str]:
    """What the app sends to PostgreSQL, from here on."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        sent.append(statement)

    with app.app_context():
        sa.event.listen(db.engine, "before_cursor_execute", note)
    return sent


@pytest.fixture(autouse=True)
def _push_request_context() -> None:
    """Instead of pytest-flask's: in its context all requests of a test would share one session."""


def signed_in(app: APIFlask, username: str, role: Role) -> dict[str, str]:
    """The Authorization header of a new account."""
    with app.app_context():
        pair = tokens.open_family(accounts.create(username, passwords.generate(24), role=role))
        db.session.commit()
    return {"Authorization": f"Bearer {pair.access_token}"}


@pytest.fixture
def user(app: APIFlask) -> dict[str, str]:
    """The Authorization header of an account with the role `user`."""
    return signed_in(app, "ursula", "user")


@pytest.fixture
def admin(app: APIFlask) -> dict[str, str]:
    """The Authorization header of an account with the role `admin`."""
    return signed_in(app, "ada", "admin")


@pytest.fixture
def alice(client: FlaskClient) -> str:
    """An account; its password is PASSWORD."""
    body = {"username": "alice", "password": PASSWORD, "email": "alice@example.org", "full_name": "Alice L."}
    assert client.post("/auth/register", json=body).status_code == 201
    return "alice"


def sign_in(client: FlaskClient, username: str, password: str = PASSWORD) -> TestResponse:
    return client.post("/auth/token", data={"username": username, "password": password})


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
