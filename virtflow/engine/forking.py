"""A new operation made from a recorded one, which need not do again what still holds.

A result is kept when the new operation would ask the task exactly the same (equal arguments, services aside), and the
task itself says, on the live host, that what the result stands for is there (``Task.verify``). By default a task that
announces things in the ledger makes them again: they are the other operation's, marked with its id, and whatever was
made is found by an execute that is safe to run twice (a base image in the cache is not fetched again). Identities
follow from the operation's id, so a fork has its own instance, directory, taps and domain, and takes nobody's away.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from virtflow.errors import Conflict, InvalidRequest
from virtflow.persistence import operations as ops
from virtflow.persistence.operations import Operation, new_operation

if TYPE_CHECKING:
    from virtflow.engine.run import FlowRun
    from virtflow.engine.runner import Runner
    from virtflow.engine.stepping import Gate
    from virtflow.requests import Request
    from virtflow.tasks.base import Task

KEPT = "KEPT"
"""The journal's event of a task whose earlier result was kept."""
REMADE = "REMADE"
"""The journal's event of a task that is executed although there was an earlier result; ``reason`` says why."""


@dataclass(frozen=True)
class EarlierResult:
    """What a task returned, and the plain data it was given."""

    arguments: Mapping[str, Any]
    result: Any


class KeptResults:
    """The earlier results that a fork may keep, by flow and task. ``source`` is the operation that they are from."""

    def __init__(self, source: str, results: Mapping[tuple[str, str], EarlierResult]) -> None:
        self._source = source
        self._results = results

    def find(self, flow_run: FlowRun, task: Task, arguments: Mapping[str, Any]) -> EarlierResult | None:
        """The result to keep, re-checked now; or None, and the journal says why it is made again."""
        earlier = self._results.get((flow_run.name, task.name))
        if earlier is None:
            return None
        reason = self._outdated(earlier, task, arguments)
        about = {"from": self._source} | ({} if reason is None else {"reason": reason})
        flow_run.transition(task.name, KEPT if reason is None else REMADE, about)
        return earlier if reason is None else None

    def _outdated(self, earlier: EarlierResult, task: Task, arguments: Mapping[str, Any]) -> str | None:
        changed = sorted(name for name, value in earlier.arguments.items() if arguments.get(name) != value)
        if changed:
            return f"it is given another {', '.join(changed)}"
        try:
            there = task.verify(earlier.result, **arguments)
        except Exception as error:  # noqa: BLE001 - what cannot be checked is made again
            return f"it cannot be checked: {type(error).__name__}"
        return None if there else "what it made is not there for this operation"


def fork(
    runner: Runner,
    source: Operation,
    results: Mapping[tuple[str, str], EarlierResult],
    changes: Mapping[str, Any],
    *,
    parse: Callable[[str, Mapping[str, Any]], Request],
    gate: Gate | None = None,
) -> Operation:
    """Run a recorded operation's request once more, as a new operation. How it ended is no error here.

    ``changes`` are new values by the path of a field of the request (``networks[0].network`` is not one: a whole field,
    or a part of a mapping). Raises InvalidRequest; Conflict where the other one is not finished; Busy.
    """
    from virtflow.engine.stepping import go_on

    if source.state != ops.FINISHED:
        reason = f"it is {source.state}: cancel it, or go on with it"
        raise Conflict(action="fork", kind="operation", name=source.number, reason=reason)
    request = changed_request(source.request, changes)
    _refuse_secrets(source, request)
    checked = parse(source.kind, request)
    kind = runner.templates.registry.newest(source.kind)
    operation = new_operation(
        kind.name, kind.version, checked.target(), checked.to_plain(), source.project, parent=source.id
    )
    seal = runner.services["secrets"].seal
    runner.operations.create(operation, None, [seal(operation.id, *secret) for secret in checked.secrets().items()])
    return go_on(runner, runner.operations.get(operation.id, tasks=False), gate, kept=KeptResults(source.id, results))


def changed_request(request: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The request with new values. InvalidRequest for a field that it does not have."""
    changed = copy.deepcopy(dict(request))
    for path, value in changes.items():
        *way, last = path.split(".")
        place: Any = changed
        for name in way:
            place = place.get(name) if isinstance(place, dict) else None
        if not isinstance(place, dict) or (not way and last not in place):
            raise InvalidRequest(field=path[:80], reason="the request has no such field")
        place[last] = value
    return changed


def value_of(text: str) -> Any:
    """A value as it is given on a command line: JSON where it is JSON, text otherwise."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _refuse_secrets(source: Operation, request: Mapping[str, Any]) -> None:
    from virtflow.requests.models import MARKER

    gone = sorted(name for name, value in request.items() if isinstance(value, Mapping) and set(value) == {MARKER})
    if gone:
        reason = f"{', '.join(gone)} was a secret, purged at its end: give it anew with --set, or make a new request"
        raise Conflict(action="fork", kind="operation", name=source.number, reason=reason)
