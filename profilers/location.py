"""Which line of the project caused a statement: in Python, or in a Jinja template.

Finding it is paid for by every statement, so it notes code objects and instruction offsets only; line numbers
and paths are worked out when somebody reads them.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

from profilers.profile import Location

MAX_CALLERS = 32
"""Frames looked at above the innermost line of the project."""


class Site(NamedTuple):
    """Where a statement was caused, in terms of the interpreter."""

    code: CodeType
    instruction: int
    stack: int
    """Equal for two statements that came through the same lines of the project."""
    call: str
    """What the ORM was doing on the project's behalf: `get`, `refresh`, `flush`, `eager`, or empty."""
    template: Any
    """The Jinja template whose compiled code this is, else None."""
    in_fixture: bool
    """A pytest fixture is on the stack: the test is only being set up."""


# What the code of one file is; kept by file name, because hashing a code object is slow.
_PROJECT, _TEMPLATE, _LIBRARY, _ORM, _BORDER, _FIXTURE = range(6)
_kinds: dict[str, int] = {}
_getframe = sys._getframe

_CALLS = {"_get_impl": "get", "refresh": "refresh", "_flush": "flush", "_load_for_path": "eager"}
"""Functions of SQLAlchemy's ORM that say what a statement is for."""

_ORM_FILES = tuple(os.path.join("sqlalchemy", "orm", name) for name in ("session.py", "strategies.py"))
_BORDER_FILES = tuple(
    os.path.join(*path.split("/"))
    for path in (
        "flask/app.py", "flask/cli.py", "click/core.py", "celery/app/trace.py", "rq/job.py",
        "_pytest/python.py", "concurrent/futures/thread.py", "gunicorn/workers/base.py",
    )
)  # fmt: skip
"""Above these nothing belongs to the request, the command or the test."""
_FIXTURE_FILE = os.path.join("_pytest", "fixtures.py")
_PACKAGE = str(Path(__file__).resolve().parent) + os.sep
_LIBRARIES = tuple(
    str(Path(sysconfig.get_path(name)).resolve()) + os.sep
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
_PACKAGE_FOLDERS = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class Way(NamedTuple):
    """How a statement came from its site to the driver, so that the same way is known again."""

    depth: int
    """Frames between the site's and the one that calls `follow`, itself counted."""
    steps: tuple[tuple[CodeType, int], ...]
    """The site's frame and those above it, up to where nothing belongs to the request any more.

    Code and instruction; -1 where it does not matter by which line a library goes on.
    """
    site: Site


def find_site(frame: FrameType | None) -> Site | None:
    """The innermost frame of the project at or above `frame`, or None when there is none."""
    way = find_way(frame)
    return way.site if way is not None else None


def find_way(frame: FrameType | None) -> Way | None:
    """The site at or above `frame`, and the way from there."""
    call = ""
    depth = 1
    while frame is not None:
        code = frame.f_code
        kind = _kinds.get(code.co_filename, -1)
        if kind < 0:
            kind = _judge(code.co_filename)
        if kind <= _TEMPLATE:
            return _way(frame, kind, call, depth)
        if kind == _ORM and not call:
            call = _CALLS.get(code.co_name, "")
        frame = frame.f_back
        depth += 1
    return None


def follow(ways: Iterable[Way]) -> Site | None:
    """The site of the statement that is being sent, if it came by one of these ways.

    To compare a handful of frames costs a tenth of judging all those that SQLAlchemy has in between.
    """
    for depth, steps, site in ways:
        try:
            frame: FrameType | None = _getframe(depth)
        except ValueError:
            continue
        for code, instruction in steps:
            if (
                frame is None
                or frame.f_code is not code
                or (instruction >= 0 and frame.f_lasti != instruction)
            ):
                break
            frame = frame.f_back
        else:
            return site
    return None


def _way(frame: FrameType, kind: int, call: str, depth: int) -> Way:
    innermost = code = frame.f_code
    instruction = previous = frame.f_lasti
    steps = [(code, instruction)]
    stack = id(code) ^ instruction
    in_fixture = False
    above = frame.f_back
    while above is not None and len(steps) <= MAX_CALLERS:
        caller = above.f_code
        above_kind = _kinds.get(caller.co_filename, -1)
        if above_kind < 0:
            above_kind = _judge(caller.co_filename)
        of_project = above_kind <= _TEMPLATE
        steps.append((caller, above.f_lasti if of_project else -1))
        if of_project:
            # A function that calls itself at one place is one line, however deep it is.
            if caller is not code or above.f_lasti != previous:
                code, previous = caller, above.f_lasti
                stack = hash((stack, id(caller), previous))
        elif above_kind >= _BORDER:
            in_fixture = above_kind == _FIXTURE
            break
        above = above.f_back
    template = frame.f_globals.get("__jinja_template__") if kind == _TEMPLATE else None
    return Way(depth, tuple(steps), Site(innermost, instruction, stack, call, template, in_fixture))


def is_project(filename: str) -> bool:
    """Whether a code object's file is of the project: no library, not these profilers."""
    kind = _kinds.get(filename, -1)
    return (kind if kind >= 0 else _judge(filename)) <= _TEMPLATE


def _judge(filename: str) -> int:
    kind = _kinds[filename] = _kind(filename)
    return kind


def _kind(filename: str) -> int:
    if filename.startswith("<"):
        if filename == "<template>":
            return _TEMPLATE
        return _PROJECT if filename.startswith(("<stdin", "<ipython", "<doctest")) else _LIBRARY
    if filename.endswith(_FIXTURE_FILE):
        return _FIXTURE
    if filename.endswith(_BORDER_FILES):
        return _BORDER
    if filename.endswith(_ORM_FILES):
        return _ORM
    path = os.path.realpath(filename)
    if path.startswith((_PACKAGE, *_LIBRARIES)) or any(folder in path for folder in _PACKAGE_FOLDERS):
        return _LIBRARY
    return _PROJECT if path.endswith(".py") else _TEMPLATE


# A code object is kept beside its location, so that its id is not given to another.
_locations: dict[tuple[int, int], tuple[CodeType, Location]] = {}
MAX_LOCATIONS = 10_000


def resolve(site: Site) -> Location:
    """The site as a file, a line and a function."""
    key = (id(site.code), site.instruction)
    known = _locations.get(key)
    if known is None or known[0] is not site.code:
        if len(_locations) >= MAX_LOCATIONS:
            _locations.clear()
        known = _locations[key] = (site.code, _resolve(site))
    return known[1]


def _resolve(site: Site) -> Location:
    line = line_number(site.code, site.instruction)
    if site.template is None:
        return Location(shown_path(site.code.co_filename), line, function_name(site.code))
    name = site.template.name or site.code.co_filename
    line = site.template.get_corresponding_lineno(line)
    return Location(shown_path(site.template.filename or name), line, "template")


def line_number(code: CodeType, instruction: int) -> int:
    """The source line of an instruction of `code`."""
    for start, end, line in code.co_lines():
        if start <= instruction < end and line is not None:
            return line
    return code.co_firstlineno


def function_name(code: CodeType) -> str:
    """The function's own name; that of the enclosing one for a comprehension or a lambda."""
    parts = [part for part in code.co_qualname.split(".") if not part.startswith("<")]
    return parts[-1] if parts else "<module>"


_roots: list[str] = []


def add_root(folder: str) -> None:
    """Show paths below `folder` (an app's root) from the folder that holds its top-level package."""
    root = Path(folder).resolve()
    while (root / "__init__.py").exists():
        root = root.parent
    if str(root) not in _roots:
        _roots.append(str(root))
        shown_path.cache_clear()


@lru_cache(maxsize=4096)
def shown_path(filename: str) -> str:
    """The path below the working directory or below an app's root, else the whole path; with `/`."""
    if filename.startswith("<"):
        return filename
    path = os.path.realpath(filename)
    for root in (os.path.realpath(os.curdir), *_roots):
        if root != os.sep and path.startswith(root + os.sep):
            return Path(path).relative_to(root).as_posix()
    return Path(path).as_posix()
