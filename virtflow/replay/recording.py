"""A recording: everything that is known of one operation, as plain data.

It comes from the live database (``reading``) or from an exported file (``files``); whatever looks at it, plays it or
compares it does not know which. Times are microseconds since the epoch. Every fact in it was recorded when it happened;
what is worked out from it is in other modules, and says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

from virtflow.errors import BadRecording, NotFound

FORMAT = 1
"""Of exported files. A later format may add fields: an older virtflow says so and does not guess."""

_LATEST = 253_402_300_799_000_000
"""The end of the year 9999, in microseconds."""
_STRICT = {"extra": "forbid", "strict": True, "allow_inf_nan": False}


@dataclass(frozen=True)
class Event:
    """One row of the journal. ``atom`` is None for what happened to the flow; ``sequence`` counts within the flow.

    ``event`` is TaskFlow's word for the new state, or CANCEL_ASKED. ``data`` depends on it: a task's SUCCESS has
    ``result``, its FAILURE ``failure``, a REVERTED may have ``debt``; a flow's RUNNING has ``code``, ``pid``,
    ``undoing``, ``cancelled`` and, the first time, ``graph``.
    """

    __pydantic_config__: ClassVar[Any] = _STRICT

    at: int
    flow: str
    sequence: int
    atom: str | None
    event: str
    attempt: int
    epoch: int
    host: str | None
    data: Any = None


@dataclass(frozen=True)
class GraphNode:
    """A task or retry as its flow had it.

    ``requires`` and ``revert_requires``: the name of the stored value, by argument. ``provides``: where in the result a
    value is, by its name (None: it is the result). ``sources``: by argument, the atoms that may provide it, nearest
    first; an argument that is not in it comes from the flow's inputs or is a service.
    """

    __pydantic_config__: ClassVar[Any] = _STRICT

    name: str
    kind: Literal["task", "retry"]
    version: str | None
    requires: Mapping[str, str] = field(default_factory=dict)
    revert_requires: Mapping[str, str] = field(default_factory=dict)
    provides: Mapping[str, int | str | None] = field(default_factory=dict)
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class RecordedGraph:
    """``nodes`` in the order of the flow; ``edges`` are (before, after). ``recorded`` is False when it was not stored
    and only the names of the tasks are known.
    """

    __pydantic_config__: ClassVar[Any] = _STRICT

    nodes: tuple[GraphNode, ...]
    edges: tuple[tuple[str, str], ...]
    recorded: bool = True

    @cached_property
    def by_name(self) -> dict[str, GraphNode]:
        return {node.name: node for node in self.nodes}

    def before(self, name: str) -> tuple[str, ...]:
        """The atoms that come directly before one."""
        return tuple(first for first, second in self.edges if second == name)

    def after(self, name: str) -> tuple[str, ...]:
        """The atoms that come directly after one."""
        return tuple(second for first, second in self.edges if first == name)


@dataclass(frozen=True)
class RecordedAtom:
    """A task or retry as it was left: ``state`` and ``intention`` are TaskFlow's. Earlier results are in the events."""

    __pydantic_config__: ClassVar[Any] = _STRICT

    name: str
    kind: Literal["task", "retry"]
    version: str | None
    state: str
    intention: str | None
    results: Any = None
    failure: Mapping[str, Any] | None = None
    revert_results: Any = None
    revert_failure: Mapping[str, Any] | None = None
    meta: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class RecordedFlow:
    """A parent flow or a segment. ``host`` is where it was made; each event says where it happened."""

    __pydantic_config__: ClassVar[Any] = _STRICT

    uuid: str
    kind: str
    version: int
    host: str | None
    state: str | None
    created_at: int
    inputs: Mapping[str, Any]
    graph: RecordedGraph
    atoms: tuple[RecordedAtom, ...]
    events: tuple[Event, ...]

    @cached_property
    def by_name(self) -> dict[str, RecordedAtom]:
        return {atom.name: atom for atom in self.atoms}

    def events_of(self, atom: str | None) -> tuple[Event, ...]:
        """What happened to one atom, or to the flow itself."""
        return self._by_atom.get(atom, ())

    @cached_property
    def _by_atom(self) -> dict[str | None, tuple[Event, ...]]:
        found: dict[str | None, list[Event]] = {}
        for event in self.events:
            found.setdefault(event.atom, []).append(event)
        return {atom: tuple(events) for atom, events in found.items()}


@dataclass(frozen=True)
class RecordedOperation:
    __pydantic_config__: ClassVar[Any] = _STRICT

    id: str
    number: int
    kind: str
    version: int
    target: str
    project: str
    state: str
    outcome: str | None
    error: str | None
    request: Mapping[str, Any]
    cancel_requested: bool
    created_at: int
    started_at: int | None
    finished_at: int | None
    parent: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class LedgerEntry:
    """Something that a task announced before it made it. State: INTENDED, PRESENT, CLEARED, DEBT."""

    __pydantic_config__: ClassVar[Any] = _STRICT

    flow: str
    task: str
    kind: str
    identity: str
    host: str
    state: str
    detail: Mapping[str, Any] | None
    error: str | None
    attempts: int
    created_at: int
    updated_at: int


@dataclass(frozen=True)
class RecordedClaim:
    """Who held the operation (or one of its segments) last. Who held it before is in the events: epoch and host."""

    __pydantic_config__: ClassVar[Any] = _STRICT

    subject: str
    epoch: int
    owner: str | None
    touched_at: int


@dataclass(frozen=True)
class RelatedOperation:
    """``relation``: what it is to the recorded one: parent, child, group, or later (on the same target)."""

    __pydantic_config__: ClassVar[Any] = _STRICT

    relation: Literal["parent", "child", "group", "later"]
    id: str
    number: int
    kind: str
    target: str
    state: str
    outcome: str | None


@dataclass(frozen=True)
class Recording:
    """``virtflow_version`` is that which read the database, at ``exported_at``; the parent flow is the first flow."""

    __pydantic_config__: ClassVar[Any] = _STRICT

    format: int
    virtflow_version: str
    exported_at: int
    operation: RecordedOperation
    flows: tuple[RecordedFlow, ...]
    ledger: tuple[LedgerEntry, ...] = ()
    claims: tuple[RecordedClaim, ...] = ()
    related: tuple[RelatedOperation, ...] = ()
    redacted: bool = False

    @cached_property
    def events(self) -> tuple[Event, ...]:
        """All events in the order in which they happened; within a flow its own order holds, whatever clocks say."""
        keyed = []
        for place, flow in enumerate(self.flows):
            latest = 0
            for event in flow.events:
                latest = max(latest, event.at)
                keyed.append((latest, place, event.sequence, event))
        keyed.sort(key=lambda entry: entry[:3])
        return tuple(entry[3] for entry in keyed)

    @cached_property
    def by_uuid(self) -> dict[str, RecordedFlow]:
        return {flow.uuid: flow for flow in self.flows}

    def find_task(self, reference: str) -> tuple[RecordedFlow, RecordedAtom]:
        """A task by ``Name``, ``flow/Name`` (a flow's kind, or the beginning of its uuid), in any case of letters.

        Where several segments have a task of that name, the latest one that did anything is meant. Raises NotFound.
        """
        flow_part, _, name = reference.rpartition("/")
        found = [
            (flow, atom)
            for flow in self.flows
            for atom in flow.atoms
            if atom.name.lower() == name.lower()
            and (not flow_part or flow.kind == flow_part or (len(flow_part) >= 4 and flow.uuid.startswith(flow_part)))
        ]
        if not found:
            raise NotFound(kind="task", name=reference)
        touched = [(flow, atom) for flow, atom in found if flow.events_of(atom.name)]
        return (touched or found)[-1]


def to_plain(value: Any) -> Any:
    """The recording, or any part of it, as what JSON has."""
    if is_dataclass(value):
        return {each.name: to_plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, tuple | list):
        return [to_plain(entry) for entry in value]
    if isinstance(value, Mapping):
        return {key: to_plain(entry) for key, entry in value.items()}
    return value


def from_plain(plain: Any, source: str = "data") -> Recording:
    """A recording from plain data, each field checked. Raises BadRecording, naming the field."""
    import json

    return from_json(json.dumps(plain), source)


def from_json(text: str | bytes, source: str = "data") -> Recording:
    """The same from JSON. ``source`` is what the error calls it."""
    from pydantic import TypeAdapter, ValidationError

    try:
        recording: Recording = TypeAdapter(Recording).validate_json(text)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        raise BadRecording(source=source, reason="; ".join(_problems(problems[:3]))) from None
    if not all(0 <= time <= _LATEST for time in _times(recording)):
        raise BadRecording(source=source, reason="it has times that no clock shows")
    return recording


def _times(recording: Recording) -> Iterator[int]:
    whole = recording.operation
    yield from (recording.exported_at, whole.created_at, whole.started_at or 0, whole.finished_at or 0)
    for flow in recording.flows:
        yield flow.created_at
        yield from (event.at for event in flow.events)
    for entry in recording.ledger:
        yield from (entry.created_at, entry.updated_at)
    yield from (claim.touched_at for claim in recording.claims)


def _problems(problems: list[Any]) -> Iterator[str]:
    for problem in problems:
        where = ".".join(map(str, problem["loc"]))[:120] or "the whole"
        yield f"{where}: {problem['msg'].lower()}"
