"""Does a profiler keep the contract of `profilers.plugin`? A test class that a third party inherits from.

    from profilers.testing.conformance import Conformance
    from acme.payload import PayloadSize

    class TestPayloadSize(Conformance):
        profiler = PayloadSize

pytest finds the checks below; each says what the contract asks and what the profiler did instead.
"""

from __future__ import annotations

import dataclasses
import json
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import entry_points
from typing import Any, ClassVar

from flask import Flask
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from profilers import listeners
from profilers.collect import Recording, current, new_recording
from profilers.plugin import NoOptions, Profiler
from profilers.profile import Finding, Profile

NEEDS = {"statements", "orm", "pool"}


def recordings(profiler: Profiler[Any]) -> Iterator[Recording]:
    """What a profiler must cope with: no statement, many, one that failed, a request and a block."""
    listeners.install(profiler.needs)
    engine = create_engine("sqlite://")
    for name, kind, statements, outcome in (
        ("GET /empty", "request", (), "finished"),
        ("GET /many", "request", ("SELECT 1",) * 50, "finished"),
        ("GET /failed", "request", ("SELECT nothing",), "raised"),
        ("nightly-import", "block", ("SELECT 1",), "finished"),
    ):
        recording = new_recording(name, kind, profiler.needs, None)
        token = current.set(recording)
        try:
            profiler.on_start(recording)
            with engine.connect() as connection:
                for statement in statements:
                    with suppress(OperationalError):
                        connection.execute(text(statement)).all()
            recording.outcome = outcome
            profiler.on_finish(recording)
        finally:
            current.reset(token)
        recording.finish()
        recording.complete()
        yield recording
    engine.dispose()


class Conformance:
    """Inherit from it and set `profiler`."""

    profiler: ClassVar[type[Profiler[Any]]]

    def made(self) -> Profiler[Any]:
        """The profiler with its default options."""
        return self.profiler(self.profiler.options_class())

    def test_its_name_is_lower_case_words_joined_by_hyphens(self) -> None:
        assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", self.profiler.name), self.profiler.name

    def test_it_is_found_by_its_entry_point(self) -> None:
        found = [entry for entry in entry_points(group="flask_profilers") if entry.name == self.profiler.name]
        assert len(found) == 1, f"entry points of flask_profilers named {self.profiler.name}: {found}"
        assert found[0].load() is self.profiler

    def test_its_options_are_frozen_with_a_default_and_help_for_each(self) -> None:
        options = self.profiler.options_class
        assert dataclasses.is_dataclass(options)
        assert options.__hash__ is not None, f"{options.__name__} is not frozen: @dataclass(frozen=True)"
        for field in dataclasses.fields(options):
            assert field.metadata.get("help"), f"{field.name} has no line of help: declare it with option()"
        assert options is NoOptions or options() == options()

    def test_it_needs_only_what_can_be_collected(self) -> None:
        assert self.profiler.needs <= NEEDS, f"unknown needs: {self.profiler.needs - NEEDS}"

    def test_being_made_starts_no_thread(self) -> None:
        before = threading.active_count()
        profiler = self.made()
        profiler.on_app(Flask("conformance"))
        assert threading.active_count() == before, (
            "threads do not survive a fork: start them in on_worker_start"
        )

    def test_it_lives_through_every_kind_of_profile(self) -> None:
        profiler = self.made()
        profiler.on_app(Flask("conformance"))
        profiler.on_worker_start()
        for recording in recordings(profiler):
            profiler.examine(recording)
        profiler.on_worker_exit()

    def test_what_it_adds_is_json_and_survives_the_store(self) -> None:
        profiler = self.made()
        for recording in recordings(profiler):
            profiler.examine(recording)
            kept = json.dumps(recording.to_json())
            assert json.dumps(Profile.from_json(json.loads(kept)).to_json()) == kept

    def test_its_findings_can_be_acted_on(self) -> None:
        profiler = self.made()
        for recording in recordings(profiler):
            profiler.examine(recording)
            for finding in recording.findings:
                assert _is_whole(finding), f"kind, cause, subject, message and a count are needed: {finding}"

    def test_it_examines_profiles_in_several_threads_at_once(self) -> None:
        profiler, failures = self.made(), []

        def examine() -> None:
            try:
                for recording in recordings(profiler):
                    profiler.examine(recording)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
                failures.append(error)

        threads = [threading.Thread(target=examine) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures


def _is_whole(finding: Finding) -> bool:
    return all((finding.kind, finding.cause, finding.subject, finding.message)) and finding.count >= 0
