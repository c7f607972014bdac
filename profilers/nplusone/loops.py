"""Statements that code sends one by one in a loop: gets, selects, counts, Core, text, rows written singly.

The ORM does not know that these belong together. What does: they came through the very same lines of the
project, have one shape, and different values; and they are not pages or batches.
"""

from __future__ import annotations

import fnmatch
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from profilers.collect import Record, Recording, shape_of
from profilers.location import resolve
from profilers.nplusone.allowances import Allowance, is_allowed
from profilers.nplusone.chains import place
from profilers.nplusone.statements import (
    Reading,
    is_batch,
    plural_of,
    read,
    select_by_keys,
    write_only_relationship,
)
from profilers.profile import Finding, Location

_TEST_FILES = ("test_*.py", "*_test.py", "conftest.py")


@dataclass
class Loop:
    """Statements of one shape that came through the same lines."""

    reading: Reading
    records: list[Record] = field(default_factory=list)
    uncounted: int = 0
    uncounted_seconds: float = 0.0

    @property
    def count(self) -> int:
        return len(self.records) + self.uncounted

    @property
    def different(self) -> int:
        """How many have values of their own; what was not kept counts as different."""
        return len({record.parameters for record in self.records}) + self.uncounted

    @property
    def flushes(self) -> int:
        return len({record.flush for record in self.records}) + self.uncounted

    @property
    def seconds(self) -> float:
        return sum(each.ended - each.started for each in self.records) + self.uncounted_seconds

    @property
    def location(self) -> Location:
        site = self.records[0].site
        assert site is not None
        return resolve(site)

    @property
    def call(self) -> str:
        site = self.records[0].site
        return site.call if site else ""

    @property
    def batches(self) -> bool:
        values = sum(record.values for record in self.records) / len(self.records)
        return is_batch(self.reading, values)

    @property
    def subject(self) -> str:
        """The mapped class, the relationship, or the statement's shape."""
        if self.reading.text:
            return shape_of(self.records[0])
        if relationship := write_only_relationship(self.reading):
            return relationship
        return self.reading.entity.__name__ if self.reading.entity else self.reading.table


def loops(
    profile: Recording, records: Iterable[Record], least: int, allowances: list[Allowance]
) -> list[Loop]:
    """The groups of at least so many statements that are not allowed, in the order of their first."""
    by_lines: dict[tuple[int, int, int], list[Record]] = {}
    for record in records:
        site = record.site
        if site is not None and not site.in_fixture and not record.error:
            by_lines.setdefault((id(site.code), site.instruction, site.stack), []).append(record)
    beyond = {place(total.sample): total for total in profile.overflow.values()} if profile.left_out else {}
    found: dict[tuple[object, ...], Loop] = {}
    for lines, group in by_lines.items():
        if len(group) < least and not beyond and not allowances:
            continue
        for record in group:
            reading = read(record)
            if reading.verb in ("insert", "update", "delete") and not reading.text:
                if record.executemany:
                    continue
                # One flush writes several tables, and leaves out what has not changed.
                flush = record.site is not None and record.site.call == "flush"
                key = (lines, "flush") if flush else (lines, reading.verb, reading.table)
            else:
                key = (lines, shape_of(record))
            found.setdefault(key, Loop(reading)).records.append(record)
    for loop in found.values():
        if total := beyond.pop(place(loop.records[0]), None):
            loop.uncounted, loop.uncounted_seconds = total.count, total.duration
    for loop in found.values() if allowances else ():
        subject = loop.subject
        loop.records = [each for each in loop.records if not is_allowed(allowances, subject, each)]
    return [loop for loop in found.values() if loop.records and loop.count >= least]


def loop_findings(found: list[Loop], threshold: int) -> list[Finding]:
    """One finding for each loop; a check before each row is told as one with the rows it is for."""
    findings: list[Finding] = []
    claimed: set[int] = set()
    writes = [loop for loop in found if loop.reading.verb == "insert"]
    for loop in found:
        if loop.reading.verb == "select" and _is_loop(loop, threshold):
            rows = next((write for write in writes if _checks(loop, write, threshold)), None)
            findings.append(_select_finding(loop, rows))
            if rows is not None:
                claimed.add(id(rows))
    for loop in found:
        if id(loop) not in claimed and loop.reading.verb != "select" and not _in_test(loop):
            findings += _write_findings(loop, threshold)
    return findings


def _is_loop(loop: Loop, threshold: int) -> bool:
    if loop.different < threshold or loop.batches:
        return False
    # Without a key it asks for a range: the days of a month, the parts of a table.
    return loop.reading.text or loop.reading.key is not None


def _in_test(loop: Loop) -> bool:
    """A test that builds its rows one by one does what tests do."""
    name = loop.location.file.rpartition("/")[2]
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _TEST_FILES)


def _checks(select: Loop, write: Loop, threshold: int) -> bool:
    """Whether rows are written between the selects, into the table that they ask."""
    if select.reading.table != write.reading.table or not select.reading.table:
        return False
    written = [record.started for record in write.records]
    asked = [record.started for record in select.records]
    between = sum(
        bisect_left(written, after) > bisect_left(written, before) for before, after in pairwise(asked)
    )
    return between >= threshold - 1 and between * 2 >= len(asked) - 1


def _select_finding(loop: Loop, rows: Loop | None) -> Finding:
    reading = loop.reading
    relationship = write_only_relationship(reading)
    if rows is not None:
        cause, fix = "validation_query", _existing(reading)
        what = f"before each {loop.subject} is written, {reading.key_code} is asked for"
    elif reading.text:
        cause, fix = "text_in_loop", TEXT_FIX
        what = "a text statement is sent in a loop"
    elif loop.call == "get":
        cause, fix = "get_in_loop", _get_all(reading)
        what = f"session.get({loop.subject}, …) is called in a loop"
    elif reading.aggregate:
        cause, fix = "count_in_loop", _grouped(reading)
        what = f"{reading.aggregate} of {loop.subject} is asked for in a loop"
    elif relationship:
        cause, fix = "write_only_collection", _all_at_once(reading)
        what = f"{relationship} is selected for one object at a time"
    elif reading.entity is not None:
        cause, fix = "select_in_loop", _all_at_once(reading)
        what = f"select({loop.subject}) runs in a loop"
    else:
        cause, fix = "core_in_loop", _all_at_once(reading)
        what = f"a select from {loop.subject} runs in a loop"
    count = loop.count + (rows.count if rows else 0)
    seconds = loop.seconds + (rows.seconds if rows else 0.0)
    return _finding(loop, cause, what, fix, count, seconds, 1 + (rows is not None))


TEXT_FIX = (
    "Send one statement for all values: "
    "text('… WHERE key IN :keys').bindparams(bindparam('keys', expanding=True))"
)


def _get_all(reading: Reading) -> str:
    statement = select_by_keys(reading.entity) if reading.entity is not None else _all_at_once(reading)
    return f"session.scalars({statement}).all()"


def _all_at_once(reading: Reading) -> str:
    if not reading.columns:
        return f"Send one statement for all values, with .where({_in(reading)})"
    columns = list(reading.columns)
    whole = reading.entity.__name__ if reading.entity is not None else reading.table
    if whole not in columns and reading.key_code not in columns:
        columns.insert(0, reading.key_code)
    return f"select({', '.join(columns)}).where({_in(reading)})"


def _in(reading: Reading) -> str:
    return f"{reading.key_code}.in_({values_name(reading)})"


def _grouped(reading: Reading) -> str:
    key = reading.key_code
    return f"select({key}, {reading.aggregate}).where({_in(reading)}).group_by({key})"


def _existing(reading: Reading) -> str:
    return f"existing = set(session.scalars(select({reading.key_code}).where({_in(reading)})))"


def values_name(reading: Reading) -> str:
    """What the values of the loop may be called: `customer_ids`."""
    return plural_of(reading.key_code.rpartition(".")[2])


def _write_findings(loop: Loop, threshold: int) -> list[Finding]:
    verb = loop.reading.verb
    if loop.reading.text:
        if verb not in ("insert", "update", "delete") or loop.different < threshold or loop.batches:
            return []
        what = f"a text {verb.upper()} is sent once for each row"
        fix = "Pass all rows at once: session.execute(text('…'), rows), with a list of dictionaries"
        return [_finding(loop, "text_in_loop", what, fix, loop.count, loop.seconds, 1)]
    if loop.call == "flush":
        return _flush_findings(loop, threshold)
    different = loop.count if verb == "insert" else loop.different
    if (
        verb not in _BULK
        or different < threshold
        or loop.batches
        or (verb != "insert" and loop.reading.key is None)
    ):
        return []
    what = f"{verb.upper()} of {loop.subject} runs once for each row"
    return [_finding(loop, f"{verb}_row_by_row", what, _BULK[verb](loop), loop.count, loop.seconds, 1)]


def _flush_findings(loop: Loop, threshold: int) -> list[Finding]:
    if loop.flushes >= threshold:
        what = f"the session is flushed for each {loop.subject}"
        fix = "Add all objects first (session.add_all), then flush or commit once, after the loop"
        return [_finding(loop, "flush_row_by_row", what, fix, loop.count, loop.seconds, 1)]
    inserts = [record for record in loop.records if read(record).verb == "insert"]
    by_table: dict[str, list[Record]] = {}
    for record in inserts:
        by_table.setdefault(read(record).table, []).append(record)
    findings = []
    for records in by_table.values():
        one = Loop(read(records[0]), records)
        if one.count >= threshold:
            what = f"one flush inserts each {one.subject} by itself (rows differ in columns or hold SQL)"
            findings.append(
                _finding(one, "insert_row_by_row", what, _bulk_insert(one), one.count, one.seconds, 1)
            )
    return findings


def _target(loop: Loop) -> str:
    entity = loop.reading.entity
    return entity.__name__ if entity is not None else loop.reading.table


def _insert(loop: Loop) -> str:
    return _bulk_insert(loop) if loop.reading.plain else "Send one INSERT for all rows, not one for each"


def _bulk_insert(loop: Loop) -> str:
    return f"session.execute(insert({_target(loop)}), rows)"


def _bulk_update(loop: Loop) -> str:
    reading = loop.reading
    if reading.entity is not None and reading.plain:
        return f"session.execute(update({_target(loop)}), rows)"
    return (
        f"Pass all rows at once: connection.execute(update({reading.table}).where(… == bindparam(…)), rows)"
    )


def _bulk_delete(loop: Loop) -> str:
    if not loop.reading.plain:  # without its other conditions it would delete more
        return "Send one DELETE for all values, not one for each"
    return f"session.execute(delete({_target(loop)}).where({_in(loop.reading)}))"


_BULK: dict[str, Callable[[Loop], str]] = {
    "insert": _insert,
    "update": _bulk_update,
    "delete": _bulk_delete,
}


def _finding(
    loop: Loop, cause: str, what: str, fix: str, count: int, seconds: float, afterwards: int
) -> Finding:
    return Finding(
        kind="n_plus_one",
        cause=cause,
        subject=loop.subject,
        count=count,
        location=loop.location,
        fix=fix,
        duration=seconds,
        message=(
            f"N+1: {what}, at {loop.location}: {count} statements, {seconds * 1000:.1f} ms. Instead: {fix}"
        ),
        details={
            "parents": loop.different,
            "shape": shape_of(loop.records[0]),
            "statements_after": afterwards,
        },
    )
