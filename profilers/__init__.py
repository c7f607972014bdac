"""Profilers for Flask + SQLAlchemy apps, toggled by configuration.

from profilers import Profilers, record

Profilers(app)                          # then: FLASK_PROFILE=queries,nplusone flask run

with record("nightly-import") as profile:
    run_import()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from profilers.extension import Profilers
from profilers.options import ConfigError
from profilers.plugin import NoOptions, Profiler, option
from profilers.profile import Finding, Location, Profile, Statement

if TYPE_CHECKING:
    from profilers.nplusone.allowances import allow_n_plus_one
    from profilers.query_counter import query_budget
    from profilers.recording import record

__all__ = [
    "ConfigError",
    "Finding",
    "Location",
    "NoOptions",
    "Profile",
    "Profiler",
    "Profilers",
    "Statement",
    "allow_n_plus_one",
    "option",
    "query_budget",
    "record",
]

_LATE = {
    "allow_n_plus_one": "profilers.nplusone.allowances",
    "query_budget": "profilers.query_counter",
    "record": "profilers.recording",
}
"""Imported when first asked for: an app whose profilers are off imports no SQLAlchemy for them."""


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
