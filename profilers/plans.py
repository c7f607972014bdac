"""How PostgreSQL would run a statement, without its values: a plan, and the facts that explain it.

`EXPLAIN (GENERIC_PLAN)` (PostgreSQL 16 and newer) plans a statement whose values are `$1`, `$2`, … and runs
nothing. It is asked on a connection of its own, outside the app's pool, in a read-only transaction with a
time limit, and closed again at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.engine import Engine
from sqlalchemy.exc import CompileError
from sqlalchemy.sql.compiler import SQLCompiler

from profilers.shapes import normalise

TIMEOUT_MS = 2_000
"""Planning takes milliseconds; more than this means that a lock or the server is in the way."""
PAGE = 100
"""Rows that `LIMIT ?` is planned for: PostgreSQL itself takes an unknown limit for a tenth of the result."""

Node = dict[str, Any]
"""One step of a plan as `FORMAT JSON` has it."""


class NoPlanError(Exception):
    """There is no plan; the message says why, and holds no value."""


class NotReachedError(NoPlanError):
    """The database cannot be reached at the moment."""


@dataclass(frozen=True)
class Column:
    type: str
    distinct: float
    """Distinct values, as ANALYZE estimated them; 0 when it has not seen the column."""


@dataclass(frozen=True)
class Table:
    """What PostgreSQL knows about a table that a plan reads from end to end."""

    name: str
    """As SQL writes it; of a partition, its partitioned table."""
    rows: float
    """As ANALYZE estimated them; negative when it never ran."""
    bytes: int = 0
    analyzed_bytes: int = 0
    """Its size at the last ANALYZE or VACUUM."""
    changed: int = 0
    """Rows changed since the last ANALYZE, as far as they have been counted: too many right after it."""
    partitioned: bool = False
    columns: Mapping[str, Column] = field(default_factory=dict)
    indexed: frozenset[str] = frozenset()
    """The first column, or expression, of each complete index."""


@dataclass(frozen=True)
class Plan:
    root: Node
    tables: Mapping[tuple[str, str], Table]
    """By schema and name: the tables that a `Seq Scan` in the plan reads."""
    work_mem: int
    """Bytes that one sort may use in memory."""

    def table(self, node: Node) -> Table | None:
        """The table that a node reads from end to end, if it does."""
        return self.tables[node["Schema"], node["Relation Name"]] if node["Node Type"] == "Seq Scan" else None


def nodes(root: Node) -> Iterator[Node]:
    """All steps of a plan, from the top."""
    yield root
    for child in root.get("Plans", ()):
        yield from nodes(child)


_EXPRESSIONS = (
    "Filter", "Index Cond", "Recheck Cond", "Hash Cond", "Merge Cond", "Join Filter", "Sort Key",
)  # fmt: skip


def outline(plan: Plan) -> list[str]:
    """The plan as indented lines, without values: literals of the statement show as `?`."""
    return list(_outline(plan.root, 0))


def _outline(node: Node, depth: int) -> Iterator[str]:
    on = " on " + node["Relation Name"] if "Relation Name" in node else ""
    using = " using " + node["Index Name"] if "Index Name" in node else ""
    rows, cost = node.get("Plan Rows", 0), node.get("Total Cost", 0)
    yield f"{'  ' * depth}{node['Node Type']}{using}{on} (cost {cost:.0f}, {rows:.0f} rows)"
    for name in _EXPRESSIONS:
        if name in node:
            value = node[name] if isinstance(node[name], str) else ", ".join(node[name])
            yield f"{'  ' * depth}  {name}: {normalise(value)}"
    for child in node.get("Plans", ()):
        yield from _outline(child, depth + 1)


_PLANNED = re.compile(
    r"(?:\s|\(|/\*.*?\*/|--[^\n]*\n)*(?:SELECT|INSERT|UPDATE|DELETE|MERGE|WITH)\b", re.IGNORECASE | re.DOTALL
)
_BIND = re.compile(r"%%|%\((?P<name>[^)]+)\)s|%s|__\[POSTCOMPILE_(?P<list>\w+)[^\]]*\]")
_LIMIT = re.compile(r"\b(?P<word>LIMIT|OFFSET)\s+(?:%\([^)]+\)s|%s)", re.IGNORECASE)


def numbered(sql: str, casts: Mapping[str, str] | None = None) -> str:
    """A driver's `%(name)s` and `%s` as PostgreSQL's `$1`, `$2`, …; one name is one number.

    A list that SQLAlchemy expands (`IN`) becomes one value, `LIMIT` a page. `casts` gives types by name.
    """
    numbers: dict[str, int] = {}

    def replace(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%"
        name = match["name"] or match["list"] or f"%{len(numbers)}"
        number = numbers.setdefault(name, len(numbers) + 1)
        return f"CAST(${number} AS {casts[name]})" if casts and name in casts else f"${number}"

    sql = _LIMIT.sub(lambda match: f"{match['word']} {PAGE if match['word'].upper() == 'LIMIT' else 0}", sql)
    return _BIND.sub(replace, sql)


def plannable(sql: str) -> str:
    """The statement as it may follow EXPLAIN: one statement that reads or writes rows.

    Raises:
        NoPlanError: it is another kind of statement, or may be several. A driver would run the second one, so
            no semicolon at all is let through, not even one in a literal.
    """
    sql = sql.strip().removesuffix(";")
    if not _PLANNED.match(sql):
        raise NoPlanError("it is not a SELECT, INSERT, UPDATE, DELETE, MERGE or WITH")
    if ";" in sql:
        raise NoPlanError("there is a semicolon in it, so it may be several statements")
    return sql


def fetch(engine: Engine, statement: SQLCompiler | str) -> Plan:
    """Ask PostgreSQL for the plan of a statement that `engine` ran.

    Raises:
        NoPlanError: another database, an older PostgreSQL, no permission, or not plannable.
    """
    version = getattr(engine.dialect, "server_version_info", None)
    if engine.dialect.name != "postgresql":
        raise NoPlanError(f"plans need PostgreSQL, this is {engine.dialect.name}")
    if version is None or version < (16,):
        number = ".".join(map(str, version or ())) or "unknown"
        raise NoPlanError(f"EXPLAIN (GENERIC_PLAN) needs PostgreSQL 16, this is {number}")
    sql = plannable(statement if isinstance(statement, str) else str(statement))
    with _read_only(engine) as cursor:
        try:
            return _plan(cursor, numbered(sql))
        except _driver(engine).Error as error:
            # Without its value PostgreSQL may not know a parameter's type; SQLAlchemy mostly does.
            casts = _casts(statement, engine) if not isinstance(statement, str) else {}
            if not casts or type(error).__name__ not in _UNTYPED:
                raise NoPlanError(_reason(error)) from error
            cursor.execute("ROLLBACK")
            _begin(cursor)
            try:
                return _plan(cursor, numbered(sql, casts))
            except _driver(engine).Error as second:
                raise NoPlanError(_reason(second)) from second


_UNTYPED = {"IndeterminateDatatype", "AmbiguousParameter", "AmbiguousFunction", "UndefinedFunction"}


def _casts(statement: SQLCompiler, engine: Engine) -> dict[str, str]:
    casts = {}
    for name, bind in statement.binds.items():
        try:
            casts[name] = bind.type.dialect_impl(engine.dialect).compile(dialect=engine.dialect)
        except CompileError:  # no type of its own, such as NULL's
            continue
    return casts


def _driver(engine: Engine) -> Any:
    return engine.dialect.dbapi


def _reason(error: Exception) -> str:
    """Class names only: PostgreSQL's messages quote what was sent."""
    name = type(error).__name__
    return (
        "the database role may not read its tables"
        if name == "InsufficientPrivilege"
        else f"{name} in EXPLAIN"
    )


@contextmanager
def _read_only(engine: Engine) -> Iterator[Any]:
    """A cursor on a connection that is made as the app makes its own, and that nobody else has."""
    pool = engine.pool.recreate()
    try:
        connection = pool.connect()
        try:
            connection.rollback()  # a listener of the app may have sent something
            connection.dbapi_connection.autocommit = True  # type: ignore[union-attr] # psycopg's, psycopg2's, …
            with closing(connection.cursor()) as cursor:
                _begin(cursor)
                yield cursor
        finally:
            connection.close()
    except _driver(engine).Error as error:
        raise NotReachedError(f"{type(error).__name__} on the way to the database") from error
    finally:
        pool.dispose()


def _begin(cursor: Any) -> None:
    cursor.execute("BEGIN READ ONLY")
    cursor.execute(f"SET LOCAL statement_timeout = {TIMEOUT_MS}")


def _plan(cursor: Any, sql: str) -> Plan:
    cursor.execute("EXPLAIN (GENERIC_PLAN, VERBOSE, FORMAT JSON) " + sql)
    root = _json(cursor.fetchone()[0])[0]["Plan"]
    scanned = {
        (node["Schema"], node["Relation Name"]) for node in nodes(root) if node["Node Type"] == "Seq Scan"
    }
    cursor.execute("SELECT setting::bigint * 1024 FROM pg_settings WHERE name = 'work_mem'")
    work_mem = cursor.fetchone()[0]
    return Plan(root, {names: _table(cursor, names) for names in scanned}, work_mem)


_TABLE = """
SELECT coalesce(pg_partition_root(c.oid), c.oid::regclass)::text, c.reltuples, pg_relation_size(c.oid),
       c.relpages * current_setting('block_size')::bigint,
       coalesce(pg_stat_get_mod_since_analyze(c.oid), 0), c.relispartition,
       (SELECT json_agg(json_build_array(a.attname, format_type(a.atttypid, NULL),
                        CASE WHEN s.n_distinct < 0 THEN -s.n_distinct * greatest(c.reltuples, 0)
                             ELSE coalesce(s.n_distinct, 0) END))
        FROM pg_attribute a LEFT JOIN pg_stats s
             ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname
                AND NOT s.inherited
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
       (SELECT json_agg(pg_get_indexdef(i.indexrelid, 1, true)) FROM pg_index i
        WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s
"""


def _table(cursor: Any, names: tuple[str, str]) -> Table:
    cursor.execute(_TABLE, names)
    name, rows, size, analyzed, changed, partitioned, columns, indexed = cursor.fetchone()
    return Table(
        name,
        rows,
        size,
        analyzed,
        changed,
        partitioned,
        {column: Column(type_, distinct) for column, type_, distinct in _json(columns)},
        frozenset(_json(indexed) or ()),
    )


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value
