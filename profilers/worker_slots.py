"""Names the request that was running when its worker was killed, and the line it had come to.

Every worker notes its running requests in a file that it maps into memory: a note is two numbers, that of
the request's name and when it began, and it stays when the worker is killed with SIGKILL, by the kernel for
its memory or by Gunicorn for its silence. The other workers, or those of the next start, find the notes of
the dead and add them to the store: "killed after 29.8 s in GET /x at api.py:41".

A worker holds a lock on its header in the file (POSIX record locks: the kernel gives them back however a
process ends), so no process id is ever mistaken. Where there are no such locks (Windows) nothing is noted.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import get_ident
from types import FrameType
from typing import NamedTuple

from profilers.profile import Finding, Location, Profile
from profilers.storage.batch import OTHER
from profilers.storage.database import make_private

if sys.platform != "win32":
    import fcntl

WORKERS = 128
"""Parts of the file; a worker that finds none free notes nothing."""
REQUESTS = 64
"""Requests of one worker that run at once; further ones are not noted."""
LINE_SECONDS = 0.8
"""Requests that have run for longer have their line noted, twice a second."""

GONE_SECONDS = 5.0
"""Workers give a sign of life twice a second; one that was silent for so long serves nothing any more."""

NAMES = 500
"""Different names of requests that one worker notes; further ones are `OTHER`."""
_FLOAT = 8

# A request: the number of its name, when it began, when its line was noted; all as floats, which are set
# faster than bytes are packed. The number comes before the time, so that a note cut short says nothing; a
# line that was noted before the request began is not its own.
_STARTED, _NOTED = 1, 2
# Then where it is: resident memory, line, file, function.
_LINE_AT = 3 * _FLOAT
_LINE = struct.Struct("=QI200s80s")
_SLOT = 320
_NAME = struct.Struct("=200s")
# A worker: process id, last sign of life, when it was timed out, whether it was. Those of all workers lie in
# the first page: everybody looks at them twice a second, and beyond them at the parts of the dead only.
_HEADER = struct.Struct("=QddB7x")
_SEEN = 8
_PARTS_AT = WORKERS * _HEADER.size
_NAMES_AT = _SLOT * REQUESTS
_PART = _NAMES_AT + _NAME.size * NAMES
_SIZE = _PARTS_AT + WORKERS * _PART

Locate = Callable[[FrameType], Location | None]
"""The innermost line of the project on a stack."""


class Running(NamedTuple):
    """A request that a worker of this host is serving."""

    pid: int
    name: str
    started: float
    """Seconds since the epoch."""
    location: Location | None
    """Where it was at the last look; None when it has not run for long."""


class WorkerSlots:
    """The notes of this process, and of those that died. One for each file in a process: `WorkerSlots.of`."""

    _opened: dict[Path, WorkerSlots] = {}  # noqa: RUF012 (closing a file twice opened would free its locks)
    _opening = threading.Lock()

    def __init__(self, path: Path) -> None:
        make_private(path)
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        if os.fstat(self._file).st_size < _SIZE:
            os.ftruncate(self._file, _SIZE)  # sparse: only what is used takes room
        self._map = mmap.mmap(self._file, _SIZE)
        self._floats = memoryview(self._map).cast("d")
        """All of the file; a slot is the place of its first."""
        self._reset()

    def _reset(self) -> None:
        self._part = -1
        self._free: deque[int] = deque()
        self._slots: dict[int, int] = {}  # by thread, which keeps its slot from one request to the next
        self._names: dict[str, float] = {}
        self._naming = threading.Lock()

    @classmethod
    def of(cls, path: Path) -> WorkerSlots:
        """The notes in a file, created when there is none.

        Raises:
            OSError: it cannot be created or opened.
        """
        path = path.absolute()
        with cls._opening:
            if path not in cls._opened:
                cls._opened[path] = cls(path)
            return cls._opened[path]

    def claim(self) -> bool:
        """Take a part of the file for this process; False when there is none, or no room on the disk."""
        if self._part >= 0:
            return True
        for part in range(WORKERS):
            if not self._lock(part):
                continue
            if self._header(part)[0]:  # of a dead worker, not yet told
                self._unlock(part)
                continue
            try:
                os.pwrite(self._file, bytes(_PART), _PARTS_AT + part * _PART)
                os.pwrite(self._file, bytes(_HEADER.size), part * _HEADER.size)
            except OSError:  # without a block behind it, a note on a full disk would be a SIGBUS
                self._unlock(part)
                return False
            self._part = part
            self._free.extend(_slots_of(part))
            self._set_header(part, os.getpid(), time.time())
            return True
        return False

    def begin(self, name: str, started: float) -> int:
        """Note a request that begins in this thread; returns what `end` is to be given, -1 for nothing."""
        slot = self._slots.get(get_ident(), -1)
        if slot < 0:
            slot = self._take()
            if slot < 0:
                return -1
        floats = self._floats
        floats[slot] = self._names.get(name) or self._number(name)
        floats[slot + _STARTED] = started
        return slot

    def end(self, slot: int) -> None:
        """The request has ended; one that this process gave up, or did not begin, is left as it is."""
        if slot >= 0 and self._slots:
            self._floats[slot + _STARTED] = 0.0

    def _take(self) -> int:
        """A slot for this thread: a free one, else that of another which serves nothing now; -1 for none."""
        try:
            slot = self._free.pop()
        except IndexError:
            idle = (thread for thread, slot in list(self._slots.items()) if not self._started(slot))
            taken = self._slots.pop(next(idle, -1), None)  # another thread may have been faster
            if taken is None:
                return -1
            slot = taken
        self._slots[get_ident()] = slot
        return slot

    def _number(self, name: str) -> float:
        """The number of a name, which is written into the file at its first use."""
        with self._naming:
            if len(self._names) >= NAMES - 1:
                name = OTHER
            number = self._names.get(name)
            if number is None:
                number = float(len(self._names) + 1)
                _NAME.pack_into(self._map, _place_of_name(self._part, number), name.encode(errors="replace"))
                self._names[name] = number
        return number

    def _started(self, slot: int) -> float:
        """When the request in a slot began; 0 when there is none."""
        return self._floats[slot + _STARTED]

    def note_lines(self, locate: Locate, older_than: float = LINE_SECONDS) -> None:
        """Give a sign of life, and note where each request is that has run for longer than some seconds."""
        if self._part < 0:
            return
        now = time.time()
        self._floats[(self._part * _HEADER.size + _SEEN) // _FLOAT] = now
        running = [(thread, slot, self._started(slot)) for thread, slot in list(self._slots.items())]
        old = [each for each in running if each[2] and now - each[2] > older_than]
        if not old:
            return
        memory = _resident_memory()
        frames = sys._current_frames()
        for thread, slot, started in old:
            frame = frames.get(thread)
            self._note(slot, now, memory, locate(frame) if frame is not None else None)
            if self._started(slot) != started:  # it ended meanwhile: the slot may be another's
                self._floats[slot + _NOTED] = 0.0

    def _note(self, slot: int, now: float, memory: int, place: Location | None) -> None:
        file, line, function = place or ("", 0, "")
        texts = (text.encode(errors="replace") for text in (file[-200:], function))
        _LINE.pack_into(self._map, slot * _FLOAT + _LINE_AT, memory, line, *texts)
        self._floats[slot + _NOTED] = now

    def abort(self, locate: Locate) -> None:
        """The server gave this worker up (Gunicorn's `worker_abort`): its requests have timed out."""
        if self._part >= 0:
            self.note_lines(locate, older_than=0.0)
            now = time.time()
            self._set_header(self._part, os.getpid(), now, timed_out_at=now)
            self._slots = {}  # `end` no longer rubs them out: whoever finds them tells
            self._free = deque()

    def close(self) -> None:
        """Give the part back, at an orderly end; requests that still run are left for others to tell."""
        running = any(map(self._started, self._slots.values()))
        if self._part >= 0 and not running and not self._header(self._part)[3]:
            self._set_header(self._part)
            self._unlock(self._part)
            self._reset()

    def collect_dead(self) -> list[Profile]:
        """Profiles of requests that ended with their workers; each is told once, to whoever asks first."""
        found: list[Profile] = []
        for part in range(WORKERS):
            if part != self._part and self._header(part)[0] and self._lock(part):
                try:
                    found.extend(self._requests_of(part))
                    self._set_header(part)
                finally:
                    self._unlock(part)
        return found

    def running(self) -> list[Running]:
        """What the living workers serve at this moment, the longest first."""
        found = []
        for part in range(WORKERS):
            pid, seen, _, _ = self._header(part)
            if not pid or time.time() - seen > GONE_SECONDS:
                continue
            for slot in _slots_of(part):
                number, started, noted = self._floats[slot : slot + 3]
                if started:
                    place = self._place(slot) if noted >= started else None
                    found.append(Running(pid, self._name(part, number), started, place))
        return sorted(found, key=lambda each: each.started)

    def _place(self, slot: int) -> Location | None:
        _, line, file, function = _LINE.unpack_from(self._map, slot * _FLOAT + _LINE_AT)
        return Location(_text(file), line, _text(function)) if file[0] else None

    def _requests_of(self, part: int) -> Iterator[Profile]:
        pid, seen, timed_out_at, timed_out = self._header(part)
        # A death that is found at once has just happened; otherwise the last sign of life is nearest to it.
        ended = timed_out_at or (now if (now := time.time()) - seen < 2 else seen)
        for slot in _slots_of(part):
            number, started, noted = self._floats[slot : slot + 3]
            if not started:
                continue
            profile = Profile(
                name=self._name(part, number),
                started_at=started,
                duration=max(0.0, ended - started),
                host=socket.gethostname(),
                worker=pid,
                outcome="timed_out" if timed_out else "killed",
            )
            place = None
            if noted >= started:
                place = self._place(slot)
                (profile.counters["rss"], *_) = _LINE.unpack_from(self._map, slot * _FLOAT + _LINE_AT)
            profile.findings.append(_finding(profile, place))
            yield profile

    def _name(self, part: int, number: float) -> str:
        (name,) = _NAME.unpack_from(self._map, _place_of_name(part, number))
        return _text(name)

    def _header(self, part: int) -> tuple[int, float, float, int]:
        return _HEADER.unpack_from(self._map, part * _HEADER.size)

    def _set_header(self, part: int, pid: int = 0, seen: float = 0.0, timed_out_at: float = 0.0) -> None:
        _HEADER.pack_into(self._map, part * _HEADER.size, pid, seen, timed_out_at, timed_out_at > 0)

    def _lock(self, part: int) -> bool:
        if sys.platform == "win32":
            return False
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, _HEADER.size, part * _HEADER.size)
        except OSError:
            return False
        return True

    def _unlock(self, part: int) -> None:
        if sys.platform != "win32":
            with contextlib.suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_UN, _HEADER.size, part * _HEADER.size)


def _slots_of(part: int) -> range:
    first = (_PARTS_AT + part * _PART) // _FLOAT
    return range(first, first + REQUESTS * _SLOT // _FLOAT, _SLOT // _FLOAT)


def _place_of_name(part: int, number: float) -> int:
    return _PARTS_AT + part * _PART + _NAMES_AT + _NAME.size * (int(number) - 1)


def _finding(profile: Profile, place: Location | None) -> Finding:
    message = f"{profile.outcome.replace('_', ' ')} after {profile.duration:.1f} s in {profile.name}"
    if place:
        message += f" at {place.file}:{place.line}"
    return Finding(
        kind="lost_request",
        cause=profile.outcome,
        subject=profile.name,
        count=1,
        location=place,
        message=message,
        fix="Bound what it waits for (statement and connection time-outs), or move it to a job.",
        duration=profile.duration,
        details={**profile.counters},
    )


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")


def _resident_memory() -> int:
    """Bytes; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError):
        return 0
    return pages * mmap.PAGESIZE


def _after_fork() -> None:
    WorkerSlots._opening = threading.Lock()
    for slots in WorkerSlots._opened.values():
        slots._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
