"""Lazy relationships and columns loaded one instance at a time, with the option that loads all at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import takewhile
from typing import Any

from sqlalchemy.orm import ColumnProperty, Mapper

from profilers.collect import LAZY, Record, Recording
from profilers.location import resolve
from profilers.nplusone.chains import Load, Step, Steps, entity_of, explicit_loaders
from profilers.nplusone.statements import select_by_keys
from profilers.profile import Finding, Location

BATCH = 500
"""Parents for which `selectinload` sends one statement."""


def relationship_findings(loads: Iterable[Load], threshold: int) -> list[Finding]:
    """One finding for each chain: what hangs below a finding is part of it."""
    slow = [load for load in loads if is_lazy(load) and load.parent_count >= threshold]
    tops = [load for load in slow if not any(_below(load, other) for other in slow)]
    return [_relationship([top, *(other for other in slow if _below(other, top))]) for top in tops]


def subject_of(load: Load, record: Record) -> str:
    """`Post.author`, or the class or the attributes whose columns are loaded."""
    if record.load == LAZY:
        return str(load.steps[-1])
    name = entity_of(record).__name__
    deferred = record.expired is not None and not record.expired & load.columns
    return attributes_of(name, load.columns) if deferred else name


def attributes_of(name: str, keys: Iterable[str]) -> str:
    """`Post.body, Post.summary`."""
    return ", ".join(f"{name}.{key}" for key in sorted(keys))


def is_lazy(load: Load) -> bool:
    """Whether it loads a relationship, and not columns."""
    return load.records[0].load == LAZY if load.records else not load.columns


def _below(load: Load, other: Load) -> bool:
    return (
        load is not other
        and load.root is other.root
        and len(load.steps) > len(other.steps)
        and load.names[: len(other.names)] == other.names
    )


def _relationship(loads: Sequence[Load]) -> Finding:
    top = loads[0]
    # A chain that goes on in another need not be written twice.
    ends = [load for load in loads if not any(_below(other, load) for other in loads)]
    options = ", ".join(loader(load.steps) for load in ends)
    count = sum(load.count for load in loads)
    afterwards = sum(-(-load.parent_count // BATCH) for load in loads if not is_to_one(load.steps[-1]))
    also = sorted({name for load in loads for name in load.names[len(top.names) :]})
    subject = str(top.steps[-1])
    parents = plural(top.steps[-1].entity.__name__, top.parent_count)
    return _finding(
        top,
        cause="lazy_relationship",
        subject=subject,
        count=count,
        seconds=sum(load.seconds for load in loads),
        what=f"{subject} was loaded one at a time for {parents}"
        + (f", and below it {', '.join(also)}" if also else ""),
        fix=_replacing(top.root, loads, f".options({options})"),
        details={
            "chain": max((list(load.names) for load in loads), key=lambda names: len(names)),
            "statements_after": afterwards,
        },
    )


def _replacing(root: Record | None, loads: Sequence[Load], fix: str) -> str:
    """SQLAlchemy refuses a second loader for a relationship that the query names already."""
    names = {str(load.steps[-1]) for load in loads}
    named = [name for name in explicit_loaders(root) if name in names]
    return f"Replace the loader of {', '.join(named)} in the query by {fix}" if named else fix


def column_findings(profile: Recording, loads: Iterable[Load], threshold: int) -> list[Finding]:
    """Deferred, expired and refreshed columns, told apart."""
    findings = []
    for load in loads:
        if not is_lazy(load) and load.records:
            findings += [
                _columns(load, cause, records)
                for cause, records in _by_cause(profile, load).items()
                if len({record.parent for record in records}) + load.uncounted >= threshold
            ]
    return findings


def _by_cause(profile: Recording, load: Load) -> dict[str, list[Record]]:
    causes: dict[str, list[Record]] = {}
    for record in load.records:
        causes.setdefault(_cause(profile, load, record), []).append(record)
    return causes


def _cause(profile: Recording, load: Load, record: Record) -> str:
    if record.site is not None and record.site.call == "refresh":
        return "refresh_in_loop"
    mapper = entity_of(record).__mapper__
    if record.expired is not None and not record.expired & load.columns:
        return "deferred_column"
    if record.expired is not None and _of_subclass(mapper, load.columns):
        return "subclass_column"
    if record.expired is not None and _computed_by_server(mapper, load.columns):
        return "server_default"
    ended = [name for at, name in takewhile(lambda each: each[0] < record.started, profile.boundaries)]
    loaded = load.root.started if load.root else profile.begun
    since = [name for at, name in profile.boundaries if loaded < at < record.started]
    if not since and load.root is not None:
        return "expired_attribute"
    return f"expired_after_{(since or ended or ['commit'])[-1]}"


def _of_subclass(mapper: Mapper[Any], keys: frozenset[str]) -> bool:
    """Columns of a joined subclass that a query for the base class leaves out."""
    base = mapper.base_mapper
    return mapper is not base and bool(keys) and not keys & set(base.attrs.keys())


def _computed_by_server(mapper: Mapper[Any], keys: frozenset[str]) -> bool:
    columns = [
        column
        for key in keys
        if isinstance(prop := mapper.attrs[key], ColumnProperty)
        for column in prop.columns
    ]
    return bool(columns) and all(
        getattr(column, "server_default", None) is not None
        or getattr(column, "server_onupdate", None) is not None
        for column in columns
    )


def _columns(load: Load, cause: str, records: list[Record]) -> Finding:
    entity = entity_of(records[0])
    name = entity.__name__
    keys = sorted(load.columns)
    attributes = attributes_of(name, keys)
    subject = attributes if cause in ("deferred_column", "subclass_column", "server_default") else name
    parents = plural(name, len({record.parent for record in records}) + load.uncounted)
    one_query = f"session.scalars({select_by_keys(entity)}"
    inserted = cause == "server_default" and load.root is None
    after_commit = "Create the session with expire_on_commit=False, and commit once instead of in the loop"
    polymorphic = f"selectin_polymorphic({base_name(entity)}, [{name}])"
    fixes = {
        "deferred_column": f".options({loader(load.steps, undefer(entity, keys))})",
        "subclass_column": f".options({loader(load.steps, polymorphic)})",
        # With eager_defaults rows come back from an INSERT of many, and from an UPDATE of one only.
        "server_default": (
            f'__mapper_args__ = {{"eager_defaults": True}}  # in class {name}'
            if inserted
            else f"{one_query}).all()"
        ),
        "refresh_in_loop": f"{one_query}.execution_options(populate_existing=True)).all()",
        "expired_after_commit": after_commit,
        "expired_after_rollback": f"{one_query}).all()",
        "expired_attribute": f"{one_query}).all()",
    }
    what = {
        "deferred_column": f"the deferred {attributes} was loaded one at a time for {parents}",
        "subclass_column": f"{attributes}, left out by the query for {base_name(entity)}, was loaded one "
        f"at a time for {parents}",
        "server_default": f"{attributes}, filled in by the server, was read back one at a time for {parents}",
        "refresh_in_loop": f"session.refresh() read {parents} again one at a time",
        "expired_after_commit": f"{parents}, expired by commit(), were read again one at a time",
        "expired_after_rollback": f"{parents}, expired by rollback(), were read again one at a time",
        "expired_attribute": f"{parents}, expired by expire(), were read again one at a time",
    }
    return _finding(
        load,
        cause=cause,
        subject=subject,
        count=len(records) + load.uncounted,
        seconds=sum(record.ended - record.started for record in records) + load.uncounted_seconds,
        what=what[cause],
        fix=fixes[cause],
        details={
            "chain": list(load.names),
            "columns": keys,
            "statements_after": 0 if inserted else AFTERWARDS[cause],
        },
        records=records,
    )


AFTERWARDS = {
    "deferred_column": 0,
    "subclass_column": 1,
    "server_default": 1,
    "refresh_in_loop": 1,
    "expired_after_commit": 0,
    "expired_after_rollback": 1,
    "expired_attribute": 1,
}
"""Statements that are left of a finding once its fix is applied."""


def _finding(
    load: Load,
    *,
    cause: str,
    subject: str,
    count: int,
    seconds: float,
    what: str,
    fix: str,
    details: dict[str, Any],
    records: list[Record] | None = None,
) -> Finding:
    location = usual_location(records or load.records)
    origin = resolve(load.root.site) if load.root and load.root.site else None
    where = "Add to the query there" if fix.startswith(".options") else "Instead"
    queried = f" They were queried at {origin}." if origin else ""
    return Finding(
        kind="n_plus_one",
        cause=cause,
        subject=subject,
        count=count,
        location=location,
        origin=origin,
        fix=fix,
        duration=seconds,
        message=(
            f"N+1: {what}, at {location or 'no line of the project'}: {count} statements, "
            f"{seconds * 1000:.1f} ms.{queried} {where}: {fix}"
        ),
        details={"parents": load.parent_count, **details},
    )


def usual_location(records: Sequence[Record]) -> Location | None:
    """The line that most of the statements came from."""
    sites = {id(site): site for record in records if (site := record.site)}
    if len(sites) < 2:
        return resolve(next(iter(sites.values()))) if sites else None
    return Counter(resolve(site) for record in records if (site := record.site)).most_common(1)[0][0]


@lru_cache(maxsize=1024)
def loader(steps: Steps, end: str = "") -> str:
    """Loader options of a chain, as written: `joinedload(Order.customer).joinedload(Customer.region)`."""
    parts = [f"{_strategy(step)}({step})" for step in steps]
    levels = 1
    while not end and len(parts) > 1 and parts[-1].startswith("selectinload") and parts[-2] == parts[-1]:
        parts.pop()
        levels += 1
    if levels > 1:  # a tree: one option for all its levels
        parts[-1] = parts[-1].removesuffix(")") + ", recursion_depth=-1)"
    if end.startswith("selectin_polymorphic") and parts:
        return ".".join(parts) + f".options({end})"
    return ".".join([*parts, end] if end else parts)


def _strategy(step: Step) -> str:
    if step.eager:
        return "defaultload"
    return "joinedload" if is_to_one(step) else "selectinload"


def is_to_one(step: Step) -> bool:
    """Whether a join brings the relationship without multiplying rows."""
    return not step.relationship.uselist


def undefer(entity: type[Any], keys: Sequence[str]) -> str:
    """`undefer(Post.body)` for each column, chained."""
    return ".".join(f"undefer({entity.__name__}.{key})" for key in keys)


def base_name(entity: type[Any]) -> str:
    name: str = entity.__mapper__.base_mapper.class_.__name__
    return name


def plural(name: str, count: int) -> str:
    """`20 Order objects`."""
    return f"{count} {name} objects"
