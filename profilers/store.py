"""Where finished profiles go, shared by all workers of a host, or by several hosts.

`PROFILE_STORE` (in `app.config`, or `FLASK_PROFILE_STORE` in the environment) says where: a folder, a SQLite
file, or the URL of a PostgreSQL database. Nothing else of the app's is touched: the store has connections of
its own. It is bounded (`Limits`), and `left_out` says what the bounds made it drop.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from profilers.profile import Profile
from profilers.storage.answers import Answers
from profilers.storage.database import Database, StoreError
from profilers.storage.keeper import Keeper
from profilers.storage.rows import (
    EndpointRow,
    FindingRow,
    Limits,
    Period,
    ProfileRow,
    Reader,
    StatementRow,
    matches,
)

__all__ = [
    "EndpointRow",
    "FindingRow",
    "Limits",
    "Period",
    "ProfileRow",
    "Reader",
    "StatementRow",
    "Store",
    "StoreError",
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


def open_store(where: str | os.PathLike[str], limits: Limits = Limits()) -> Store:
    """Open, or create at first use, the store in a folder, a SQLite file or a PostgreSQL database.

    Raises:
        StoreError: it is neither a path nor the URL of a PostgreSQL database. Whether it can be created and
            opened shows at the first question.
    """
    return Store(Database(where), limits)
