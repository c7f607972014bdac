"""What a statement asks for, read from its structure: which entity, by which key, one row or a page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from keyword import iskeyword
from typing import Any

from sqlalchemy import BindParameter, Column, Select, Table, TextClause
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import BinaryExpression
from sqlalchemy.sql.functions import FunctionElement

from profilers.collect import Record, shape_of

_RANGES = (operators.lt, operators.le, operators.gt, operators.ge, operators.between_op)


@dataclass(frozen=True, slots=True)
class Reading:
    """One statement, as far as it matters for telling a loop from a batch."""

    verb: str
    """`select`, `insert`, `update`, `delete`, or the first word of what else it is."""
    text: bool
    """Written as text, so nothing is known of it but its words."""
    entity: type[Any] | None = None
    """The mapped class that is asked for or written."""
    table: str = ""
    columns: tuple[str, ...] = ()
    """What a SELECT returns, as code; empty when that cannot be written."""
    aggregate: str = ""
    """`func.count()`, when that is all it returns."""
    key: Column[Any] | None = None
    """The column that must equal a value: what tells one statement of a loop from the next."""
    key_code: str = ""
    """The key as code: `Order.customer_id`, or `order.c.customer_id`."""
    of_parent: bool = False
    """The value is taken from an object: `customer.visits.select()`, `with_parent(customer, …)`."""
    other_values: int = 0
    """Values beside those of an IN list."""
    in_list: bool = False
    pages: bool = False
    """Asks for a page: an offset, or a limit after a value."""
    plain: bool = False
    """Writes values that are no SQL, or to the row of one key alone: a list of rows can take their place."""


def read(record: Record) -> Reading:
    """Read a statement; what is found is kept with the compiled statement, which all executions share."""
    if isinstance(record.sql, str) or isinstance(record.sql.statement, TextClause):
        return _read_text(shape_of(record))
    known: Reading | None = record.sql.__dict__.get("_profilers_reading")
    if known is None:
        known = record.sql._profilers_reading = _read(record.sql)
    return known


def is_batch(reading: Reading, values: float) -> bool:
    """Whether the statement is for many rows at once, given how many values it has on average."""
    return reading.pages or (reading.in_list and values - reading.other_values >= 2)


_TEXT_BATCH = re.compile(r"\b(?:IN|ANY|OFFSET|FETCH|UNNEST)\b|[<>][^<>]*\bLIMIT\b|\bVALUES \(.*\), ?\(", re.I)


def _read_text(shape: str) -> Reading:
    verb = shape.lstrip("( ").split(" ", 1)[0].lower()
    return Reading("select" if verb == "with" else verb, text=True, pages=bool(_TEXT_BATCH.search(shape)))


def _read(compiled: Any) -> Reading:
    statement = compiled.statement
    verb = next(
        (verb for verb in ("insert", "update", "delete") if getattr(compiled, f"is{verb}", False)),
        "select" if getattr(statement, "is_select", False) else statement.__visit_name__,
    )
    table = getattr(statement, "table", None)
    entity = _entity_of(statement)
    if verb in ("insert", "select", "update", "delete"):
        key, in_list, others, of_parent = _criteria(statement)
    else:
        key, in_list, others, of_parent = None, False, 0, False
    if table is None and key is not None:
        table = key.table
    return Reading(
        verb=verb,
        text=False,
        entity=entity,
        table=str(getattr(table, "name", "")),
        columns=_columns(statement, entity) if verb == "select" else (),
        aggregate=_aggregate(statement) if verb == "select" else "",
        key=key,
        key_code=code_of(key, entity) if key is not None else "",
        of_parent=of_parent,
        other_values=others,
        in_list=in_list,
        pages=_pages(statement),
        plain=verb != "select" and _is_plain(statement, verb, table, key),
    )


def _entity_of(statement: Any) -> type[Any] | None:
    subject = statement._propagate_attrs.get("plugin_subject")
    mapper = getattr(subject, "mapper", None)
    if mapper is None:
        mapper = getattr(statement, "_annotations", {}).get("parententity")
    return mapper.class_ if mapper is not None else None


def _criteria(statement: Any) -> tuple[Column[Any] | None, bool, int, bool]:
    """The key it is asked by, whether by a list, how many other values, and whether a parent gives it."""
    keys: list[tuple[Column[Any], bool, bool]] = []
    values = 0
    for element in visitors.iterate(statement):
        if isinstance(element, BindParameter):
            values += not element.expanding
        if not isinstance(element, BinaryExpression):
            continue
        sides = (element.left, element.right)
        column = next((side for side in sides if isinstance(side, Column)), None)
        bind = next((side for side in sides if isinstance(side, BindParameter)), None)
        if column is not None and bind is not None and element.operator in (operators.eq, operators.in_op):
            keys.append((column, bind.expanding, bind.callable is not None))
    if not keys:
        return None, False, values, False
    # Of several, a key of the database's is what a loop runs over; a constant such as a status is not.
    column, in_list, of_parent = min(keys, key=lambda each: not (each[0].primary_key or each[0].foreign_keys))
    return column, in_list, values, of_parent


def _is_plain(statement: Any, verb: str, table: Any, key: Column[Any] | None) -> bool:
    values = getattr(statement, "_values", None) or {}
    if not all(isinstance(each, BindParameter) for each in values.values()):
        return False
    if verb == "insert":
        return statement.select is None and statement._post_values_clause is None
    criteria: tuple[Any, ...] = getattr(statement, "_where_criteria", ())
    if key is None or key.table.key != table.key or len(criteria) != 1:
        return False
    sides = [getattr(criterion, side, None) for criterion in criteria for side in ("left", "right")]
    if not any(isinstance(side, BindParameter) for side in sides):
        return False
    return verb == "delete" or (key.primary_key and len(table.primary_key.columns) == 1)


def _pages(statement: Any) -> bool:
    for element in visitors.iterate(statement):
        if isinstance(element, Select):
            if element._offset_clause is not None:
                return True
            if element._limit_clause is not None and _has_range(element):
                return True
    return False


def _has_range(statement: Any) -> bool:
    return any(
        isinstance(element, BinaryExpression) and element.operator in _RANGES
        for criterion in statement._where_criteria
        for element in visitors.iterate(criterion)
    )


def code_of(column: Any, entity: type[Any] | None = None) -> str:
    """The column as code: the mapped attribute, else `table.c.column`."""
    annotations = getattr(column, "_annotations", {})
    parent, key = annotations.get("parententity"), annotations.get("proxy_key")
    if parent is not None and key is not None and hasattr(parent, "class_"):
        return f"{parent.class_.__name__}.{key}"
    if entity is not None and column in entity.__mapper__.columns.values():
        return f"{entity.__name__}.{entity.__mapper__.get_property_by_column(column).key}"
    table = getattr(column, "table", None)
    return f"{getattr(table, 'name', 'table')}.c.{column.key}"


def select_by_keys(entity: type[Any]) -> str:
    """As code: the objects of many primary keys at once."""
    names = [code_of(column, entity) for column in entity.__mapper__.primary_key]
    if len(names) == 1:
        return f"select({entity.__name__}).where({names[0]}.in_({plural_of(names[0].rpartition('.')[2])}))"
    return f"select({entity.__name__}).where(tuple_({', '.join(names)}).in_(keys))"


def plural_of(name: str) -> str:
    """What several values may be called: `customer_ids`."""
    return f"{name}_values" if iskeyword(f"{name}s") else f"{name}s"


def _columns(statement: Any, entity: type[Any] | None) -> tuple[str, ...]:
    parts = []
    for raw in getattr(statement, "_raw_columns", ()):
        if isinstance(raw, Column):
            parts.append(code_of(raw))
        elif isinstance(raw, Table):
            mapper: Any = getattr(raw, "_annotations", {}).get("parententity")
            parts.append(mapper.class_.__name__ if hasattr(mapper, "class_") else raw.name)
        else:
            return ()
    return tuple(parts)


def _aggregate(statement: Any) -> str:
    raws: list[Any] = list(getattr(statement, "_raw_columns", ()))
    if len(raws) != 1:
        return ""
    function = next((each for each in visitors.iterate(raws[0]) if isinstance(each, FunctionElement)), None)
    name = getattr(function, "name", "")
    if function is None or name not in ("count", "sum", "min", "max", "avg"):
        return ""
    column = next((each for each in visitors.iterate(function) if isinstance(each, Column)), None)
    return f"func.{name}({code_of(column) if column is not None and name != 'count' else ''})"


def write_only_relationship(reading: Reading) -> str:
    """`Customer.visits`, when the statement is for a collection that is never loaded whole, else empty."""
    return _relationship(reading, ("write_only", "dynamic"))


def _relationship(reading: Reading, lazy: tuple[str, ...]) -> str:
    if not reading.of_parent or reading.entity is None or reading.key is None:
        return ""
    key = reading.key
    for mapper in reading.entity.__mapper__.registry.mappers:
        for prop in mapper.relationships:
            if prop.lazy in lazy and issubclass(reading.entity, prop.mapper.class_):
                columns = {column for pair in prop.synchronize_pairs for column in pair}
                if any(column.table is key.table and column.key == key.key for column in columns):
                    return f"{mapper.class_.__name__}.{prop.key}"
    return ""
