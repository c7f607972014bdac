"""Connections of the store's own, to a SQLite file or a PostgreSQL database.

They come straight from the driver, so no listener of the app, of a tracer or of these profilers sees them,
and no pool is shared. A writing transaction holds the store's one write lock.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from profilers.storage import schema

log = logging.getLogger("profilers")

FILE = "profiles.sqlite"
BUSY_SECONDS = 5.0
_LOCK = 0x70726F66  # pg_advisory_xact_lock's key: any number that all workers share
_SCHEMA = f"flask_profilers_v{schema.VERSION}"

Insert = tuple[str, int, str]
"""Head of an INSERT up to VALUES, number of columns, tail."""


class StoreError(Exception):
    """The store cannot be used as it was asked for; the message is one line for the user."""


class Connection:
    """One connection; not shared between threads."""

    def __init__(self, driver: Any, *, sqlite: bool) -> None:
        self.driver = driver
        self.sqlite = sqlite
        self.inode = 0
        """Of the SQLite file."""

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """Run one statement, written with `?`, and return the driver's cursor."""
        cursor = self.driver.cursor()
        cursor.execute(sql if self.sqlite else sql.replace("?", "%s"), parameters)
        return cursor

    def insert(self, statement: Insert, rows: Sequence[Sequence[Any]]) -> None:
        """Insert many rows with as few round trips as the driver allows."""
        head, columns, tail = statement
        if not rows:
            return
        if self.sqlite:
            marks = f"({', '.join('?' * columns)})"
            self.driver.executemany(head + marks + tail, rows)
            return
        marks = f"({', '.join(['%s'] * columns)})"
        for first in range(0, len(rows), 500):  # executemany would be one round trip a row
            part = rows[first : first + 500]
            values = [value for row in part for value in row]
            self.driver.cursor().execute(head + ", ".join([marks] * len(part)) + tail, values)

    @contextlib.contextmanager
    def transaction(self, *, write: bool) -> Iterator[Connection]:
        """A snapshot of the store to read, or its one write lock; rolled back on any error."""
        if self.sqlite:
            self.execute("BEGIN IMMEDIATE" if write else "BEGIN")
        else:
            self.execute(
                "SELECT set_config('search_path', ?, true), set_config('statement_timeout', '30000', true)",
                (_SCHEMA,),
            )
            if write:
                self.execute("SELECT pg_advisory_xact_lock(?)", (_LOCK,))
        try:
            yield self
        except BaseException:
            with contextlib.suppress(Exception):  # the connection may be what broke
                self.driver.rollback()
            raise
        self.driver.commit()

    def close(self) -> None:
        """Give the connection back; never raises."""
        with contextlib.suppress(Exception):
            self.driver.close()


class Database:
    """Where a store lies: `path` of a SQLite file, or `url` of a PostgreSQL database."""

    def __init__(self, where: str | os.PathLike[str]) -> None:
        self.path: Path | None = None
        self.url: URL | None = None
        text = os.fspath(where)
        if "://" in text:
            self.url = _postgresql_url(text)
        else:
            path = Path(text).expanduser().absolute()
            self.path = path if path.suffix else path / FILE
        self._ready = False

    def __str__(self) -> str:
        return str(self.path) if self.path else str(self.url)  # a URL hides its password

    @property
    def errors(self) -> type[Exception]:
        """The driver's base exception."""
        return self._driver().Error  # type: ignore[no-any-return]

    @property
    def refusals(self) -> tuple[type[Exception], ...]:
        """The driver's exceptions that trying again does not cure."""
        driver = self._driver()
        return (driver.DataError, driver.IntegrityError, driver.ProgrammingError, driver.NotSupportedError)

    def is_gone(self, connection: Connection) -> bool:
        """Whether the connection's file was deleted or replaced under it."""
        if self.path is None:
            return False
        try:
            gone = self.path.stat().st_ino != connection.inode
        except OSError:
            gone = True
        self._ready = self._ready and not gone
        return gone

    def connect(self) -> Connection:
        """Open a connection, creating the store when there is none.

        Raises:
            StoreError: it cannot be created or opened, or is something else than a store.
        """
        try:
            connection = self._connect_sqlite() if self.path else self._connect_postgresql()
        except (OSError, sqlite3.Error, ArgumentError) as error:
            raise StoreError(f"PROFILE_STORE={self}: {_reason(error)}") from error
        return connection

    def _connect_sqlite(self) -> Connection:
        assert self.path is not None
        if not self._ready:
            make_private(self.path)
        driver = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection = Connection(driver, sqlite=True)
        try:
            if not self._ready:
                connection = self._prepare_sqlite(connection)
                self._ready = True
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.inode = self.path.stat().st_ino
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare_sqlite(self, connection: Connection) -> Connection:
        assert self.path is not None
        with connection.transaction(write=False):  # both of one moment: another worker may be creating it
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and not version:
            raise StoreError(f"PROFILE_STORE={self}: is a database, but is not a profile store")
        if tables and version != schema.VERSION:
            connection.close()
            aside = self.path.with_name(f"{self.path.name}.version-{version}")
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(f"{self.path}{suffix}", f"{aside}{suffix}")
            log.warning("the profile store %s has version %s, not %s: moved to %s, a new one is begun",
                        self.path, version, schema.VERSION, aside.name)  # fmt: skip
            return self._connect_sqlite()
        if version != schema.VERSION:
            self._use_wal(connection)
            with connection.transaction(write=True):
                for statement in schema.TABLES.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {schema.VERSION}")
        return connection

    def _use_wal(self, connection: Connection) -> None:
        """Other workers may be creating the store too, and here SQLite's time-out does not wait for them."""
        until = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
                time.sleep(0.01)
            else:
                return

    def _driver(self) -> Any:
        return self.url.get_dialect().import_dbapi() if self.url is not None else sqlite3

    def _connect_postgresql(self) -> Connection:
        assert self.url is not None
        try:
            positional, named = self.url.get_dialect()().create_connect_args(self.url)
            dbapi = self._driver()
        except (ImportError, NoSuchModuleError) as error:
            raise StoreError(f"PROFILE_STORE={self}: the driver is not installed ({error})") from error
        try:
            driver = dbapi.connect(*positional, **{"connect_timeout": 5, **named})
        except dbapi.Error as error:
            raise StoreError(f"PROFILE_STORE={self}: {_reason(error)}") from error
        connection = Connection(driver, sqlite=False)
        if not self._ready:
            with connection.transaction(write=True):
                # A schema of its own, with the version in its name: migrations of the app do not see it,
                # and workers of two releases do not disturb each other.
                connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_SCHEMA}")
                for statement in schema.TABLES.split(";"):
                    connection.execute(statement)
            self._ready = True
        return connection


def make_private(path: Path) -> None:
    """Create the file with mode 0600, and folders above it that are missing with 0700.

    Raises:
        OSError: it cannot be created.
    """
    if not path.parent.is_dir():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, stat.S_IRUSR | stat.S_IWUSR))


def _postgresql_url(text: str) -> URL:
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise StoreError("PROFILE_STORE: not a database URL; expected a path or postgresql://…") from error
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise StoreError(f"PROFILE_STORE={url}: expected a path or postgresql://…, got {url.drivername}://")
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg2")
    return url


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
