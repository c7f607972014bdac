"""The key that signs tokens: made once, replaced without signing anybody out, and named by each token."""

from __future__ import annotations

import base64
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jwt as pyjwt
import pytest
from flask.testing import FlaskClient

from pake import create_app
from pake.auth import keys
from pake.config import Settings
from pake.extensions import db
from tests.pake.conftest import settings, signed_in


@pytest.fixture
def instance(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, instance_path=tmp_path / "instance")  # type: ignore[call-arg]


def test_a_key_is_made_once_and_only_its_owner_reads_it(instance: Settings) -> None:
    first = keys.signing_key(instance)
    assert len(first) >= 32
    assert keys.signing_key(instance) == first
    path = instance.instance_path / "secret-key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["secret-key"]


def test_processes_that_start_at_once_agree_on_the_key(instance: Settings) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: keys.signing_key(instance), range(16)))
    assert len(made) == 1


def test_a_configured_key_leaves_no_file(tmp_path: Path) -> None:
    key = "a key for tests that is long enough"
    given = Settings(_env_file=None, instance_path=tmp_path, secret_key=key)  # type: ignore[call-arg, arg-type]
    assert keys.signing_key(given) == key
    assert os.listdir(tmp_path) == []


OLD_KEY, NEW_KEY = "the key that has signed until now", "the key that signs from this day on"


def a_token(database_url: str, key: str) -> dict[str, str]:
    """The Authorization header of a new account of a service with that key."""
    app = create_app(settings(database_url, secret_key=key))
    header = signed_in(app, "ursula", "user")
    with app.app_context():
        db.engine.dispose()
    return header


@pytest.mark.parametrize(("previous", "status"), [((OLD_KEY,), 200), ((), 401)])
def test_after_a_key_was_replaced_its_tokens_live_on_if_it_is_kept(
    database_url: str, previous: tuple[str, ...], status: int
) -> None:
    header = a_token(database_url, OLD_KEY)
    app = create_app(settings(database_url, secret_key=NEW_KEY, previous_secret_keys=previous))
    assert app.test_client().get("/protected", headers=header).status_code == status
    new = signed_in(app, "alice", "user")
    named = pyjwt.get_unverified_header(new["Authorization"].split()[1])["kid"]
    assert named == keys.key_id(NEW_KEY) != keys.key_id(OLD_KEY)
    assert app.test_client().get("/protected", headers=new).status_code == 200


@pytest.mark.parametrize("kid", ["", "0123456789abcdef", 7, None, ["x"], keys.key_id(OLD_KEY)])
def test_a_token_that_names_another_key_is_refused(
    client: FlaskClient, user: dict[str, str], kid: object
) -> None:
    _, token = user["Authorization"].split()
    claims = pyjwt.decode(token, options={"verify_signature": False})
    forged = pyjwt.encode(claims, OLD_KEY, headers={"kid": kid} if isinstance(kid, str) else {})
    if not isinstance(kid, str):  # PyJWT writes no other kind of kid
        head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "typ": "JWT", "kid": kid}).encode())
        forged = ".".join([head.decode().rstrip("="), *forged.split(".")[1:]])
    assert client.get("/protected", headers={"Authorization": f"Bearer {forged}"}).status_code == 401
