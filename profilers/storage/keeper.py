"""Writes batches into the tables, and keeps the tables within their bounds."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable

from profilers.profile import Profile
from profilers.storage import schema
from profilers.storage.batch import Batch, Fingerprints, Names, Sampler, Shapes, Sums
from profilers.storage.database import Connection, Database
from profilers.storage.plan_history import keep_plans_bounded, note_plans
from profilers.storage.rows import Limits

UPKEEP_SECONDS = 10.0


class Keeper:
    """The writing side of one process, used by one thread at a time; holds one connection open."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self.database = database
        self.limits = limits
        self._connection: Connection | None = None
        self._endpoints = Names(limits.endpoints)
        self._shapes = Shapes(limits.shapes)
        self._findings = Fingerprints(limits.findings)
        self._sampler = Sampler()
        self._epoch: int | None = None
        self._next_upkeep = 0.0

    def new_batch(self) -> Batch:
        """An empty batch for `write`."""
        return Batch(self._endpoints, self._shapes, self._findings, self._sampler)

    def batch(self, profiles: Iterable[Profile]) -> Batch:
        """Sum up profiles for `write`."""
        batch = self.new_batch()
        for profile in profiles:
            batch.add(profile)
        return batch

    def write(self, batch: Batch, profiles_left_out: int = 0) -> None:
        """Write a batch in one transaction; writing the same batch again after a failure adds nothing twice.

        Raises:
            StoreError, or the driver's error: nothing was written; the connection is closed.
        """
        try:
            connection = self.connection
            with connection.transaction(write=True):
                if not self._is_written(connection, batch):
                    self._write(connection, batch, profiles_left_out)
                if time.monotonic() >= self._next_upkeep:
                    self._next_upkeep = time.monotonic() + UPKEEP_SECONDS
                    keep_bounds(connection, self.limits)
        except BaseException:
            self.close()
            raise
        for names in (self._endpoints, self._shapes, self._findings):
            names.new.clear()

    @property
    def connection(self) -> Connection:
        """The open connection, opened if need be."""
        if self._connection is not None and self.database.is_gone(self._connection):
            self.close()
        if self._connection is None:
            self._connection = self.database.connect()
        return self._connection

    def close(self) -> None:
        """Close the connection; the next write opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @staticmethod
    def _is_written(connection: Connection, batch: Batch) -> bool:
        """A commit may have been carried out although the connection broke before saying so."""
        if not batch.profiles:
            return False
        first = batch.profiles[0][0]
        return connection.execute("SELECT 1 FROM profile WHERE id = ?", (first,)).fetchone() is not None

    def _write(self, connection: Connection, batch: Batch, profiles_left_out: int) -> None:
        self._write_names(connection)
        statements = batch.statement_rows()
        connection.insert(schema.ADD_ENDPOINTS, list(self._endpoints.new.items()))
        connection.insert(schema.ADD_SHAPES, list(self._shapes.new.items()))
        connection.insert(schema.ADD_PROFILES, batch.profiles)
        connection.insert(schema.ADD_DETAILS, batch.details)
        connection.insert(schema.ADD_STATEMENTS, statements)
        connection.insert(schema.ADD_FINDINGS, list(batch.findings.values()))
        connection.insert(
            schema.ADD_FINDING_SLOTS,
            [(slot, schema.SLOT, endpoint, identity, *sums)
             for (slot, endpoint, identity), sums in batch.finding_sums.items()],
        )  # fmt: skip
        note_plans(connection, [(*key, outline) for key, outline in batch.plans.items()])
        merge_endpoints(
            connection,
            {(slot, schema.SLOT, endpoint): sums for (slot, endpoint), sums in batch.endpoints.items()},
        )
        tally = {
            "profiles": len(batch.profiles),
            "details": len(batch.details),
            "detail_bytes": sum(len(row[3]) for row in batch.details),
            "left_out_profiles": profiles_left_out,
            "left_out_statements": batch.statements_left_out,
        }
        connection.insert(schema.ADD_TALLY, [item for item in tally.items() if item[1]])

    def _write_names(self, connection: Connection) -> None:
        """In a store that was cleared or replaced, every name this process knows has to be written again."""
        row = connection.execute("SELECT value FROM tally WHERE name = 'epoch'").fetchone()
        if row is None:
            row = (secrets.randbits(62),)
            connection.insert(schema.ADD_TALLY, [("epoch", *row)])
        if row[0] != self._epoch:
            self._epoch = row[0]
            for names in (self._endpoints, self._shapes):
                names.renew()


def merge_endpoints(connection: Connection, additions: dict[tuple[int, int, int], Sums]) -> None:
    """Add sums to the rows of their slot, width and endpoint; needs the write lock."""
    rows = []
    for key, sums in additions.items():
        stored = connection.execute(
            "SELECT body FROM endpoint_slot WHERE slot = ? AND width = ? AND endpoint_id = ?", key
        ).fetchone()
        total = sums
        if stored:
            total = Sums()
            total.merge(stored[0])
            total.merge(sums.encode())
        rows.append((*key, total.encode()))
    connection.insert(schema.REPLACE_ENDPOINTS, rows)


def keep_bounds(connection: Connection, limits: Limits) -> None:
    """Drop what is beyond the limits, oldest and least interesting first, and count it; widen old slots.

    Age is counted back from the newest profile, so a store that nobody writes to keeps what it has.
    """
    (now,) = connection.execute("SELECT COALESCE(MAX(started_at), 0) FROM profile").fetchone()
    _expire(connection, now - limits.days * 86400)
    for age, width in schema.SLOTS:
        if age is not None:
            wider = next(w for _, w in schema.SLOTS if w > width)
            _widen(connection, width, wider, int(now - age) // wider * wider)
    tally = dict(connection.execute("SELECT name, value FROM tally").fetchall())
    excess = tally.get("profiles", 0) - limits.profiles
    if excess > 0:
        _drop_profiles(connection, excess + limits.profiles // 20, bounded=True)
        tally = dict(connection.execute("SELECT name, value FROM tally").fetchall())
    details, size = tally.get("details", 0), tally.get("detail_bytes", 0)
    if details > 0:
        by_size = (size - limits.megabytes * 1_000_000) / (size / details or 1)
        excess = int(max(details - limits.detailed, by_size))
        if excess > 0:
            _drop_details(connection, excess + min(limits.detailed, details) // 20)


def _expire(connection: Connection, before: float) -> None:
    (old,) = connection.execute("SELECT count(*) FROM profile WHERE started_at < ?", (before,)).fetchone()
    if old:
        _drop_profiles(connection, old, bounded=False)
    for table in schema.SUMS:
        connection.execute(f"DELETE FROM {table} WHERE slot + width < ?", (before,))
    connection.execute("DELETE FROM finding WHERE last_seen < ?", (before,))
    keep_plans_bounded(connection, before)


def _drop_profiles(connection: Connection, count: int, *, bounded: bool) -> None:
    oldest = "SELECT id FROM profile ORDER BY started_at, id LIMIT ?"
    details, size = _delete_details(connection, oldest, count)
    profiles = connection.execute(f"DELETE FROM profile WHERE id IN ({oldest})", (count,)).rowcount
    _count(connection, profiles=-profiles, details=-details, detail_bytes=-size)
    if bounded:
        _count(connection, left_out_profiles=profiles, left_out_bytes=size)


def _drop_details(connection: Connection, count: int) -> None:
    oldest = "SELECT profile_id FROM detail ORDER BY notable, started_at LIMIT ?"
    (statements,) = connection.execute(
        f"SELECT COALESCE(SUM(statements), 0) FROM profile WHERE id IN ({oldest})", (count,)
    ).fetchone()
    details, size = _delete_details(connection, oldest, count)
    _count(connection, details=-details, detail_bytes=-size)
    _count(connection, left_out_statements=int(statements), left_out_bytes=size)


def _delete_details(connection: Connection, ids: str, count: int) -> tuple[int, int]:
    """Delete the details of the first `count` of the profiles that the query `ids` names."""
    chosen = f"FROM detail WHERE profile_id IN ({ids})"
    size = connection.execute(f"SELECT COALESCE(SUM(LENGTH(body)), 0) {chosen}", (count,)).fetchone()[0]
    return connection.execute(f"DELETE {chosen}", (count,)).rowcount, int(size)


def _count(connection: Connection, **changes: int) -> None:
    connection.insert(schema.ADD_TALLY, [item for item in changes.items() if item[1]])


def _widen(connection: Connection, width: int, wider: int, before: int) -> None:
    """Put slots that have come of age together: `width` seconds to `wider`."""
    for head, columns, key in (
        (schema.ADD_STATEMENTS, "CAST(SUM(calls) AS BIGINT), SUM(duration), MAX(duration_max), "
                                "CAST(SUM(row_count) AS BIGINT)", "shape_id"),
        (schema.ADD_FINDING_SLOTS, "CAST(SUM(requests) AS BIGINT), CAST(SUM(statements) AS BIGINT), "
                                   "SUM(duration)", "finding_id"),
    ):  # fmt: skip
        table = head[0].split()[2]
        connection.execute(
            f"""{head[0].removesuffix(" VALUES ")}
                SELECT slot / {wider} * {wider}, {wider}, endpoint_id, {key}, {columns} FROM {table}
                 WHERE width = {width} AND slot < ?
                 GROUP BY slot / {wider} * {wider}, endpoint_id, {key} {head[2]}""",
            (before,),
        )
        connection.execute(f"DELETE FROM {table} WHERE width = {width} AND slot < ?", (before,))
    merged: dict[tuple[int, int, int], Sums] = {}
    query = "SELECT slot, endpoint_id, body FROM endpoint_slot WHERE width = ? AND slot < ?"
    for slot, endpoint, body in connection.execute(query, (width, before)).fetchall():
        merged.setdefault((slot // wider * wider, wider, endpoint), Sums()).merge(body)
    merge_endpoints(connection, merged)
    connection.execute("DELETE FROM endpoint_slot WHERE width = ? AND slot < ?", (width, before))
