"""The keys of tokens: one signs, and those it replaced are still believed while their tokens live.

The one that signs is the configured one, else one generated once and kept in the instance folder. The header
of each token names its key by `kid` (RFC 7515 section 4.1.4).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pake.config import Settings


@dataclass(frozen=True)
class Keys:
    """The keys of one app."""

    by_id: Mapping[str, str] = field(repr=False)
    current: str
    """Id of the key that signs."""

    @classmethod
    def of(cls, settings: Settings) -> Keys:
        """The key that signs and `PREVIOUS_SECRET_KEYS`."""
        signs = signing_key(settings)
        previous = [key.get_secret_value() for key in settings.previous_secret_keys]
        return cls({key_id(key): key for key in (*previous, signs)}, key_id(signs))


def key_id(key: str) -> str:
    """What a token says about the key that signed it: it tells keys apart and nothing else."""
    return hashlib.sha256(b"pake key id:" + key.encode()).hexdigest()[:16]


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
