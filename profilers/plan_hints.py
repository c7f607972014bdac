"""What a plan says about a slow statement: a missing index, a sort on disk, statistics that are not true.

Pure functions over a plan. A hint names the table and the columns, and its fix is SQL that can be run as it
stands. They are meant to be silent when in doubt: PostgreSQL chose the plan knowing its indexes, so a table
that it reads from end to end is told about only where an index that is not there would leave little of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from profilers.plans import Node, Plan, Table, nodes
from profilers.shapes import normalise

LARGE = 10_000
"""Rows; below it a table is read in a millisecond or two and an index gains nothing."""
SELECTIVE = 0.1
"""An index is worth it when it leaves at most this part of a table; else PostgreSQL rather reads it all."""
FEW = 0.05
"""Part of a table that a join may be of, for an index to beat reading the whole table."""
BETWEEN = 0.005
"""The part that two bounds leave while nothing is known of them: PostgreSQL's DEFAULT_RANGE_INEQ_SEL."""
MANY_READS = 100_000
"""Rows that a nested loop reads in vain."""
STALE = 0.5
"""Part of a table that changed since ANALYZE; autovacuum is meant to come at 0.1."""
GROWN = 1.5
"""Growth of a table's file since then: the count of changes alone is too high just after a load."""
UNKNOWN_BYTES = 2**20
"""Size of a table from which on missing statistics matter."""
MAX_INDEX_COLUMNS = 3


@dataclass(frozen=True)
class Hint:
    cause: str
    """`missing_index`, `sort_on_disk`, `no_statistics` or `stale_statistics`."""
    message: str
    fix: str
    """SQL."""


def hints(plan: Plan) -> list[Hint]:
    """Everything worth saying about a plan, the most certain first, each once."""
    found = [hint for rule in RULES for hint in rule(plan)]
    return list({(hint.cause, hint.fix): hint for hint in found}.values())


class Condition(NamedTuple):
    """`key operator …`: one of the conditions that AND joins."""

    key: str
    """What an index would hold: the column, or a function of it."""
    operator: str
    distinct: float
    """Different values of the column."""


_NAME = r'(?:"(?:[^"]|"")+"|[\w$]+)'
_CONDITION = re.compile(
    rf"(?:(?P<function>lower|upper)\()?\(?(?P<alias>{_NAME})\.(?P<column>{_NAME})\)?(?:::(?P<cast>[\w ]+?))?"
    r"(?(function)\)) (?P<operator>=|<=?|>=?) (?P<value>.+)",
    re.DOTALL,
)


def conjuncts(text: str) -> Iterator[str]:
    """The parts of a condition that AND joins, without the parentheses around them."""
    inner = _unwrapped(text)
    start = 0
    for position, depth in _depths(inner):
        if depth == 0 and inner.startswith(" AND ", position):
            yield _unwrapped(inner[start:position])
            start = position + 5
    yield _unwrapped(inner[start:])


def _unwrapped(text: str) -> str:
    """Without the pair of parentheses that goes around the whole text, if one does."""
    closed = next((position for position, depth in _depths(text) if depth == 0), None)
    return text[1:-1] if text.startswith("(") and closed == len(text) - 1 else text


def _depths(text: str) -> Iterator[tuple[int, int]]:
    """Each position outside of quotes, and how many parentheses are open after it."""
    depth, quote = 0, ""
    for position, character in enumerate(text):
        if quote or character in "'\"":
            quote = "" if character == quote else quote or character
            continue
        depth += {"(": 1, ")": -1}.get(character, 0)
        yield position, depth


def conditions(text: str, alias: str, table: Table) -> list[Condition]:
    """The conditions on one table that an index could answer."""
    found = []
    for part in conjuncts(text):
        match = _CONDITION.fullmatch(part)
        if match is None or _unquoted(match["alias"]) != alias or match["alias"] + "." in match["value"]:
            continue
        column = table.columns.get(_unquoted(match["column"]))
        # A varchar is shown as text; any other cast makes another value of it than an index holds.
        if column is None or (match["cast"] and not column.type.startswith(("character", "text"))):
            continue
        key = f"{match['function']}({match['column']})" if match["function"] else match["column"]
        found.append(Condition(key, match["operator"], max(column.distinct, 1.0)))
    return found


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def index_for(found: Sequence[Condition], table: Table) -> list[str]:
    """What an index should hold to answer the conditions; empty when none would leave little of the table."""

    new = [condition for condition in found if not is_indexed(condition.key, table)]
    equal = {each.key: each.distinct for each in new if each.operator == "="}
    keys = sorted(equal, key=lambda key: equal[key], reverse=True)[:MAX_INDEX_COLUMNS]
    left = 1 / math.prod(equal[key] for key in keys)
    bounded = {each.key for each in new if each.operator[0] == ">"} & {
        each.key for each in new if each.operator[0] == "<"
    }
    if bounded and len(keys) < MAX_INDEX_COLUMNS:
        keys.append(min(bounded))
        left *= BETWEEN
    return keys if left <= SELECTIVE else []


def is_indexed(key: str, table: Table) -> bool:
    """Whether an index begins with it."""
    return key in {indexed.replace("::text", "") for indexed in table.indexed}


def create_index(table: Table, keys: Sequence[str]) -> str:
    """SQL that creates the index without stopping writes, where PostgreSQL can do that."""
    concurrently = "" if table.partitioned else "CONCURRENTLY "
    return f"CREATE INDEX {concurrently}ON {table.name} ({', '.join(keys)});"


def unselective_reads(plan: Plan) -> Iterator[Hint]:
    """A large table is read from end to end for a few of its rows."""
    for node, table in _large_scans(plan):
        keys = index_for(conditions(node.get("Filter", ""), node["Alias"], table), table)
        if keys:
            yield Hint(
                "missing_index",
                f"All {table.rows:,.0f} rows of {table.name} are read to find those with a certain "
                f"{' and '.join(keys)}; no index begins with {'it' if len(keys) == 1 else 'one of them'}.",
                create_index(table, keys),
            )


def unindexed_joins(plan: Plan) -> Iterator[Hint]:
    """A large table is read from end to end to be joined to a few rows, or a small one again and again."""
    for node in nodes(plan.root):
        if node["Node Type"] not in ("Nested Loop", "Hash Join", "Merge Join"):
            continue
        sides = node["Plans"][:2]
        condition = node.get("Hash Cond") or node.get("Merge Cond") or node.get("Join Filter") or ""
        for side, other in (sides, sides[::-1]):
            scan = _below(side, "Hash", "Materialize", "Memoize", "Sort", "Gather", "Gather Merge")
            table = plan.table(scan)
            if table is None or table.rows < 0:
                continue
            repeated = node["Node Type"] == "Nested Loop" and side is sides[1]
            few = table.rows >= LARGE and max(other["Plan Rows"], node["Plan Rows"]) <= table.rows * FEW
            in_vain = repeated and table.rows * other["Plan Rows"] >= MANY_READS
            alias = scan["Alias"]
            for part in conjuncts(condition):
                column = _joined(part, alias)
                if column and (few or in_vain) and not is_indexed(column, table):
                    yield Hint(
                        "missing_index",
                        f"All {table.rows:,.0f} rows of {table.name} are read to join about "
                        f"{other['Plan Rows']:,.0f} rows by {column}; no index begins with it.",
                        create_index(table, [column]),
                    )


_JOINED = re.compile(rf"\(?({_NAME})\.({_NAME})\)?(?:::text)? = \(?({_NAME})\.({_NAME})\)?(?:::text)?")


def _joined(condition: str, alias: str) -> str | None:
    match = _JOINED.fullmatch(condition)
    if match is None or match[1] == match[3]:
        return None
    return {_unquoted(match[1]): match[2], _unquoted(match[3]): match[4]}.get(alias)


_SORT_KEY = re.compile(rf"(?P<alias>{_NAME})\.(?P<key>{_NAME}(?: DESC)?(?: NULLS (?:FIRST|LAST))?)")


def sorts_for_a_page(plan: Plan) -> Iterator[Hint]:
    """A whole large table is sorted to take the first rows of it."""
    for sort in _page_sorts(plan):
        scan = _below(sort["Plans"][0], "Gather", "Result")
        table = plan.table(scan)
        keys = [match["key"] for key in sort["Sort Key"] if (match := _SORT_KEY.fullmatch(key))]
        if table is None or table.rows < LARGE or "Filter" in scan:
            continue
        if len(keys) == len(sort["Sort Key"]) and not is_indexed(keys[0].split(" ")[0], table):
            yield Hint(
                "missing_index",
                f"All {table.rows:,.0f} rows of {table.name} are read and sorted by {', '.join(keys)} "
                "to take the first of them; no index has that order.",
                create_index(table, keys[:MAX_INDEX_COLUMNS]),
            )


def _page_sorts(plan: Plan) -> Iterator[Node]:
    """Sorts of which only the first rows are wanted: they keep no more than those."""
    for node in nodes(plan.root):
        if node["Node Type"] == "Limit":
            sort = _below(node["Plans"][0], "Gather Merge", "Result")
            if sort["Node Type"] == "Sort":
                yield sort


def sorts_on_disk(plan: Plan) -> Iterator[Hint]:
    """More is sorted than fits into memory."""
    pages = {id(sort) for sort in _page_sorts(plan)}
    for node in nodes(plan.root):
        size = node["Plan Rows"] * node["Plan Width"]
        if node["Node Type"] == "Sort" and id(node) not in pages and size > plan.work_mem:
            keys = normalise(", ".join(node["Sort Key"]))
            yield Hint(
                "sort_on_disk",
                f"About {node['Plan Rows']:,.0f} rows, {size / 2**20:.0f} MB, are sorted by {keys}, which "
                f"is done on disk: work_mem is {plan.work_mem / 2**20:.0f} MB. Sort fewer rows or narrower "
                "ones, or give this transaction more memory.",
                f"SET LOCAL work_mem = '{-(-2 * size // 2**20)}MB';",
            )


def bad_statistics(plan: Plan) -> Iterator[Hint]:
    """PostgreSQL plans with numbers that are not there, or not true any more."""
    for table in plan.tables.values():
        if table.rows < 0 and table.bytes >= UNKNOWN_BYTES:
            yield Hint(
                "no_statistics",
                f"{table.name} was never analyzed: PostgreSQL guesses how many rows it has.",
                f"ANALYZE {table.name};",
            )
        elif (
            table.rows >= 0
            and table.changed > max(STALE * table.rows, LARGE)
            and table.bytes > GROWN * table.analyzed_bytes
        ):
            yield Hint(
                "stale_statistics",
                f"{table.changed:,} rows of {table.name} changed since it was analyzed with "
                f"{table.rows:,.0f}: PostgreSQL plans for a table that is no more.",
                f"ANALYZE {table.name};",
            )


RULES: tuple[Callable[[Plan], Iterator[Hint]], ...] = (
    bad_statistics, unselective_reads, unindexed_joins, sorts_for_a_page, sorts_on_disk,
)  # fmt: skip


def _large_scans(plan: Plan) -> Iterator[tuple[Node, Table]]:
    for node in nodes(plan.root):
        table = plan.table(node)
        if table is not None and table.rows >= LARGE:
            yield node, table


def _below(node: Node, *passed: str) -> Node:
    """The first node from here down that is none of `passed`."""
    while node["Node Type"] in passed and node.get("Plans"):
        node = node["Plans"][0]
    return node
