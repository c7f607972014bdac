"""Answers a `Reader`'s questions from the tables."""

from __future__ import annotations

import contextlib
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from profilers.profile import Profile
from profilers.storage import schema
from profilers.storage.batch import Sums
from profilers.storage.database import Connection, Database
from profilers.storage.encoding import decode, decode_finding
from profilers.storage.histogram import count_value, duration_value, median_bounds, percentile_bucket
from profilers.storage.memory_samples import decode_sample
from profilers.storage.rows import (
    Bounds,
    EndpointRow,
    FindingRow,
    MemorySample,
    Period,
    PlanRow,
    ProfileRow,
    StatementRow,
)

_PROFILE = """
    SELECT p.id, n.text, p.kind, p.started_at, p.duration, p.status, p.outcome, p.host, p.worker,
           p.statements, p.row_count, p.database_time, p.findings
      FROM profile p JOIN endpoint n ON n.id = p.endpoint_id
"""
_WHOLE = """
    SELECT p.id, n.text, p.kind, p.started_at, p.duration, p.status, p.outcome, p.host, p.worker,
           p.statements, p.database_time, d.body
      FROM profile p JOIN endpoint n ON n.id = p.endpoint_id LEFT JOIN detail d ON d.profile_id = p.id
"""
_PAGE = 200


class Answers:
    """A `Reader` of one database; every question is asked in a connection and a snapshot of its own."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Connection]:
        connection = self.database.connect()
        try:
            with connection.transaction(write=False):
                yield connection
        finally:
            connection.close()

    def profiles(
        self, period: Period = Period(), *, limit: int = 100, before: str | None = None
    ) -> Sequence[ProfileRow]:
        """Newest first; `before` is the id of the last row of the page before."""
        with self._reading() as connection:
            where, parameters = _about_profiles(connection, period)
            if before is not None:
                where += " AND (p.started_at, p.id) < ((SELECT started_at FROM profile WHERE id = ?), ?)"
                parameters += [before, before]
            order = " ORDER BY p.started_at DESC, p.id DESC LIMIT ?"
            found = connection.execute(_PROFILE + where + order, [*parameters, limit]).fetchall()
        return [ProfileRow(*row) for row in found]

    def profile(self, profile_id: str) -> Profile | None:
        """One profile with its statements and findings."""
        with self._reading() as connection:
            rows = connection.execute(f"{_WHOLE} WHERE p.id = ?", (profile_id,)).fetchall()
            return next(_decoded(connection, rows), None)

    def every_profile(self, period: Period = Period()) -> Iterator[Profile]:
        """All profiles of the period, oldest first, one at a time."""
        after: tuple[float, str] | None = None
        while True:
            with self._reading() as connection:
                where, parameters = _about_profiles(connection, period)
                if after is not None:
                    where += " AND (p.started_at, p.id) > (?, ?)"
                    parameters += after
                order = " ORDER BY p.started_at, p.id LIMIT ?"
                rows = connection.execute(_WHOLE + where + order, [*parameters, _PAGE]).fetchall()
                page = list(_decoded(connection, rows))
            yield from page
            if len(page) < _PAGE:
                return
            after = (page[-1].started_at, page[-1].id)

    def endpoints(self, period: Period = Period(), *, points: int = 0) -> Sequence[EndpointRow]:
        """Most total time first; with `points`, each with its requests in so many parts of the period."""
        sums: defaultdict[int, Sums] = defaultdict(Sums)
        trends: defaultdict[int, list[int]] = defaultdict(lambda: [0] * points)
        with self._reading() as connection:
            where, parameters = _about_slots(connection, period)
            query = f"SELECT endpoint_id, body, slot FROM endpoint_slot s {where} ORDER BY slot"
            found = connection.execute(query, parameters).fetchall()
            first = period.since if period.since is not None else (found[0][2] if found else 0)
            span = (time.time() if period.until is None else period.until) - first
            for endpoint, body, slot in found:
                before = sums[endpoint].requests
                sums[endpoint].merge(body)
                if points:
                    part = int((slot - first) / max(span, 1) * points)
                    trends[endpoint][min(max(part, 0), points - 1)] += sums[endpoint].requests - before
            names = dict(connection.execute("SELECT id, text FROM endpoint").fetchall())
            query = f"""SELECT endpoint_id, count(DISTINCT finding_id)
                          FROM finding_slot s {where} GROUP BY endpoint_id"""
            findings = dict(connection.execute(query, parameters).fetchall())
        rows = [
            endpoint_row(names[key], found, findings.get(key, 0), tuple(trends[key]))
            for key, found in sums.items()
        ]
        return sorted(rows, key=lambda row: (-row.timings["total"], row.name))

    def findings(self, period: Period = Period()) -> Sequence[FindingRow]:
        """Most time lost first."""
        with self._reading() as connection:
            where, parameters = _about_slots(connection, period)
            found = connection.execute(
                f"""SELECT finding_id, endpoint_id, CAST(SUM(requests) AS BIGINT),
                           CAST(SUM(statements) AS BIGINT), SUM(duration)
                      FROM finding_slot s {where} GROUP BY finding_id, endpoint_id""",
                parameters,
            ).fetchall()
            names = dict(connection.execute("SELECT id, text FROM endpoint").fetchall())
            known = {row[0]: row[1:] for row in connection.execute("SELECT * FROM finding").fetchall()}
        groups: defaultdict[int, list[Any]] = defaultdict(lambda: [set(), 0, 0, 0.0])
        for identity, endpoint, requests, statements, duration in found:
            group = groups[identity]
            group[0].add(names[endpoint])
            group[1:] = [group[1] + requests, group[2] + statements, group[3] + duration]
        rows = []
        for identity, (endpoints, requests, statements, duration) in groups.items():
            body, first_seen, last_seen, last_profile = known[identity]
            finding = decode_finding(json.loads(body))
            rows.append(
                FindingRow(
                    finding=finding,
                    fingerprint=finding.fingerprint,
                    endpoints=tuple(sorted(endpoints)),
                    requests=requests,
                    statements=statements,
                    duration=duration,
                    first_seen=first_seen,
                    last_seen=last_seen,
                    last_profile=last_profile,
                )
            )
        return sorted(rows, key=lambda row: (-row.duration, -row.statements, row.fingerprint))

    def statements(self, period: Period = Period(), *, limit: int = 100) -> Sequence[StatementRow]:
        """Most total time first."""
        sums: defaultdict[int, list[Any]] = defaultdict(lambda: [0, 0.0, 0.0, 0, []])
        with self._reading() as connection:
            where, parameters = _about_slots(connection, period)
            found = connection.execute(
                f"""SELECT shape_id, endpoint_id, CAST(SUM(calls) AS BIGINT), SUM(duration),
                           MAX(duration_max), CAST(SUM(row_count) AS BIGINT)
                      FROM statement_slot s {where} GROUP BY shape_id, endpoint_id""",
                parameters,
            )
            for shape, endpoint, calls, duration, longest, rows in found:
                total = sums[shape]
                total[0] += calls
                total[1] += duration
                total[2] = max(total[2], longest)
                total[3] += rows
                total[4].append(endpoint)
            ids = sorted(sums, key=lambda shape: -sums[shape][1])[:limit]
            shapes = _shapes(connection, ids)
            names = dict(connection.execute("SELECT id, text FROM endpoint").fetchall())
        return [
            StatementRow(
                shapes[key], calls, duration, longest, rows, tuple(sorted(map(names.__getitem__, endpoints)))
            )
            for key in ids
            for calls, duration, longest, rows, endpoints in (sums[key],)
        ]

    def plans(self) -> Sequence[PlanRow]:
        """The plans of slow statements, one after the other as they changed."""
        with self._reading() as connection:
            found = connection.execute(
                """SELECT s.text, p.source, p.body, p.first_seen, p.last_seen
                     FROM plan p JOIN shape s ON s.id = p.shape_id ORDER BY s.text, p.source, p.first_seen"""
            ).fetchall()
        return [
            PlanRow(shape, source, tuple(json.loads(body)), first, last)
            for shape, source, body, first, last in found
        ]

    def memory(self, period: Period = Period()) -> Sequence[MemorySample]:
        """Looks at the memory of the workers, oldest first."""
        since, until = period.since or 0.0, period.until if period.until is not None else 1e18
        with self._reading() as connection:
            found = connection.execute(
                """SELECT taken_at, host, pid, born, body FROM memory_sample
                    WHERE taken_at >= ? AND taken_at < ? ORDER BY taken_at, host, pid""",
                (since, until),
            ).fetchall()
        return [decode_sample(row) for row in found]

    def left_out(self) -> dict[str, int]:
        """What the store's bounds made it drop, by kind: `profiles`, `statements`, `bytes`."""
        with self._reading() as connection:
            tally = dict(connection.execute("SELECT name, value FROM tally").fetchall())
        return {kind: tally.get(f"left_out_{kind}", 0) for kind in ("profiles", "statements", "bytes")}

    def clear(self) -> None:
        """Forget everything."""
        connection = self.database.connect()
        try:
            with connection.transaction(write=True):
                for table in schema.CLEARED:
                    connection.execute(f"DELETE FROM {table}")
        finally:
            connection.close()


def endpoint_row(name: str, sums: Sums, findings: int = 0, trend: tuple[int, ...] = ()) -> EndpointRow:
    """What the sums of one endpoint say."""

    def duration(share: float) -> float:
        value = duration_value(percentile_bucket(sums.durations, share))
        return min(max(value, sums.shortest), sums.longest)

    def statements(share: float) -> float:
        return min(count_value(percentile_bucket(sums.statements, share)), float(sums.statements_max))

    return EndpointRow(
        name=name,
        requests=sums.requests,
        duration_p50=duration(0.5),
        duration_p95=duration(0.95),
        statements_p50=statements(0.5),
        statements_p95=statements(0.95),
        statements_max=sums.statements_max,
        rows=sums.rows,
        timings={**sums.timings, "total": sums.duration},
        findings=findings,
        errors=sums.errors,
        trend=trend,
        statements=sums.statement_count,
        median=Bounds(*median_bounds(sums.durations)),
    )


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def _endpoint_ids(connection: Connection, period: Period) -> list[int]:
    rows = connection.execute("SELECT id, text FROM endpoint").fetchall()
    return [identity for identity, name in rows if period.names(name)] or [0]


def _about_profiles(connection: Connection, period: Period) -> tuple[str, list[Any]]:
    where, parameters = " WHERE 1 = 1", []
    if period.since is not None:
        where += " AND p.started_at >= ?"
        parameters.append(period.since)
    if period.until is not None:
        where += " AND p.started_at < ?"
        parameters.append(period.until)
    if period.name is not None:
        ids = _endpoint_ids(connection, period)
        where += f" AND p.endpoint_id IN ({_marks(ids)})"
        parameters += ids
    return where, parameters


def _about_slots(connection: Connection, period: Period) -> tuple[str, list[Any]]:
    where, parameters = "WHERE 1 = 1", []
    if period.since is not None:
        where += " AND s.slot + s.width > ?"
        parameters.append(period.since)
    if period.until is not None:
        where += " AND s.slot < ?"
        parameters.append(period.until)
    if period.name is not None:
        ids = _endpoint_ids(connection, period)
        where += f" AND s.endpoint_id IN ({_marks(ids)})"
        parameters += ids
    return where, parameters


def _shapes(connection: Connection, ids: Sequence[int]) -> dict[int, str]:
    if not ids:
        return {}
    query = f"SELECT id, text FROM shape WHERE id IN ({_marks(ids)})"
    return dict(connection.execute(query, ids).fetchall())


def _decoded(connection: Connection, rows: Sequence[Any]) -> Iterator[Profile]:
    """Profiles of `_WHOLE`'s rows; the shapes of all of them are read at once."""
    ids = {identity for row in rows if row[-1] for identity in json.loads(row[-1])["shapes"]}
    shapes = _shapes(connection, list(ids))
    for id_, name, kind, started_at, duration, status, outcome, host, worker, count, database, body in rows:
        summary = Profile(
            id=id_,
            name=name,
            kind=kind,
            started_at=started_at,
            duration=duration,
            status=status,
            outcome=outcome,
            host=host,
            worker=worker,
            timings={"database": database},
        )
        yield decode(summary, count, body, shapes)
