"""``replay task``: one task. Each attempt with what it was given and from where, what it returned, why it failed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from virtflow.persistence.models.base import isoformat
from virtflow.replay.history import Attempt, attempts
from virtflow.replay.inputs import Input, inputs_of
from virtflow.replay.look.lines import DERIVED, RECORDED, Branch, clock, harmless, line, mark, one_line, span
from virtflow.replay.look.tree import attempt_dict
from virtflow.replay.recording import LedgerEntry, RecordedFlow, Recording

_LONG = 100
"""Characters from which on a value gets lines of its own."""


def task_page(
    recording: Recording, reference: str, logged: Sequence[str] = (), *, attempt: int | None = None
) -> Branch:
    """The page. ``attempt`` shows only that one; ``logged`` are lines of the log around it. Raises NotFound."""
    flow, atom = recording.find_task(reference)
    state = (f"  {atom.state}", "bold")
    root = line((f"{atom.kind} {atom.name}", "bold"), state, (f"  of {flow.kind} version {flow.version}", "dim"))
    root.add((_neighbours(flow, atom.name), "dim"))
    found = chosen(flow, atom.name, attempt)
    if not found:
        root.add("it has not run: see `virtflow replay why`", (f"  ({DERIVED})", "dim"))
    for each in found:
        root.children.append(_attempt(flow, each))
    for entry in ledger_of(recording, flow, atom.name):
        text = f"{entry.kind} {one_line(entry.identity)} on {entry.host}: {entry.state}"
        error = f", {one_line(entry.error)}" if entry.error else ""
        root.add(("announced  ", "bold"), f"{text}{error}", (f"  ({RECORDED}, {clock(entry.updated_at)})", "dim"))
    if logged:
        log = root.add(("log", "bold"), ("  (as it was written)", "dim"))
        for text in logged:
            log.add((one_line(text, 300), "dim"))
    return root


def task_dict(
    recording: Recording, reference: str, logged: Sequence[str] = (), *, attempt: int | None = None
) -> dict[str, Any]:
    """The same as plain data."""
    flow, atom = recording.find_task(reference)
    return {
        "name": atom.name,
        "kind": atom.kind,
        "version": atom.version,
        "flow": flow.kind,
        "flow_uuid": flow.uuid,
        "state": atom.state,
        "before": list(flow.graph.before(atom.name)),
        "after": list(flow.graph.after(atom.name)),
        "attempts": [_attempt_dict(flow, each) for each in chosen(flow, atom.name, attempt)],
        "ledger": [_entry_dict(entry) for entry in ledger_of(recording, flow, atom.name)],
        "log": list(logged),
    }


def chosen(flow: RecordedFlow, task: str, number: int | None) -> list[Attempt]:
    """The attempts of a task, or those of one number, both directions."""
    return [each for each in attempts(flow, task) if number is None or each.number == number]


def ledger_of(recording: Recording, flow: RecordedFlow, task: str) -> list[LedgerEntry]:
    """What a task announced."""
    return [entry for entry in recording.ledger if (entry.flow, entry.task) == (flow.uuid, task)]


def _neighbours(flow: RecordedFlow, name: str) -> str:
    if not flow.graph.recorded:
        return "the graph of this flow was not recorded"
    before, after = flow.graph.before(name), flow.graph.after(name)
    return f"after {', '.join(before) or 'nothing'}; before {', '.join(after) or 'nothing'}"


def _attempt(flow: RecordedFlow, attempt: Attempt) -> Branch:
    what = "execute" if attempt.direction == "do" else "revert"
    took = span(attempt.duration) if attempt.duration is not None else "not over"
    when = f"  {clock(attempt.started_at)}, {took}, on {attempt.host}, epoch {attempt.epoch}"
    branch = line(mark(attempt.state), (f" {what} {attempt.number}: {attempt.state}", "bold"), (when, "dim"))
    if attempt.remark is not None:
        branch.add((one_line(attempt.remark, 300), "yellow"), (f"  ({RECORDED})", "dim"))
    for given in inputs_of(flow, attempt):
        _value(branch, f"{given.argument} = ", given.value, _where(given), known=given.known)
    if attempt.state == "SUCCESS" and attempt.direction == "do":
        _value(branch, "returned ", attempt.result, RECORDED)
    if attempt.error is not None:
        _failure(branch, attempt)
    return branch


def _where(given: Input) -> str:
    if not given.known:
        return "live when it ran, not recorded" if given.origin == "service" else f"{given.source}, not recorded"
    return f"{RECORDED}; {DERIVED}: {given.source}"


def _value(branch: Branch, name: str, value: Any, where: str, *, known: bool = True) -> None:
    if not known:
        branch.add((name, "bold"), (f"({where})", "dim"))
        return
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) <= _LONG and "\n" not in text:
        shown = json.dumps(value, ensure_ascii=False)
        branch.add((name, "bold"), harmless(shown), (f"  ({where})", "dim"))
        return
    below = branch.add((name, "bold"), (f"({where})", "dim"))
    full = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    for text in harmless(full).rstrip().split("\n"):
        below.add(text)


def _failure(branch: Branch, attempt: Attempt) -> None:
    failure = attempt.failure or {}
    below = branch.add(("error  ", "bold red"), one_line(attempt.error, 1000), (f"  ({RECORDED})", "dim"))
    names = failure.get("exc_type_names")
    if isinstance(names, list) and names:
        below.add((f"a {one_line(names[0], 120)}", "dim"))
    for text in harmless(str(failure.get("traceback_str") or "")).rstrip().split("\n"):
        if text:
            below.add((text, "dim"))
    causes = failure.get("causes")
    for cause in causes if isinstance(causes, list) else ():
        if isinstance(cause, Mapping):
            below.add(("because of  ", "red"), one_line(cause.get("exception_str", ""), 1000))


def _attempt_dict(flow: RecordedFlow, attempt: Attempt) -> dict[str, Any]:
    given = [
        {
            "argument": each.argument,
            "name": each.name,
            "origin": each.origin,
            "source": each.source,
            "label": RECORDED if each.known else LIVE_THEN,
            "value": each.value,
        }
        for each in inputs_of(flow, attempt)
    ]
    plain = attempt_dict(attempt) | {"label": RECORDED, "inputs": given, "result": attempt.result}
    return plain | {"failure": None if attempt.failure is None else dict(attempt.failure)}


LIVE_THEN = "not recorded"
"""Of an argument that was a live object when the task ran."""


def _entry_dict(entry: LedgerEntry) -> dict[str, Any]:
    names = ("kind", "identity", "host", "state", "error", "detail")
    return {name: getattr(entry, name) for name in names} | {"at": isoformat(entry.updated_at), "label": RECORDED}
