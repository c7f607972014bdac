"""Reads from a standby, a real one that streams: paused, killed, frozen and promoted. Nobody notices."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psycopg2.extensions
import pytest
import requests
import sqlalchemy as sa

from pake import embedded
from tests.conftest import FAST, autocommit, migrate
from tests.faults.client import account, with_token
from tests.faults.conftest import KEY
from tests.faults.test_database import frozen
from tests.servers import Server, gunicorn, wait_for

SETTINGS = FAST | {"wal_level": "replica", "max_wal_senders": "4", "max_connections": "60"}
LAG_SECONDS = 3


class Client:
    """An account that writes and reads a service's history; each request is on a connection of its own."""

    def __init__(self, server: Server, service_id: str) -> None:
        self.server, self.token = server, account(server)[1]["access_token"]
        self.path = f"/services/{service_id}/health-checks"

    def write(self) -> str:
        """Record a check, and return its message, which no other has."""
        message = secrets.token_hex(8)
        check = {"status": "unhealthy", "error_message": message}
        answer = with_token(self.server, self.token, self.path, method="POST", json=check)
        assert answer.status_code == 201, answer.text
        return message

    def read(self) -> requests.Response:
        return with_token(self.server, self.token, f"{self.path}?limit=5")

    def sees(self, message: str) -> bool:
        answer = self.read()
        assert answer.status_code == 200, answer.text
        return message in answer.text

    def outcomes(self, outcome: str) -> int:
        """How many reads of all clients ended so."""
        lines = self.server.get("/metrics").text.splitlines()
        name = f'pake_replica_reads_total{{outcome="{outcome}"}} '
        return sum(int(float(line.removeprefix(name))) for line in lines if line.startswith(name))

    def reads_the_standby(self) -> bool:
        before = self.outcomes("replica")
        assert self.read().status_code == 200
        return self.outcomes("replica") > before


class Pair(NamedTuple):
    """A primary and its standby, each a folder of an embedded server, and the service that uses both."""

    primary: Path
    standby: Path
    server: Server
    service_id: str

    def client(self) -> Client:
        return Client(self.server, self.service_id)

    def on_standby(self, statement: str) -> object:
        with autocommit(embedded.superuser_url(self.standby)) as connection:
            return connection.exec_driver_sql(statement).scalar()


def new_standby(primary: Path, standby: Path) -> str:
    """Make and start a standby of that primary; its URL."""
    address = sa.make_url(embedded.superuser_url(primary))
    conninfo = psycopg2.extensions.make_dsn(
        host=str(address.query["host"]), user=address.username, password=address.password
    )
    standby.mkdir(mode=0o711)
    backup = ["--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf", "--no-sync"]
    program = embedded.binaries() / "bin/pg_basebackup"
    subprocess.run([program, "-D", standby / "data", "-d", conninfo, *backup], check=True, timeout=60)
    owner = (primary / "data").stat()
    for path in (standby / "data", *(standby / "data").rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    for name in ("password", "superuser-password"):
        shutil.copy(primary / name, standby / name)
    return embedded.start(standby, settings=SETTINGS)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    place = Path(tempfile.mkdtemp(prefix="pake-test-"))
    place.chmod(0o711)
    primary, standby = place / "primary", place / "standby"
    try:
        url = embedded.start(primary, settings=SETTINGS)
        migrate(url)
        with open(primary / "data/pg_hba.conf", "a") as rules:
            rules.write("local replication all scram-sha-256\n")
        with autocommit(embedded.superuser_url(primary)) as connection:
            connection.exec_driver_sql("SELECT pg_reload_conf()")
        with autocommit(url) as connection:
            service_id = connection.exec_driver_sql(
                "INSERT INTO service_registry (service_id, service_name, service_version, service_type, "
                "environment, base_url) VALUES (gen_random_uuid(), 'clock', '1', 'api', 'testing', "
                "'http://clock.example') RETURNING service_id"
            ).scalar()
        with gunicorn(
            place / "service",
            DATABASE_URL=url,
            DATABASE_REPLICA_URL=new_standby(primary, standby),
            DATABASE_REPLICA_LAG_SECONDS=str(LAG_SECONDS),
            SECRET_KEY=KEY,
            WEB_CONCURRENCY="2",
            LOG_FORMAT="json",
        ) as server:
            yield Pair(primary, standby, server, str(service_id))
    finally:
        embedded.stop(standby)
        embedded.stop(primary)
        shutil.rmtree(place)


def write_and_read(client: Client, times: int = 10) -> None:
    """Each write is in the next read."""
    for _ in range(times):
        assert client.sees(client.write())


def test_reads_come_from_the_standby_and_hold_what_the_client_wrote(pair: Pair) -> None:
    client = pair.client()
    wait_for(client.reads_the_standby)
    write_and_read(client, times=30)
    wait_for(client.reads_the_standby)


def test_while_replay_is_paused_who_wrote_reads_the_primary_and_others_the_standby(pair: Pair) -> None:
    writer, bystander = pair.client(), pair.client()
    wait_for(bystander.reads_the_standby)
    pair.on_standby("SELECT pg_wal_replay_pause()")
    try:
        wait_for(lambda: pair.on_standby("SELECT pg_get_wal_replay_pause_state()") == "paused")
        write_and_read(writer)
        assert writer.outcomes("behind") > 0
        message = writer.write()
        wait_for(lambda: bystander.sees(message))  # after LAG_SECONDS nobody reads it
        assert not bystander.reads_the_standby()
    finally:
        pair.on_standby("SELECT pg_wal_replay_resume()")
    wait_for(writer.reads_the_standby)
    assert writer.sees(message)


def test_a_killed_standby_is_passed_over_until_it_is_back(pair: Pair) -> None:
    client = pair.client()
    wait_for(client.reads_the_standby)
    killed = embedded.status(pair.standby).server_pid
    assert killed
    os.kill(killed, signal.SIGKILL)
    write_and_read(client)
    wait_for(lambda: embedded.status(pair.standby).server_pid not in (None, killed))
    wait_for(client.reads_the_standby)
    write_and_read(client)


def test_a_standby_that_is_away_costs_no_read(pair: Pair) -> None:
    client = pair.client()
    wait_for(client.reads_the_standby)
    away = client.outcomes("away")
    embedded.stop(pair.standby)
    try:
        write_and_read(client)
        assert client.outcomes("away") > away
    finally:
        embedded.start(pair.standby, settings=SETTINGS)
    wait_for(client.reads_the_standby)


def test_a_frozen_standby_is_given_up_and_used_when_it_thaws(pair: Pair) -> None:
    client = pair.client()
    wait_for(client.reads_the_standby)
    with frozen(pair.standby):
        write_and_read(client)
    wait_for(client.reads_the_standby)


def test_a_promoted_standby_is_read_no_longer_and_a_new_one_is(pair: Pair) -> None:
    client, bystander = pair.client(), pair.client()
    wait_for(client.reads_the_standby)
    assert pair.on_standby("SELECT pg_promote()")
    try:
        message = client.write()
        assert client.sees(message)
        assert bystander.sees(message)
        write_and_read(client)
        assert not bystander.reads_the_standby()
        assert "leads to no standby" in pair.server.log
    finally:
        embedded.stop(pair.standby)
        shutil.rmtree(pair.standby)
        new_standby(pair.primary, pair.standby)
    wait_for(client.reads_the_standby)
    write_and_read(client)
