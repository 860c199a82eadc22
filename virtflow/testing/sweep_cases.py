"""What a sweep tries: cases generated from the graphs of a flow, so that a new task is covered by existing."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import networkx
from taskflow.engines.action_engine import compiler
from taskflow.retry import Retry

from virtflow.engine.taskflow_engine import Template
from virtflow.flows.kind import FlowKind
from virtflow.flows.registry import Registry
from virtflow.persistence import operations as ops
from virtflow.tasks.segments import OnHost
from virtflow.testing.scenario import Scenario

_MOMENT = re.compile(r"moment/(?P<seconds>[0-9.]+)/(?P<verb>resume|cancel)")
_WRITE = re.compile(r"(?P<failing>failing-)?write/(?P<number>\d+)/(?P<when>before|after)(\+(?P<second>\d+))?")


@dataclass(frozen=True)
class Case:
    """One thing to try. ``faults[n]`` is what the n-th process meets; where that kills it, the next one goes on with
    the verb ``then``, and meets ``lasting`` in the end."""

    name: str
    faults: tuple[str, ...]
    outcome: str
    then: str = "resume"
    lasting: str = ""
    kill_after: float | None = None
    """Seconds after which the first process is killed, wherever it is."""
    optional: bool = False
    """Whether the operation may end before the fault is met (the number of writes is not known beforehand)."""


@dataclass(frozen=True)
class SweptTask:
    """A task of the operation. ``early``: it has run when ``early_failure`` fails.

    ``decides``: it is a retry. It makes nothing and has no fault points; that a process may die while it decides is for
    the sweep over all writes.
    """

    flow: str
    task: str
    early: bool = False
    decides: bool = False


def tasks_of(scenario: Scenario) -> list[SweptTask]:
    """Every task of the operation's parent flow and of its segments, as the registry builds them today."""
    registry = scenario.registry()
    kind = registry.newest(scenario.kind)
    shape = kind.shape({"request": scenario.request().to_plain()})
    found = _tasks_of_flow(kind, shape, registry, scenario)
    names = [swept.task for swept in found]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"fault points are named after tasks, but there are two of {', '.join(sorted(twice))}")
    return found


def _tasks_of_flow(kind: FlowKind, shape: Hashable, registry: Registry, scenario: Scenario) -> list[SweptTask]:
    graph = Template(kind.build(shape)).compilation.execution_graph
    atoms = [node for node, data in graph.nodes(data=True) if data["kind"] in compiler.ATOMS]
    segments = {}
    for atom in atoms:
        if isinstance(atom, OnHost) and atom.segment not in scenario.absent:
            segment = registry.newest(atom.segment)
            inner = scenario.shapes.get(segment.name, segment.shapes[0])
            segments[atom] = _tasks_of_flow(segment, inner, registry, scenario)
    failing = [
        atom
        for atom in atoms
        if atom.name == scenario.early_failure or any(swept.early for swept in segments.get(atom, ()))
    ]
    early = set(failing).union(*(networkx.ancestors(graph, atom) for atom in failing))
    return [
        *(SweptTask(kind.name, atom.name, atom in early, isinstance(atom, Retry)) for atom in atoms),
        *(swept for tasks in segments.values() for swept in tasks),
    ]


def run_cases(tasks: Sequence[SweptTask], last: str, early_failure: str | None = None) -> Iterator[Case]:
    """Every fault at every one of these tasks of an operation that runs; ``last`` is its last task."""
    for swept in tasks:
        task = swept.task
        name = f"{swept.flow}/{task}"
        failure = f"{early_failure if swept.early else last}:after:raise"
        for when in ("before", "after"):
            yield Case(f"{name}/raise-{when}", (f"{task}:{when}:raise",), ops.REVERTED)
            yield Case(f"{name}/kill-{when}", (f"{task}:{when}:kill",), ops.SUCCESS)
        yield Case(f"{name}/kill-then-cancel", (f"{task}:after:kill",), ops.CANCELLED, then="cancel")
        yield Case(f"{name}/twice", (f"{task}:before:repeat",), ops.SUCCESS)
        for when in ("before", "after"):
            faults = f"{task}.revert:{when}:kill;{failure}"
            yield Case(f"{name}/revert-kill-{when}", (faults,), ops.REVERTED)
        for fault, action, outcome in _REVERT_FAULTS:
            faults = f"{task}.revert:before:{action};{failure}"
            yield Case(f"{name}/{fault}", (faults,), outcome or ops.REVERTED)


def undo_cases(tasks: Sequence[SweptTask]) -> Iterator[Case]:
    """Every fault at every task of a finished operation that is undone."""
    for swept in tasks:
        name = f"{swept.flow}/{swept.task}"
        for when in ("before", "after"):
            yield Case(f"{name}/revert-kill-{when}", (f"{swept.task}.revert:{when}:kill",), ops.UNDONE)
        # The other ways in which a revert can fail differ in nothing from those of an operation that fails.
        faults = f"{swept.task}.revert:before:raise:3"
        yield Case(f"{name}/revert-always-fails", (faults,), ops.REVERTED_WITH_DEBT)


def purge_cases(tasks: Sequence[SweptTask]) -> Iterator[Case]:
    """Every fault at every one of these tasks of a purge, which only goes forward."""
    for swept in tasks:
        name = f"{swept.flow}/{swept.task}"
        for when in ("before", "after"):
            yield Case(f"{name}/fails-{when}", (f"{swept.task}:{when}:raise",), ops.FAILED_FORWARD)
            yield Case(f"{name}/kill-{when}", (f"{swept.task}:{when}:kill",), ops.SUCCESS)
        yield Case(f"{name}/twice", (f"{swept.task}:before:repeat",), ops.SUCCESS)


def task_cases(scenario: Scenario) -> list[Case]:
    """Every case of every task."""
    tasks = tasks_of(scenario)
    swept = [task for task in tasks if task.task not in scenario.besides and not task.decides]
    if scenario.purge:
        return list(purge_cases(swept))
    return list(undo_cases(swept) if scenario.undo else run_cases(swept, _last(tasks), scenario.early_failure))


def find_case(scenario: Scenario, name: str) -> Case:
    """By name: of a task, of a write (see ``write_case``), or ``moment/SECONDS/resume|cancel``. Raises ValueError."""
    for case in task_cases(scenario):
        if case.name == name:
            return case
    moment = _MOMENT.fullmatch(name)
    if moment is not None:
        outcome = ops.UNDONE if scenario.undo else ops.CANCELLED if moment["verb"] == "cancel" else ops.SUCCESS
        seconds = float(moment["seconds"])
        return Case(name, ("",), outcome, then=moment["verb"], kill_after=seconds, optional=True)
    return write_case(tasks_of(scenario), name, undo=scenario.undo)


def write_case(tasks: Sequence[SweptTask], name: str, *, undo: bool) -> Case:
    """The case called ``[failing-]write/N/before|after[+M]``: killed at the N-th durable write (and M-th of recovery).

    Raises ValueError for another name.
    """
    found = _WRITE.fullmatch(name)
    if found is None:
        raise ValueError(f"there is no case {name!r}")
    outcome = ops.UNDONE if undo else ops.SUCCESS
    lasting = ""
    if found["failing"]:
        outcome = ops.REVERTED
        lasting = f"{_last(tasks)}:after:raise"
    numbers = [number for number in (found["number"], found["second"]) if number]
    faults = tuple(f"write:{number}:{found['when']}:kill;{lasting}" for number in numbers)
    return Case(name, faults, outcome, lasting=lasting, optional=True)


def _last(tasks: Sequence[SweptTask]) -> str:
    """The task after which everything has been done."""
    parent = tasks[0].flow
    return [swept.task for swept in tasks if swept.flow == parent][-1]


_REVERT_FAULTS = (
    ("revert-twice", "repeat", None),
    ("revert-fails-once", "raise", None),
    ("revert-always-fails", "raise:3", ops.REVERTED_WITH_DEBT),
)
"""Name, what happens, and the outcome where it is not the usual one. Three is how often a revert is tried."""
