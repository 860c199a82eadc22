"""What an attempt was given, and where each value came from.

Values are not recorded twice: the graph that was recorded says which task provides what, and that task's own recorded
result is the value. So the value is recorded, and which one it was is derived from graph and journal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from virtflow.replay.history import DO, Attempt
from virtflow.replay.recording import Event, RecordedFlow

Origin = Literal["task", "inputs", "service", "engine"]
_ENGINES_OWN = ("history", "flow_failures", "result")


@dataclass(frozen=True)
class Input:
    """One argument. ``name`` is that of the stored value.

    ``origin``: a ``task`` or retry of this flow (then ``task``, and which ``attempt`` of it), the flow's ``inputs`` (of
    the parent flow: request, project, operation; of a segment: what its parent passed on), a live ``service``, which is
    not recorded, or the ``engine`` itself. ``known`` is False where there is no value to show.
    """

    argument: str
    name: str
    origin: Origin
    task: str | None = None
    attempt: int | None = None
    known: bool = False
    value: Any = None

    @property
    def source(self) -> str:
        """For people."""
        if self.origin == "task":
            again = f", attempt {self.attempt}" if self.attempt and self.attempt > 1 else ""
            return f"result of {self.task}{again}"
        return {"inputs": "input of the flow", "service": "service", "engine": "the engine"}[self.origin]


def inputs_of(flow: RecordedFlow, attempt: Attempt) -> tuple[Input, ...]:
    """The arguments of one attempt, in either direction. Empty when the flow's graph was not recorded."""
    node = flow.graph.by_name.get(attempt.task)
    if node is None:
        return ()
    names = node.requires if attempt.direction == DO else node.revert_requires
    return tuple(_input(flow, attempt, argument, name) for argument, name in names.items())


def _providers(flow: RecordedFlow, attempt: Attempt, name: str) -> Sequence[str]:
    node = flow.graph.by_name[attempt.task]
    for argument, required in node.requires.items():
        if required == name:
            return node.sources.get(argument, ())
    return tuple(other.name for other in flow.graph.nodes if name in other.provides and other.name != node.name)


def _input(flow: RecordedFlow, attempt: Attempt, argument: str, name: str) -> Input:
    providers = _providers(flow, attempt, name)
    for provider in providers:
        success = _latest_result(flow, provider, attempt.began.sequence)
        if success is not None:
            known, value = _part(success, flow.graph.by_name[provider].provides.get(name))
            return Input(argument, name, "task", provider, success.attempt, known, value)
    if name in flow.inputs:
        return Input(argument, name, "inputs", known=True, value=flow.inputs[name])
    if providers:
        return Input(argument, name, "task", providers[0])
    if name in _ENGINES_OWN:
        return Input(argument, name, "engine")
    return Input(argument, name, "service")


def _latest_result(flow: RecordedFlow, provider: str, before: int) -> Event | None:
    """The last success of a task before an event; a revert or a reset in between takes it away."""
    latest = None
    for event in flow.events_of(provider):
        if event.sequence >= before:
            break
        if event.event == "SUCCESS":
            latest = event
        elif event.event in ("REVERTED", "PENDING", "FAILURE"):
            latest = None
    return latest


def _part(success: Event, place: int | str | None) -> tuple[bool, Any]:
    result = success.data.get("result") if isinstance(success.data, Mapping) else None
    if place is None:
        return True, result
    try:
        return True, result[place]  # type: ignore[index]
    except (LookupError, TypeError):
        return False, None
