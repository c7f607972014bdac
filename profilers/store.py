"""Where finished profiles go, shared by all workers of a host, or by several hosts.

`PROFILE_STORE` (in `app.config`, or `FLASK_PROFILE_STORE` in the environment) says where: a folder, a SQLite
file, or the URL of a PostgreSQL database. Nothing else of the app's is touched: the store has connections of
its own. It is bounded (`Limits`), and `left_out` says what the bounds made it drop.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from profilers.profile import Profile
from profilers.storage.answers import Answers
from profilers.storage.database import Database, StoreError
from profilers.storage.keeper import Keeper
from profilers.storage.rows import (
    EndpointRow,
    FindingRow,
    Limits,
    MemorySample,
    Period,
    PlanRow,
    ProfileRow,
    Reader,
    StatementRow,
    matches,
)

__all__ = [
    "EndpointRow",
    "FindingRow",
    "Limits",
    "MemorySample",
    "Period",
    "PlanRow",
    "ProfileRow",
    "Reader",
    "StatementRow",
    "Store",
    "StoreError",
    "default_folder",
    "matches",
    "open_store",
]


class Store(Answers):
    """A `Reader` that can be written to as well."""

    def __init__(self, database: Database, limits: Limits) -> None:
        super().__init__(database)
        self.limits = limits

    def add(self, profiles: Sequence[Profile]) -> None:
        """Add finished, examined profiles at once; a worker uses `profilers.writer.Writer` instead.

        Raises:
            StoreError, or the driver's error: nothing was added.
        """
        keeper = self.keeper()
        try:
            keeper.write(keeper.batch(profiles))
        finally:
            keeper.close()

    def keeper(self) -> Keeper:
        """The writing side, for one thread."""
        return Keeper(self.database, self.limits)


def default_folder(instance_path: str) -> Path:
    """Where profiles go when nothing says: `profiles` in the app's instance folder, else in a private folder
    of this user's among the temporary files, when the instance folder can be neither made nor written to.

    Raises:
        StoreError: somebody else made that private folder.
    """
    folder = Path(instance_path) / "profiles"
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if os.access(existing, os.W_OK | os.X_OK):
        return folder
    user = os.getuid() if sys.platform != "win32" else getpass.getuser()
    name = hashlib.blake2b(instance_path.encode(), digest_size=6).hexdigest()
    private = Path(tempfile.gettempdir()) / f"flask-profiles-{user}-{name}"
    private.mkdir(mode=0o700, exist_ok=True)
    found = private.lstat()
    if sys.platform != "win32" and (
        found.st_uid != user or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o077
    ):
        raise StoreError(f"{private} is not this user's alone: set PROFILE_STORE to a folder of yours")
    return private


def open_store(where: str | os.PathLike[str], limits: Limits = Limits()) -> Store:
    """Open, or create at first use, the store in a folder, a SQLite file or a PostgreSQL database.

    Raises:
        StoreError: it is neither a path nor the URL of a PostgreSQL database. Whether it can be created and
            opened shows at the first question.
    """
    return Store(Database(where), limits)
