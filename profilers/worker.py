"""What runs beside the requests of one worker: the writer, the switches, the brake, the notes of what runs.

Each does its part in the writer's thread, twice a second; a request only draws which profilers it gets, notes
its name, and puts its profile into the queue.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from flask import Flask

from profilers import options, switches
from profilers.brake import LIMIT, Brake
from profilers.collect import Recording
from profilers.location import find_site, resolve
from profilers.plugin import Profiler, call_hook
from profilers.profile import Location, Profile
from profilers.recording import Active, examine
from profilers.signals import profile_examined
from profilers.storage.keeper import Keeper
from profilers.store import Limits, Store, StoreError, default_folder, matches, open_store
from profilers.switches import ALL, Switch, Switches, WorkerStatus, names_on
from profilers.worker_slots import WorkerSlots
from profilers.writer import Writer

if TYPE_CHECKING:
    from types import FrameType

log = logging.getLogger("profilers")

SAY_SECONDS = 10.0
GIVE_UP_SECONDS = 60.0
"""A store that fails for so long stops the profilers until it is back."""


class Drawn(Active):
    """The profilers that the draw gave one request, some of them for certain endpoints only."""

    __slots__ = ("_everywhere", "_scopes")

    def __init__(self, profilers: Mapping[str, Profiler[Any]], drawn: Sequence[Switch]) -> None:
        names = dict.fromkeys(name for switch in drawn for name in switch.profilers)
        everywhere = any(switch.endpoint == ALL for switch in drawn)
        super().__init__(
            (profilers[name] for name in names if name in profilers), wants=None if everywhere else self.meant
        )
        self._everywhere = all(switch.endpoint == ALL for switch in drawn)
        self._scopes = tuple((switch.endpoint, frozenset(switch.profilers)) for switch in drawn)

    def meant(self, name: str) -> bool:
        """Whether any of them is for this endpoint."""
        return any(matches(endpoint, name) for endpoint, _ in self._scopes)

    def profilers_of(self, name: str) -> tuple[Profiler[Any], ...]:
        """Those that are for this endpoint."""
        if self._everywhere:
            return self.profilers
        names = {
            each for endpoint, profilers in self._scopes if matches(endpoint, name) for each in profilers
        }
        return tuple(profiler for profiler in self.profilers if profiler.name in names)


class Plan:
    """Which profilers the requests of a worker are given; never changed, replaced whole.

    `profilers` are those that exist by name, `configured` what the configuration switches on.
    """

    def __init__(
        self,
        profilers: Mapping[str, Profiler[Any]],
        configured: Switch,
        state: Switches,
        sampling: float = 1.0,
    ) -> None:
        base = replace(configured, profilers=state.configured(configured.profilers))
        self._switches = ((base,) if base.profilers else ()) + state.on
        self._profilers = profilers
        self._sampling = sampling
        self._always = sampling >= 1 and all(switch.sample >= 1 for switch in self._switches)
        self._known: dict[tuple[Switch, ...], Active | None] = {(): None}

    @property
    def active(self) -> Active | None:
        """What the extension is to run: None for nothing."""
        if self._always or not self._switches:
            return self._of(self._switches)
        return Active((), draw=self.draw)

    def draw(self) -> Active | None:
        """The profilers of one request, whose endpoint is not known yet; None for none."""
        if self._sampling < 1 and random.random() >= self._sampling:  # noqa: S311 - no secret depends on it
            return None
        return self._of(
            tuple(
                switch
                for switch in self._switches
                if switch.sample >= 1 or random.random() < switch.sample  # noqa: S311
            )
        )

    def _of(self, drawn: tuple[Switch, ...]) -> Active | None:
        if drawn not in self._known:
            self._known[drawn] = Drawn(self._profilers, drawn)
        return self._known[drawn]


class Worker:
    """One for each app and process.

    `activate` is called with what is to run from the next request on, whenever that changes.

    Raises:
        ConfigError: a setting is wrong.
    """

    def __init__(
        self, app: Flask, profilers: Sequence[Profiler[Any]], activate: Callable[[Active | None], None]
    ) -> None:
        self.store = store_of(app)
        self.brake = _brake(app)
        self.slots = _slots(app, self.store)
        self.writer = Writer(self.store, self._examine, (self._note, self._look, self._say))
        self.put: Callable[[Profile], None] = self.writer.put
        """Take a finished profile, unexamined."""
        slots = self.slots
        self.begin: Callable[[str, float], int] = (
            slots.begin if slots is not None else lambda name, started: -1
        )
        """A request to this endpoint begins in this thread, at a time; returns what `end` is to be given."""
        self.end: Callable[[int], None] = slots.end if slots is not None else lambda _: None
        """That request has ended."""
        self._app = app
        self._configured = Switch(tuple(profiler.name for profiler in profilers), sample=_sample(app))
        self._profilers = {profiler.name: profiler for profiler in profilers}
        self._running = set(self._profilers)
        self.configured = self._configured.profilers
        self._refused: set[str] = set()
        self._activate = activate
        self._state = Switches()
        self._resting = False
        self._next_say = 0.0
        activate(Plan(self._profilers, self._configured, self._state).active)

    @property
    def profilers(self) -> tuple[Profiler[Any], ...]:
        """Those of the configuration, and those that were switched on since."""
        return tuple(self._profilers.values())

    def start(self) -> None:
        """Called in each process that serves requests, after the fork."""
        if self.slots is not None:
            self.slots.claim()
        self.writer.start()

    def abort(self) -> None:
        """The server gave this process up: what was finished is written, what runs has timed out."""
        if self.slots is not None:
            self.slots.abort(locate)
        # In a thread: the signal may have interrupted one that holds the queue's lock.
        closing = threading.Thread(target=self.writer.close, args=(1.0,), daemon=True)
        closing.start()
        closing.join(1.5)

    def close(self) -> None:
        """The process ends in order: write what is queued."""
        self.writer.close()
        if self.slots is not None:
            self.slots.close()

    def _examine(self, profile: Profile) -> None:
        if isinstance(profile, Recording):  # else of a request that was lost: there is nothing to look at
            if profile.kind == "request":  # a block is examined by `record`
                examine(profile, profile.active.profilers_of(profile.name))
                self.brake.request(profile.duration, profile.hooks if profile.timed else None)
            profile.host = _HOST
            profile.worker = os.getpid()
        profile_examined.send(self._app, profile=profile)

    def _note(self, _: Keeper | None) -> None:
        """Note the lines of long requests, and tell of those that were lost with their workers."""
        if self.slots is not None:
            self.slots.note_lines(locate)
            for profile in self.slots.collect_dead():
                log.warning("%s (worker %d)", profile.findings[0].message, profile.worker)
                self.writer.put(profile)

    def _look(self, keeper: Keeper | None) -> None:
        """Look whether a switch was turned, one has run out, or the brake moved."""
        braked = self.brake.adjust(self.writer.cpu)
        if keeper is None:
            since = self.writer.failing_since
            if since is not None and time.monotonic() - since > GIVE_UP_SECONDS and not self._resting:
                log.warning("the profilers rest until the store can be written to")
                self._resting = True
                self._activate(None)
            return
        with keeper.connection.transaction(write=False) as connection:
            state = switches.read(connection).at(time.time())
        if braked or self._resting or state != self._state:
            self._resting = False
            self._create(names_on(state))
            self._state = state
            self._activate(Plan(self._profilers, self._configured, state, self.brake.sampling).active)
            self._tell_switched({*state.configured(self._configured.profilers), *names_on(state)})
            self._next_say = 0.0

    def _tell_switched(self, running: set[str]) -> None:
        """Tell the profilers whose state has changed."""
        before, self._running = self._running, running
        for name in sorted(before ^ running):
            if name in self._profilers:
                call_hook(self._profilers[name], "on_switched", name in running)

    def _create(self, names: Sequence[str]) -> None:
        """Profilers that were switched on and that the configuration does not name."""
        for name in names:
            if name in self._profilers or name in self._refused:
                continue
            try:
                profiler = options.create(name, self._app.config)
            except options.ConfigError as error:
                self._refused.add(name)
                log.warning("cannot be switched on: %s", error.message)
                continue
            call_hook(profiler, "on_app", self._app)
            call_hook(profiler, "on_worker_start")
            self._running.add(name)
            self._profilers = {**self._profilers, name: profiler}

    def _say(self, keeper: Keeper | None) -> None:
        """Tell `flask profile status` how this worker is."""
        if keeper is None or time.monotonic() < self._next_say:
            return
        self._next_say = time.monotonic() + SAY_SECONDS
        status = WorkerStatus(
            _HOST, os.getpid(), time.time(), self.brake.sampling, self.brake.cost, self.writer.left_out
        )
        with keeper.connection.transaction(write=True) as connection:
            switches.say(connection, status)


def store_of(app: Flask) -> Store:
    """The store that an app's settings name.

    Raises:
        ConfigError: a setting is wrong.
    """
    limits = {}
    for field in fields(Limits):
        key = f"PROFILE_STORE_{field.name.upper()}"
        value = options.parse(key, _setting(app, key, field.default), type(field.default))
        if value <= 0:
            raise options.ConfigError(f"{key}={value}: expected more than 0")
        limits[field.name] = value
    where = options.setting("PROFILE_STORE", app.config)
    try:
        return open_store(where or default_folder(app.instance_path), Limits(**limits))
    except StoreError as error:
        raise options.ConfigError(str(error)) from error


def locate(frame: FrameType) -> Location | None:
    """The innermost line of the project on a stack."""
    site = find_site(frame)
    return resolve(site) if site is not None else None


def _setting(app: Flask, key: str, default: Any) -> Any:
    value = options.setting(key, app.config)
    return default if value is None else value


def _sample(app: Flask) -> float:
    sample = options.parse("PROFILE_SAMPLE", _setting(app, "PROFILE_SAMPLE", 1.0), float)
    if not 0 < sample <= 1:
        raise options.ConfigError(f"PROFILE_SAMPLE={sample}: expected more than 0 and at most 1")
    return float(sample)


def _brake(app: Flask) -> Brake:
    limit = options.parse("PROFILE_BRAKE", _setting(app, "PROFILE_BRAKE", LIMIT), float)
    try:
        return Brake(limit)
    except ValueError as error:
        raise options.ConfigError(str(error)) from error


def _slots(app: Flask, store: Store) -> WorkerSlots | None:
    """The notes lie beside the store's file, or where it would be."""
    path = store.database.path
    folder = path.parent if path is not None else default_folder(app.instance_path)
    try:
        return WorkerSlots.of(folder / "workers")
    except OSError as error:
        log.warning("running requests cannot be noted in %s: %s", folder, error)
        return None


_HOST = socket.gethostname()
