"""Fixtures of the service's tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pake import embedded

if os.geteuid() != 0:  # what only root can try
    collect_ignore = ["test_embedded_as_root.py"]


@pytest.fixture
def place() -> Iterator[Path]:
    """A short directory that every user may enter, unlike `tmp_path`."""
    path = Path(tempfile.mkdtemp(prefix="pake-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def folder(place: Path) -> Iterator[Path]:
    """Where an embedded server may be started; stopped after the test."""
    yield place / "postgres"
    embedded.stop(place / "postgres")
