"""Two operations side by side: where they part, and what was different before.

Names that are different in every operation (uuids, taps, MAC addresses, paths with uuids in them) are made alike first;
what is left is a difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any

from virtflow.errors import NotFound
from virtflow.persistence.database import Database
from virtflow.persistence.operations import SUCCESS, OperationRepository
from virtflow.replay.reading import read
from virtflow.replay.recording import Event, RecordedFlow, Recording

_OWN_NAMES = (
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "<uuid>"),
    (re.compile(r"\bvf[0-9a-f]{11}\b"), "<tap>"),
    (re.compile(r"\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b"), "<mac>"),
)
_SLOWER = 2.0
"""How many times longer a task must have taken,"""
_BY = 250_000
"""and by how many microseconds more, for the difference to be shown."""
_TOLD = ("SUCCESS", "FAILURE", "REVERTED")


@dataclass(frozen=True)
class Difference:
    """``what``: first divergence, outcome, error, input, result, task, duration. A value that is not there is None."""

    what: str
    task: str
    name: str
    first: Any
    second: Any


def last_good(database: Database, recording: Recording) -> Recording:
    """The last operation of the same kind that succeeded, other than this one; before it if there is one. NotFound."""
    own = recording.operation
    found = OperationRepository(database).list(kind=own.kind, outcome=SUCCESS, limit=1000)
    others = [each for each in found if each.id != own.id]
    before = [each for each in others if each.created_at < own.created_at]
    if not others:
        raise NotFound(kind="successful operation of kind", name=own.kind)
    return read(database, (before or others)[0].id)


def difference(first: Recording, second: Recording) -> list[Difference]:
    """All differences, the first divergence at the top."""
    return [
        *_divergence(first, second),
        *_parts("operation", first.operation, second.operation, ("kind", "version", "outcome", "error")),
        *_inputs(first, second),
        *_tasks(first, second),
    ]


def _divergence(first: Recording, second: Recording) -> Iterator[Difference]:
    """The first event, flow by flow and task by task, that the other does not have there.

    Tasks that run side by side may start in any order: each task's own events are compared, and of all tasks that part
    the one that did so first is named.
    """
    places = {_key(event): place for each in (first, second) for place, event in enumerate(each.events)}
    parted = []
    for one, other in _paired(first, second):
        flow = one or other
        assert flow is not None
        for task in _names(one, other):
            for left, right in zip_longest(_events(one, task), _events(other, task)):
                if left is None or right is None or _told(left) != _told(right):
                    # Up to here both have done the same, so places in one and in the other can be compared.
                    place = places[_key(right)] if right is not None else places[_key(left)] if left is not None else 0
                    parted.append((place, Difference("first divergence", task, flow.kind, _line(left), _line(right))))
                    break
    if parted:
        yield min(parted, key=lambda each: each[0])[1]


def _paired(first: Recording, second: Recording) -> Iterator[tuple[RecordedFlow | None, RecordedFlow | None]]:
    """Flows of the same kind, in the order in which they began."""
    kinds = dict.fromkeys(flow.kind for flow in (*first.flows, *second.flows))
    for kind in kinds:
        yield from zip_longest(*([f for f in each.flows if f.kind == kind] for each in (first, second)))


def _names(one: RecordedFlow | None, other: RecordedFlow | None) -> list[str]:
    return list(dict.fromkeys(atom.name for flow in (one, other) if flow is not None for atom in flow.atoms))


def _events(flow: RecordedFlow | None, task: str) -> tuple[Event, ...]:
    return () if flow is None else flow.events_of(task)


def _key(event: Event) -> tuple[str, int]:
    return event.flow, event.sequence


def _told(event: Event) -> tuple[str, int, str | None]:
    return event.event, event.attempt, _error(event)


def _error(event: Event | None) -> str | None:
    if event is None or not isinstance(event.data, Mapping) or not event.data.get("failure"):
        return None
    return str(_alike(event.data["failure"].get("exception_str")))


def _line(event: Event | None) -> str | None:
    if event is None:
        return None
    attempt = f" (attempt {event.attempt})" if event.attempt > 1 else ""
    error = _error(event)
    return f"{event.event}{attempt}{f': {error}' if error else ''}"


def _parts(what: str, first: Any, second: Any, names: tuple[str, ...]) -> Iterator[Difference]:
    for name in names:
        left, right = getattr(first, name), getattr(second, name)
        if _alike(left) != _alike(right):
            yield Difference(what, "", name, left, right)


def _inputs(first: Recording, second: Recording) -> Iterator[Difference]:
    for one, other in _paired(first, second):
        if one is not None and other is not None:
            yield from _values("input", one.kind, one.inputs, other.inputs)


def _tasks(first: Recording, second: Recording) -> Iterator[Difference]:
    for one, other in _paired(first, second):
        for task in _names(one, other):
            if one is None or other is None or task not in one.by_name or task not in other.by_name:
                there = [flow.by_name[task].state if flow and task in flow.by_name else None for flow in (one, other)]
                yield Difference("task", task, "", there[0], there[1])
                continue
            yield from _values("result", task, _result(one, task), _result(other, task))
            yield from _durations(task, _spent(one, task), _spent(other, task))


def _result(flow: RecordedFlow, task: str) -> Any:
    """The last result of a task, also of one that was reverted since."""
    results = [event.data.get("result") for event in flow.events_of(task) if event.event == "SUCCESS" and event.data]
    return results[-1] if results else None


def _values(what: str, task: str, first: Any, second: Any) -> Iterator[Difference]:
    left, right = dict(_flat("", first)), dict(_flat("", second))
    if first is None or second is None:  # one did not come so far: that is told by the divergence
        return
    for name in dict.fromkeys((*left, *right)):
        if _alike(left.get(name)) != _alike(right.get(name)):
            yield Difference(what, task, name, *_apart(left.get(name), right.get(name)))


def _apart(first: Any, second: Any) -> tuple[Any, Any]:
    """Of two texts of many lines (domain XML) only the lines that differ."""
    if not (isinstance(first, str) and isinstance(second, str) and "\n" in first + second):
        return first, second
    one, other = first.splitlines(), second.splitlines()
    differ = SequenceMatcher(None, list(map(_alike, one)), list(map(_alike, other)), autojunk=False)
    apart = [codes[1:] for codes in differ.get_opcodes() if codes[0] != "equal"]
    left = [line for begin, end, _from, _to in apart for line in one[begin:end]]
    right = [line for _from, _to, begin, end in apart for line in other[begin:end]]
    return "\n".join(left), "\n".join(right)


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Each value within a value, by its path."""
    if isinstance(value, Mapping) and value:
        for key, part in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), part)
    elif isinstance(value, list | tuple) and value:
        for place, part in enumerate(value):
            yield from _flat(f"{name}[{place}]", part)
    else:
        yield name, value


def _alike(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    for pattern, stand_in in _OWN_NAMES:
        value = pattern.sub(stand_in, value)
    return value


def _spent(flow: RecordedFlow, task: str) -> int | None:
    """Microseconds of the last execute that came to an end."""
    begun = spent = None
    for event in flow.events_of(task):
        if event.event == "RUNNING":
            begun = event.at
        elif event.event in _TOLD and begun is not None:
            spent, begun = event.at - begun, None
    return spent


def _durations(task: str, first: int | None, second: int | None) -> Iterator[Difference]:
    if first is None or second is None or abs(first - second) < _BY:
        return
    if max(first, second) >= _SLOWER * min(first, second):
        yield Difference("duration", task, "seconds", round(first / 1e6, 3), round(second / 1e6, 3))
