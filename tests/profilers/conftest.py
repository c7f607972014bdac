"""A shop on SQLite, and apps whose requests can be looked at as soon as they are answered."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask

from profilers import Profilers
from profilers.collect import Recording
from profilers.extension import installed
from profilers.recording import examine
from profilers.worker_slots import WorkerSlots
from tests.profilers.example import memory_engine


@pytest.fixture
def engine() -> Iterator[sa.Engine]:
    """Ten customers with an order each."""
    engine = memory_engine()
    yield engine
    engine.dispose()


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test's apps keep their profiles in its own folder, and nothing of them runs on afterwards."""
    monkeypatch.setenv("FLASK_PROFILE_STORE", str(tmp_path / "profiles"))
    before = set(installed)
    yield
    for extension in set(installed) - before:
        extension.stop_worker()
    for path in [path for path in WorkerSlots._opened if path.is_relative_to(tmp_path)]:
        os.close(WorkerSlots._opened.pop(path)._file)


Profiled = Callable[..., tuple[Flask, list[Recording]]]


@pytest.fixture
def profiled() -> Profiled:
    """`app, profiles = profiled("queries", PROFILE_QUERIES_DUPLICATES=0)`: examined profiles, in order."""

    def make(names: str, **config: object) -> tuple[Flask, list[Recording]]:
        app = Flask("shop")
        app.config.update(PROFILE=names, **config)
        extension = Profilers(app)
        profiles: list[Recording] = []

        def deliver(recording: Recording) -> None:
            examine(recording, extension.profilers)
            profiles.append(recording)

        extension.deliver = deliver
        return app, profiles

    return make
