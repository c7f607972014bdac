"""The key that signs tokens: the configured one, else one generated once and kept in the instance folder."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from pathlib import Path

from pake.config import Settings


def signing_key(settings: Settings) -> str:
    """`SECRET_KEY`, or the content of `INSTANCE_PATH/secret-key`, made now if there is none."""
    if settings.secret_key:
        return settings.secret_key.get_secret_value()
    path = settings.instance_path / "secret-key"
    if not path.exists():
        _create(path)
    return path.read_text()


def _create(path: Path) -> None:
    """Write a key of mode 0600, whole or not at all; of several processes at once the first one's stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=path.parent)  # mkstemp creates with mode 0600
    try:
        with open(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(48))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        os.unlink(draft)
