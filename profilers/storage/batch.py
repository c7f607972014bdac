"""Sums up a batch of finished profiles, in memory, before it is written in one transaction.

Which statements are kept whole: of each endpoint in each ten seconds, every worker keeps the first `NOTABLE`
profiles that have findings, failed, or were slow, the first `ORDINARY` of the others, and whichever took
longer than all before. Of the rest the store has the summary line and the sums.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import secrets
from collections import defaultdict
from typing import Any

from profilers.profile import Finding, Profile
from profilers.shapes import normalise
from profilers.storage.encoding import MAX_STATEMENTS, encode, encode_finding
from profilers.storage.histogram import count_bucket, duration_bucket
from profilers.storage.schema import SLOT

NOTABLE = 50
ORDINARY = 10
SLOW = 1.0
"""Seconds from which a profile is notable."""

OTHER = "(others)"
"""What stands for endpoints and shapes beyond the store's bounds."""


_numbers = itertools.count(1)
_process: tuple[int, str] = (0, "")


def new_id(started_at: float) -> str:
    """A profile's id: sorts by time, unique across workers and hosts."""
    global _process
    pid = os.getpid()
    if _process[0] != pid:  # drawn once: each read of the system's randomness lets go of the interpreter
        _process = (pid, secrets.token_hex(4))
    return f"{int(started_at * 1000):011x}{_process[1]}{next(_numbers) & 0xFFFFF:05x}"


class Sums:
    """What is known of one endpoint in one slot."""

    __slots__ = (
        "duration",
        "durations",
        "errors",
        "longest",
        "requests",
        "rows",
        "shortest",
        "statement_count",
        "statements",
        "statements_max",
        "timings",
    )

    def __init__(self) -> None:
        self.requests = self.errors = self.rows = self.statement_count = self.statements_max = 0
        self.duration = self.longest = 0.0
        self.shortest = float("inf")
        self.durations: dict[int, int] = {}
        self.statements: dict[int, int] = {}
        self.timings: dict[str, float] = {}

    def merge(self, text: str) -> None:
        """Add what another worker, or an earlier batch, wrote."""
        data = json.loads(text)
        self.requests += data["requests"]
        self.errors += data["errors"]
        self.rows += data["rows"]
        self.statement_count += data["statement_count"]
        self.duration += data["duration"]
        self.shortest = min(self.shortest, data["shortest"])
        self.longest = max(self.longest, data["longest"])
        self.statements_max = max(self.statements_max, data["statements_max"])
        for mine, theirs in ((self.durations, data["durations"]), (self.statements, data["statements"])):
            get = mine.get
            for bucket, count in zip(*theirs, strict=True):
                mine[bucket] = get(bucket, 0) + count
        for layer, seconds in data["timings"].items():
            self.timings[layer] = self.timings.get(layer, 0.0) + seconds

    def encode(self) -> str:
        """The sums as JSON; `merge` is the inverse."""
        data: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        data["durations"] = [list(self.durations), list(self.durations.values())]
        data["statements"] = [list(self.statements), list(self.statements.values())]
        return json.dumps(data, separators=(",", ":"))


class Names:
    """Ids of texts: a hash, so that workers agree without asking each other.

    `new` are those that this process has not yet written, bounded by `limit`; past it a text is `OTHER`.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.ids: dict[str, int] = {}
        self.new: dict[int, str] = {}
        self._known: set[int] = set()

    def id(self, text: str) -> int:
        """The id of a text, noted as new at its first use."""
        found = self.ids.get(text)
        if found is None:
            if len(self.ids) >= 4 * self.limit:  # texts that differ without end: forget what only saves time
                self.ids.clear()
            kept = self.keep(text)
            found = text_id(kept)
            if found not in self._known and len(self._known) >= self.limit:
                kept, found = OTHER, text_id(OTHER)
            if found not in self._known:
                self._known.add(found)
                self.new[found] = kept
            self.ids[text] = found
        return found

    def keep(self, text: str) -> str:
        """The form in which the text is kept."""
        return text[:500].replace("\0", "").encode(errors="replace").decode()

    def renew(self) -> None:
        """The store was cleared: every text has to be written again."""
        self.new.update((identity, self.keep(text)) for text, identity in self.ids.items())


class Fingerprints(Names):
    """Of findings: only their ids are stored."""

    def keep(self, text: str) -> str:
        """The whole text: long ones may differ at their end only."""
        return text


class Shapes(Names):
    """Statement texts: normalised once more, so that no literal reaches the store whoever sent it."""

    def keep(self, text: str) -> str:
        """The statement without values."""
        return normalise(text).replace("\0", "").encode(errors="replace").decode()


def text_id(text: str) -> int:
    """63 bits of a hash of the text."""
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest(), "big") >> 1


_OTHER_ID = text_id(OTHER)


class Batch:
    """Profiles on their way into the store, summed up by endpoint, statement and finding."""

    def __init__(self, endpoints: Names, shapes: Shapes, findings: Names, sampler: Sampler) -> None:
        self.endpoint_ids = endpoints
        self.shape_ids = shapes
        self.finding_ids = findings
        self.sampler = sampler
        self.profiles: list[tuple[Any, ...]] = []
        self.details: list[tuple[str, int, float, str]] = []
        self.endpoints: defaultdict[tuple[int, int], Sums] = defaultdict(Sums)
        self.statements: defaultdict[tuple[int, int], dict[str, list[Any]]] = defaultdict(dict)
        self.findings: dict[int, tuple[int, str, float, float, str]] = {}
        self.finding_sums: defaultdict[tuple[int, int, int], list[Any]] = defaultdict(lambda: [0, 0, 0.0])
        self.plans: dict[tuple[int, str, float], list[str]] = {}
        self.statements_left_out = 0

    def add(self, profile: Profile) -> None:
        """Add one profile; it is given an id if it has none."""
        if not profile.id:
            profile.id = new_id(profile.started_at)
        started, duration = profile.started_at, profile.duration
        timings, findings = profile.timings, profile.findings
        slot = int(started) // SLOT * SLOT
        endpoint = self.endpoint_ids.id(profile.name)
        failed = profile.status >= 500 or profile.outcome != "finished"
        count = profile.statement_count
        rows, database = self._add_statements(slot, endpoint, profile) if count else (0, 0.0)
        database = timings.get("database", database)

        sums = self.endpoints[slot, endpoint]
        sums.requests += 1
        sums.errors += failed
        sums.duration += duration
        if duration < sums.shortest:
            sums.shortest = duration
        if duration > sums.longest:
            sums.longest = duration
        bucket = duration_bucket(duration)
        sums.durations[bucket] = sums.durations.get(bucket, 0) + 1
        if count:
            sums.rows += rows
            sums.statement_count += count
            if count > sums.statements_max:
                sums.statements_max = count
        bucket = count_bucket(count)
        sums.statements[bucket] = sums.statements.get(bucket, 0) + 1
        for layer, seconds in {"database": database, **timings}.items():
            sums.timings[layer] = sums.timings.get(layer, 0.0) + seconds

        if findings:
            self._add_findings(slot, endpoint, profile)
        self.profiles.append(
            (profile.id, endpoint, profile.kind, started, duration, profile.status,
             profile.outcome, profile.host, profile.worker, count, rows, database, len(findings))
        )  # fmt: skip
        notable = bool(findings) or failed or duration >= SLOW or bool(profile.sections)
        if self.sampler.keeps(slot, endpoint, notable, duration):
            body = encode(profile, self.shape_ids.id)
            self.details.append((profile.id, int(notable), started, body))
            self.statements_left_out += profile.left_out + max(0, len(profile.statements) - MAX_STATEMENTS)
        else:
            self.statements_left_out += count

    def _add_statements(self, slot: int, endpoint: int, profile: Profile) -> tuple[int, float]:
        """Sum up the statements; returns their rows and their seconds."""
        all_rows = 0
        database = 0.0
        shapes = self.statements[slot, endpoint]
        get = shapes.get
        for shape, duration, rows in profile.costs():
            database += duration
            sums = get(shape)
            if sums is None:
                sums = shapes[shape] = [0, 0.0, 0.0, 0]
            sums[0] += 1
            sums[1] += duration
            if duration > sums[2]:
                sums[2] = duration
            if rows > 0:
                sums[3] += rows
                all_rows += rows
        return all_rows, database

    def _add_findings(self, slot: int, endpoint: int, profile: Profile) -> None:
        seen = set()
        for finding in profile.findings:
            count, duration = finding.count, finding.duration
            identity = self.finding_ids.id(finding.fingerprint)
            if identity not in self.findings:
                # One text a batch is enough: the newest of a group differs in its numbers only.
                if identity == _OTHER_ID:
                    finding = Finding(
                        "others", "", OTHER, 0, message="More findings than the store keeps apart."
                    )
                body = json.dumps(encode_finding(finding), separators=(",", ":"), default=str)
                self.findings[identity] = (identity, body, profile.started_at, profile.started_at, profile.id)
            if finding.details.get("plan") and "planned_at" in finding.details:
                source = str(finding.details.get("database", ""))
                key = (self.shape_ids.id(finding.subject), source, float(finding.details["planned_at"]))
                self.plans[key] = finding.details["plan"]
            sums = self.finding_sums[slot, endpoint, identity]
            sums[0] += identity not in seen
            sums[1] += count
            sums[2] += duration
            seen.add(identity)

    def statement_rows(self) -> list[tuple[Any, ...]]:
        """Rows of `statement_slot`, each key once."""
        merged: dict[tuple[int, int, int, int], list[Any]] = {}
        for (slot, endpoint), shapes in self.statements.items():
            for shape, sums in shapes.items():
                key = (slot, SLOT, endpoint, self.shape_ids.id(shape))
                calls, duration, longest, rows = merged.get(key, (0, 0.0, 0.0, 0))
                merged[key] = [calls + sums[0], duration + sums[1], max(longest, sums[2]), rows + sums[3]]
        return [(*key, *sums) for key, sums in merged.items()]


class Sampler:
    """Chooses the profiles whose statements are kept whole; see the module's docstring."""

    def __init__(self) -> None:
        self._slot = 0
        self._kept: dict[tuple[int, bool], int] = {}
        self._longest: dict[tuple[int, bool], float] = {}

    def keeps(self, slot: int, endpoint: int, notable: bool, duration: float) -> bool:
        """Whether to keep this one."""
        if slot > self._slot:
            self._slot = slot
            self._kept.clear()
            self._longest.clear()
        key = (endpoint, notable)
        kept = self._kept.get(key, 0)
        longer = duration > self._longest.get(key, 0.0)
        if longer:
            self._longest[key] = duration
        if kept < (NOTABLE if notable else ORDINARY) or longer:
            self._kept[key] = kept + 1
            return True
        return False
