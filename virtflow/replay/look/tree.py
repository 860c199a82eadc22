"""``replay show``: the operation on one screen. The cause comes first, then who ran it, then every task, both lanes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from virtflow.persistence.models.base import isoformat
from virtflow.replay.history import DO, Attempt, Ownership, error_of, failures, first_cause, ownerships
from virtflow.replay.look.lines import DERIVED, RECORDED, Branch, Span, clock, line, mark, one_line, span
from virtflow.replay.look.tasks import FlowLines, TaskLine, flow_lines, folded
from virtflow.replay.recording import Event, Recording

_OUTCOMES = {"SUCCESS": "bold green", "UNDONE": "green", None: "cyan"}


def tree(recording: Recording, *, everything: bool = False) -> Branch:
    """The screen; ``everything`` folds nothing."""
    root = line(*_title(recording))
    _cause(root, recording)
    for owner in _owners(recording):
        root.add(*_owner(owner))
    left = [entry for entry in recording.ledger if entry.state == "DEBT"]
    for entry in left:
        text = f"{entry.kind} {one_line(entry.identity)} on {entry.host}: {one_line(entry.error or '')}"
        root.add(("not taken back  ", "bold red"), text, _label(RECORDED))
    for relative in recording.related:
        text = (
            f"{relative.relation}: operation {relative.number} ({relative.kind}, {relative.outcome or relative.state})"
        )
        root.add(text, _label(RECORDED))
    width = max((len(task.name) for flow in flow_lines(recording) for task in _all(flow)), default=0)
    for flow in flow_lines(recording):
        root.children.append(_flow(flow, min(width, 40), everything=everything))
    return root


def summary(recording: Recording) -> dict[str, Any]:
    """The same as plain data, for JSON and YAML."""
    operation = recording.operation
    names = ("id", "number", "kind", "version", "target", "project", "state", "outcome", "error")
    plain: dict[str, Any] = {name: getattr(operation, name) for name in names}
    plain |= {name: isoformat(getattr(operation, name)) for name in ("created_at", "started_at", "finished_at")}
    cause = first_cause(recording)
    plain["first_cause"] = None if cause is None else _cause_dict(recording, cause)
    plain["owners"] = [_owner_dict(owner) for owner in _owners(recording)]
    plain["flows"] = [_flow_dict(flow) for flow in flow_lines(recording)]
    return plain


def _title(recording: Recording) -> list[Span]:
    operation = recording.operation
    ended = operation.finished_at or max((event.at for event in recording.events), default=operation.created_at)
    state = operation.outcome or operation.state
    return [
        (f"operation {operation.number}: {operation.kind} {one_line(operation.target)}  ", "bold"),
        (state, _OUTCOMES.get(operation.outcome, "bold red")),
        (f"  {isoformat(operation.created_at)}  {span(ended - operation.created_at)}  {operation.id[:8]}", "dim"),
    ]


def _cause(root: Branch, recording: Recording) -> None:
    cause = first_cause(recording)
    if cause is None:
        if recording.operation.error and recording.operation.outcome != "SUCCESS":
            root.add(("cause  ", "bold red"), one_line(recording.operation.error, 400), _label(RECORDED))
        return
    flow = recording.by_uuid[cause.flow]
    root.add(
        ("first cause  ", "bold red"), (f"{cause.atom}: ", "bold"), one_line(error_of(cause), 400), _label(DERIVED)
    )
    where = f"in {flow.kind} on {cause.host}, attempt {cause.attempt}, at {clock(cause.at)}"
    followed = [event for event in failures(recording) if event is not cause]
    if followed:
        where += f"; {len(followed)} more failure(s), before or because of it"
    root.add((f"             {where}", "dim"))


def _cause_dict(recording: Recording, cause: Event) -> dict[str, Any]:
    flow = recording.by_uuid[cause.flow].kind
    plain = {"task": cause.atom, "flow": flow, "host": cause.host, "attempt": cause.attempt}
    return plain | {"at": isoformat(cause.at), "error": error_of(cause), "label": DERIVED}


def _owners(recording: Recording) -> Sequence[Ownership]:
    return ownerships(recording.flows[0]) if recording.flows else ()


def _owner(owner: Ownership) -> list[Span | str]:
    why = "undone by" if owner.undoing else "run by"
    who = f"{why} {owner.host}" + (f" (process {owner.pid})" if owner.pid else "")
    code = f", virtflow {one_line(owner.code, 40)}" if owner.code else ""
    asked = ", to be cancelled" if owner.cancelled else ""
    when = f"{clock(owner.since)} to {clock(owner.until)}"
    return [(f"{who}, epoch {owner.epoch}{code}{asked}, {when}", "dim"), _label(RECORDED)]


def _owner_dict(owner: Ownership) -> dict[str, Any]:
    plain = {name: getattr(owner, name) for name in ("epoch", "host", "pid", "code", "undoing", "cancelled")}
    return plain | {"since": isoformat(owner.since), "until": isoformat(owner.until)}


def _flow(flow: FlowLines, width: int, *, everything: bool) -> Branch:
    own = flow.flow
    branch = line((f"{own.kind}", "bold"), (f" version {own.version}, from {own.host}", "dim"), _label(RECORDED))
    for run in folded(flow.tasks, everything=everything, keep=flow.segments):
        if len(run) > 1:
            branch.add(*_folded(run))
            continue
        below = branch.add(*_task(run[0], width))
        _earlier(below, run[0])
        for segment in flow.segments.get(run[0].name, ()):
            below.children.append(_flow(segment, width, everything=everything))
    for segment in flow.segments.get("", ()):
        branch.children.append(_flow(segment, width, everything=everything))
    return branch


def _task(task: TaskLine, width: int) -> list[Span | str]:
    if not task.attempts:
        return [mark("PENDING"), (f" {one_line(task.name, 60):<{width}}  not reached", "dim")]
    do, undo = task.do, task.undo
    spans: list[Span | str] = [mark(do.state if do else "PENDING"), f" {one_line(task.name, 60):<{width}}"]
    spans.append((f" {_took(do):>10}", "dim"))
    spans += [("   ", ""), mark(undo.state), (f" {_took(undo)}", "dim")] if undo is not None else []
    if task.executes > 1:
        spans.append((f"   {task.executes} attempts", "yellow"))
    if undo is not None and undo.state == "DEBT":
        spans.append((f"   NOT TAKEN BACK: {one_line(undo.error)}", "bold red"))
    if do is not None and do.remark is not None:
        spans.append((f"   {one_line(do.remark)}", "yellow"))
    if do is not None and do.error is not None:
        spans.append((f"   {one_line(do.error)}", "red"))
    elif do is not None and do.state == "INTERRUPTED":
        spans.append(("   its process died", "yellow"))
    return spans


def _took(attempt: Attempt | None) -> str:
    if attempt is None:
        return ""
    return span(attempt.duration) if attempt.duration is not None else f"since {clock(attempt.started_at)}"


def _folded(run: list[TaskLine]) -> list[Span | str]:
    first = run[0]
    names = f" {len(run)} tasks, {one_line(first.name, 40)} to {one_line(run[-1].name, 40)}"
    if not first.attempts:
        return [mark("PENDING"), (f"{names}, not reached", "dim")]
    spans: list[Span | str] = [mark(first.do.state if first.do else "PENDING"), names]
    spans.append((f"  {span(sum((task.do.duration or 0) for task in run if task.do))}", "dim"))
    if first.undo is not None:
        taken = sum((task.undo.duration or 0) for task in run if task.undo)
        spans += [("   ", ""), mark(first.undo.state), (f" {span(taken)}", "dim")]
    return spans


def _earlier(branch: Branch, task: TaskLine) -> None:
    """The attempts before the last one, where there were several."""
    if task.executes < 2:
        return
    for attempt in task.attempts:
        if attempt is task.do or attempt is task.undo:
            continue
        lane = "" if attempt.direction == DO else "taken back "
        error = f"  {one_line(attempt.error)}" if attempt.error else ""
        where = f"{lane}attempt {attempt.number} on {attempt.host}"
        branch.add(mark(attempt.state), f" {where}", (f"  {_took(attempt)}", "dim"), (error, "red"))


def _flow_dict(flow: FlowLines) -> dict[str, Any]:
    tasks = []
    for task in flow.tasks:
        plain: dict[str, Any] = {"name": task.name, "kind": task.kind, "state": task.state}
        plain["attempts"] = [attempt_dict(attempt) for attempt in task.attempts]
        plain["segments"] = [_flow_dict(segment) for segment in flow.segments.get(task.name, ())]
        tasks.append(plain)
    own = flow.flow
    loose = [_flow_dict(segment) for segment in flow.segments.get("", ())]
    plain_flow = {"uuid": own.uuid, "kind": own.kind, "version": own.version, "host": own.host, "label": RECORDED}
    return plain_flow | {"tasks": tasks, "segments": loose}


def attempt_dict(attempt: Attempt) -> dict[str, Any]:
    """An attempt as plain data, without what it returned."""
    names = ("direction", "number", "state", "host", "epoch", "error", "remark")
    plain = {name: getattr(attempt, name) for name in names}
    duration = None if attempt.duration is None else attempt.duration / 1000
    return plain | {"started_at": isoformat(attempt.started_at), "duration_ms": duration}


def _all(flow: FlowLines) -> list[TaskLine]:
    inner = [task for segments in flow.segments.values() for segment in segments for task in _all(segment)]
    return [*flow.tasks, *inner]


def _label(label: str) -> Span:
    return (f"  ({label})", "dim")
