"""SQL text without values: what a report may show and a store may keep.

Two statements that differ only in their values have one shape. Literals inside text are values too, so
`text("... where email = 'a@b.c'")` leaves nothing behind but a question mark.
"""

from __future__ import annotations

import re
from functools import lru_cache

MAX_SHAPE = 8_000
"""Characters kept of one statement's shape."""

_VALUES = r"""
    (?P<comment> --[^\n]* | /\*.*?(?:\*/|\Z) )
  | (?P<text>
        \$(?P<tag>\w*)\$ .*? (?:\$(?P=tag)\$|\Z)              # PostgreSQL's dollar quotes
      | \b[eE]'(?:[^'\\]|''|\\.)*(?:'|\Z)                     # escapes: E'it\'s'
      | (?:\b[bBnNxX]|\b[uU]&)? '(?:[^'%(backslash)s]|''%(escape)s)*(?:'|\Z)%(double)s
    )
  | (?P<identifier> "(?:[^"]|"")*(?:"|\Z) | `[^`]*(?:`|\Z) | \[[A-Za-z_][\w ]*\] )
  | (?P<bind> %%\(\w+\)s | %%s | \$\d+ | (?<![:\w]):[A-Za-z_]\w* | \?\d* | __\[POSTCOMPILE_\w+\] )
  | (?P<number> (?<![\w.]) (?: 0[xX][\da-fA-F]+ | (?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)? ) (?!\w) )
"""
_FLAGS = re.VERBOSE | re.DOTALL
_STANDARD = re.compile(_VALUES % {"backslash": "", "escape": "", "double": ""}, _FLAGS)
_MYSQL = re.compile(
    _VALUES % {"backslash": r"\\", "escape": r"|\\.", "double": r'|"(?:[^"\\]|""|\\.)*(?:"|\Z)'}, _FLAGS
)
_LISTS = re.compile(r"\(\s*\?(?:\s*,\s*\?)+\s*\)")
_TUPLES = re.compile(r"(\([^()]*\))(?:\s*,\s*\([^()]*\))+")
_SPACES = re.compile(r"\s+")


@lru_cache(maxsize=4096)
def normalise(sql: str, dialect: str = "") -> str:
    """Return `sql` with each literal and bind parameter as `?`, without comments, lists shortened, one line.

    A list of values becomes `(?)` and the rows of a multi-row insert become one, so a batch of 10 and one of
    500 have the same shape. `dialect` is SQLAlchemy's name of it: MySQL and MariaDB take `"a"` for a string.
    At most `MAX_SHAPE` characters are returned; `…` marks a cut. The result is a fixed point of the function.
    """
    pattern = _MYSQL if dialect in ("mysql", "mariadb") else _STANDARD
    # Only what can be shown is looked at: a 10 MB statement costs what a 64 kB one costs.
    text = pattern.sub(_replace, sql[: 8 * MAX_SHAPE])
    text = _SPACES.sub(" ", text).strip()
    text = _TUPLES.sub(_same_rows, _LISTS.sub("(?)", text))
    return text if len(text) <= MAX_SHAPE and len(sql) <= 8 * MAX_SHAPE else text[:MAX_SHAPE] + "…"


def _replace(match: re.Match[str]) -> str:
    if match["comment"] is not None:
        return " "
    return match[0] if match["identifier"] is not None else "?"


def _same_rows(match: re.Match[str]) -> str:
    """Rows of values are one; a list of different groups stays as it is written."""
    rows = set(re.findall(r"\([^()]*\)", match[0]))
    return match[1] if len(rows) == 1 and "?" in match[1] else match[0]
