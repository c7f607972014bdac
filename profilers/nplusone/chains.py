"""Follows each lazy load back to the statement that queried the objects it starts from.

A `Load` is all loads of one relationship (or of the same columns) along one chain from one place of the code:
`select(Order)` in views.py -> Order.customer -> Customer.region. It holds the whole chain, because a loader
option is only valid from the entity that the statement selects.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from sqlalchemy.orm import Mapper, RelationshipProperty

from profilers.collect import COLUMNS, LAZY, Record, Recording

MAX_EAGER_DEPTH = 4


class Step(NamedTuple):
    """One relationship of a chain."""

    entity: type[Any]
    key: str
    eager: bool
    """It is loaded eagerly already: an option only has to lead through it."""

    def __str__(self) -> str:
        return f"{self.entity.__name__}.{self.key}"

    @property
    def relationship(self) -> RelationshipProperty[Any]:
        prop = self.entity.__mapper__.attrs[self.key]
        assert isinstance(prop, RelationshipProperty)
        return prop


Steps = tuple[Step, ...]
Place = tuple[Any, ...]


class Owner(NamedTuple):
    """What a record's rows became: objects at the end of a chain that began with `root`."""

    root: Record | None
    """The statement that somebody wrote; None when it ran before the profile."""
    steps: Steps


UNKNOWN = Owner(None, ())


@dataclass
class Load:
    """The statements that loaded one relationship, or one set of columns, along one chain."""

    root: Record | None
    steps: Steps
    columns: frozenset[str] = frozenset()
    records: list[Record] = field(default_factory=list)
    parents: set[Any] = field(default_factory=set)
    uncounted: int = 0
    """Further statements that were counted, not kept."""
    uncounted_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.owner = Owner(self.root, self.steps)
        """Of what its statements loaded."""

    @property
    def count(self) -> int:
        return len(self.records) + self.uncounted

    @property
    def parent_count(self) -> int:
        """Distinct instances that were loaded for; what was not kept counts as distinct."""
        return len(self.parents) + self.uncounted

    @property
    def seconds(self) -> float:
        return sum(each.ended - each.started for each in self.records) + self.uncounted_seconds

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(str(step) for step in self.steps)


def entity_of(record: Record) -> type[Any]:
    """The class that an ORM statement selects."""
    entity: type[Any] = record.sql.statement._propagate_attrs["plugin_subject"].class_
    return entity


def explicit_loaders(root: Record | None) -> list[str]:
    """The relationships for which the query that somebody wrote has a loader option."""
    options = getattr(getattr(root.sql, "statement", None), "_with_options", ()) if root else ()
    elements = [element for option in options for element in getattr(option, "context", ())]
    return [
        str(steps_of(tuple(element.path.path))[-1])
        for element in elements
        if getattr(element, "strategy", None) and isinstance(element.path.path[-2], RelationshipProperty)
    ]


def place(record: Record) -> Place:
    """The line and the statement, as something that can be compared."""
    site = record.site
    return (id(site.code), site.instruction) if site else (), record.text, record.load


def path_of(record: Record) -> tuple[Any, ...]:
    """SQLAlchemy's loader path of the statement: mapper, property, mapper, … or nothing."""
    options = getattr(getattr(record.sql, "statement", None), "_compile_options", None)
    path = getattr(options, "_current_path", None)
    return tuple(path.path) if path else ()


def steps_of(path: tuple[Any, ...]) -> Steps:
    """The relationships of a loader path."""
    return tuple(
        Step(entity.class_, prop.key, True)
        for entity, prop in zip(path[::2], path[1::2], strict=False)
        if isinstance(prop, RelationshipProperty)
    )


class Chains:
    """The loads of a profile, in the order of their first statement."""

    def __init__(self, profile: Recording) -> None:
        self._marks: list[int] = []
        self._owners: list[Owner] = []
        self._loads: dict[Any, Load] = {}
        self._found: dict[Any, Load] = {}
        """The same, by what two records of one load have in common."""
        self.others: list[Record] = []
        """The statements that load nothing for an instance that is there already."""
        for record in profile.records:
            self._add(record)
        if not profile.left_out:
            return
        by_place = {place(load.records[0]): load for load in self}
        for total in profile.overflow.values():
            if total.sample.load:
                load = by_place.get(place(total.sample)) or self._load(total.sample)
                if load is not None:
                    load.uncounted += total.count
                    load.uncounted_seconds += total.duration

    def __iter__(self) -> Iterator[Load]:
        return iter(self._loads.values())

    def drop(self, allowed: Callable[[Load, Record], bool]) -> None:
        """Forget the statements that are allowed."""
        for load in self._loads.values():
            load.records = [record for record in load.records if not allowed(load, record)]
            load.parents = {record.parent for record in load.records}
        self._loads = {key: load for key, load in self._loads.items() if load.records}

    def _add(self, record: Record) -> None:
        site = record.site
        if record.load and (site is None or site.call != "eager"):
            load = self._load(record)
            if load is None:
                return
            load.records.append(record)
            load.parents.add(record.parent)
            owner = load.owner
        elif path := path_of(record):
            owner = self._eager(record, path)
        else:
            self.others.append(record)
            owner = Owner(record, ())
        self._marks.append(record.mark)
        self._owners.append(owner)

    def _owner(self, record: Record) -> Owner:
        """Of the parent instance: the last statement whose mark is below the number of its load."""
        position = bisect_left(self._marks, record.parent_run) - 1
        return self._owners[position] if position >= 0 else UNKNOWN

    def _load(self, record: Record) -> Load | None:
        """The load that the record belongs to, made if it is the first."""
        owner = self._owner(record)
        common = id(owner), id(record.sql), _cause_key(record)
        load = self._found.get(common)
        if load is None and (load := self._new_load(record, owner)) is not None:
            self._found[common] = load
        return load

    def _new_load(self, record: Record, owner: Owner) -> Load | None:
        options = getattr(getattr(record.sql, "statement", None), "_compile_options", None)
        if options is None:
            return None
        if record.load == LAZY:
            steps, columns = self._chain(owner, path_of(record)), frozenset[str]()
        else:
            own = steps_of(path_of(record))
            longer = len(own) > len(owner.steps)
            steps = _known(own, owner.steps) if longer else through(owner, entity_of(record))
            columns = options._only_load_props or frozenset()
        root = owner.root
        key = (place(root) if root else None, tuple(map(str, steps)), columns, _cause_key(record))
        return self._loads.setdefault(key, Load(root, steps, columns))

    def _chain(self, owner: Owner, path: tuple[Any, ...]) -> Steps:
        """From the root's entity to the relationship that is loaded.

        The loader path holds all of it when the root has options of its own, else only the last step.
        """
        own = steps_of(path)
        lazy = own[-1]._replace(eager=False)
        if len(own) > len(owner.steps) + 1:
            return (*_known(own[:-1], owner.steps), lazy)
        if len(own) == len(owner.steps) + 1 and owner.steps:
            return (*owner.steps, lazy)
        return (*through(owner, lazy.entity), lazy)

    def _eager(self, record: Record, path: tuple[Any, ...]) -> Owner:
        """Whose eager load this is: of the parent instance, or of what was queried last."""
        opener = self._owner(record) if record.load else (self._owners or [UNKNOWN])[-1]
        own = steps_of(path)
        if opener.steps and own[0].entity is opener.steps[-1].relationship.mapper.class_ and len(own) == 1:
            own = (*opener.steps, *own)
        return Owner(opener.root, _known(own, opener.steps))


def _known(steps: Steps, loaded: Steps) -> Steps:
    """`steps`, each as eager as it was found to be."""
    lazy = {str(step) for step in loaded if not step.eager}
    return tuple(step._replace(eager=str(step) not in lazy) for step in steps)


def _cause_key(record: Record) -> Any:
    return record.site.call if record.load == COLUMNS and record.site else ""


def through(owner: Owner, wanted: type[Any]) -> Steps:
    """The owner's chain, led on through relationships that were joined, to an entity they reach."""
    if owner.steps:
        reached = owner.steps[-1].relationship.mapper
        return (*owner.steps, *_joined(reached, wanted))
    for mapper in _entities(owner.root):
        if issubclass(wanted, mapper.class_) or issubclass(mapper.class_, wanted):
            return ()
    for mapper in _entities(owner.root):
        if found := _joined(mapper, wanted):
            return found
    return ()


def _entities(root: Record | None) -> list[Mapper[Any]]:
    """Which entities the query asks for; kept with the compiled statement, which all executions share."""
    if root is None or isinstance(root.sql, str):
        return []
    known: list[Mapper[Any]] | None = root.sql.__dict__.get("_profilers_entities")
    if known is None:
        descriptions = getattr(root.sql.statement, "column_descriptions", None) or ()
        entities = (each["entity"] for each in descriptions if each.get("entity") is not None)
        known = [entity.__mapper__ for entity in entities if hasattr(entity, "__mapper__")]
        root.sql._profilers_entities = known
    return known


def _joined(mapper: Mapper[Any], wanted: type[Any], depth: int = MAX_EAGER_DEPTH) -> Steps:
    """The relationships mapped as joined that lead from one entity to another; the shortest way."""
    waiting: list[tuple[Mapper[Any], Steps]] = [(mapper, ())]
    while waiting:
        reached, steps = waiting.pop(0)
        if issubclass(wanted, reached.class_):
            return steps
        if len(steps) < depth:
            waiting += [
                (prop.mapper, (*steps, Step(reached.class_, prop.key, True)))
                for prop in reached.relationships
                if prop.lazy in ("joined", False)
            ]
    return ()
