"""Which profilers run, and with what settings: from `app.config` and the environment, checked at the start.

`PROFILE` in `app.config`, or `FLASK_PROFILE` in the environment, names the profilers, with commas between
them. The options of a profiler are `PROFILE_<NAME>_<OPTION>` in `app.config`, `FLASK_PROFILE_<NAME>_<OPTION>`
in the environment. The environment wins. A mistake stops the start with one line that says what to write.
"""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points, requires
from typing import Any

import click

from profilers.plugin import Profiler

STANDBY = "standby"
"""In `PROFILE`: everything is hooked up and no profiler runs until one is switched on at run time."""


class ConfigError(click.ClickException, ValueError):
    """A setting of the profilers is wrong; `flask` prints it as one line."""


@cache
def available() -> Mapping[str, EntryPoint]:
    """All installed profilers by name: the entry-point group `flask_profilers`."""
    return {entry.name: entry for entry in entry_points(group="flask_profilers")}


def setting(key: str, config: Mapping[str, Any]) -> Any:
    """The environment's `FLASK_<key>`, else `config[key]`, else None."""
    return os.environ.get(f"FLASK_{key}", config.get(key))


def flag(key: str, config: Mapping[str, Any], default: bool = False) -> bool:
    """A setting that is true or false; the default when nothing is set.

    Raises:
        ConfigError: it is neither.
    """
    value = setting(key, config)
    return default if value in (None, "") else bool(parse(key, value, bool))


def enabled_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names in `PROFILE`, `standby` among them, each once and in order."""
    return split_names(setting("PROFILE", config) or ())


def split_names(names: str | Iterable[str]) -> tuple[str, ...]:
    """`"queries, nplusone"` as a tuple of names."""
    parts = names.split(",") if isinstance(names, str) else names
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def create(name: str, config: Mapping[str, Any]) -> Profiler[Any]:
    """Import the profiler called `name` and give it its options.

    Raises:
        ConfigError: no such profiler, it cannot be imported, or one of its options is wrong.
    """
    entry = available().get(name)
    if entry is None:
        known = ", ".join(sorted(available())) or "none is installed"
        raise ConfigError(f"PROFILE={name!r}: there is no such profiler; expected some of: {known}")
    try:
        profiler_class = entry.load()
    except ImportError as error:
        raise ConfigError(f"PROFILE={name!r}: {error}; {installation(name)}") from error
    if not (isinstance(profiler_class, type) and issubclass(profiler_class, Profiler)):
        raise ConfigError(f"PROFILE={name!r}: {entry.value} is not a subclass of profilers.Profiler")
    return profiler_class(read_options(profiler_class, config))


def installation(extra: str) -> str:
    """What to type for a profiler's packages: `pip install 'psutil>=7.0' 'scipy>=1.14'`.

    The packages rather than the extra: whatever this was installed from, they are where pip looks.
    """
    needed = [text.split(";") for text in requires("flask-profilers") or ()]
    packages = [f"'{package.strip()}'" for package, *marker in needed if f'"{extra}"' in "".join(marker)]
    return f"pip install {' '.join(packages)}" if packages else "is a package missing that it needs?"


def read_options(profiler_class: type[Profiler[Any]], config: Mapping[str, Any]) -> Any:
    """Fill the profiler's options class from the settings.

    Raises:
        ConfigError: an unknown option, or a value of another type.
    """
    fields = {field.name: field for field in dataclasses.fields(profiler_class.options_class)}
    hints = typing.get_type_hints(profiler_class.options_class)
    prefix = f"PROFILE_{profiler_class.name.upper().replace('-', '_')}_"
    values = {}
    for key in _keys(prefix, config):
        name = key.removeprefix(prefix).lower()
        if name not in fields:
            known = ", ".join(prefix + field.upper() for field in fields) or "none"
            raise ConfigError(f"{key}: {profiler_class.name} has no such option; expected some of: {known}")
        values[name] = parse(key, setting(key, config), hints[name])
    return profiler_class.options_class(**values)


def _keys(prefix: str, config: Mapping[str, Any]) -> list[str]:
    """The settings of one profiler; a longer name of another profiler that begins alike is not its own."""
    others = [
        f"PROFILE_{name.upper().replace('-', '_')}_" for name in available() if len(name) > len(prefix) - 9
    ]
    keys = {key for key in config if key.startswith(prefix)}
    keys |= {key.removeprefix("FLASK_") for key in os.environ if key.startswith(f"FLASK_{prefix}")}
    return sorted(key for key in keys if not any(key.startswith(o) for o in others if o.startswith(prefix)))


_EXPECTED = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_BOOLEANS = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


def parse(key: str, value: Any, wanted: Any) -> Any:
    """`value` as the type of the option: int, float, bool, str, `tuple[str, ...]`, or one of them or None.

    Raises:
        ConfigError: it is not of that type.
    """
    if typing.get_origin(wanted) in (types.UnionType, typing.Union):
        (inner,) = (part for part in typing.get_args(wanted) if part is not type(None))
        return None if value in (None, "", "none") else parse(key, value, inner)
    if typing.get_origin(wanted) is tuple:
        return split_names(value)
    try:
        if wanted is bool:
            return _BOOLEANS[str(value).strip().lower()]
        return wanted(value if wanted is str else str(value).strip())
    except (KeyError, TypeError, ValueError):
        raise ConfigError(
            f"{key}={value!r}: expected {_EXPECTED.get(wanted, wanted)}; "
            f"set {key} in app.config or FLASK_{key} in the environment"
        ) from None
