"""The audit of the database: rows whose instance is gone or whose operation is over."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from virtflow.engine.audit_books import Books, Finding, Row
from virtflow.persistence import ledger as ledger_states
from virtflow.persistence import operations as ops
from virtflow.persistence.instances import GOING_ON
from virtflow.persistence.quotas import RELEASED, RESERVED
from virtflow.storage.instance_directory import InstanceDirectories

_TAKEN_BACK = (ops.REVERTED, ops.CANCELLED, ops.UNDONE)


def row_findings(books: Books, instances_path: Path) -> Iterator[Finding]:
    """Everything in the database that nobody answers for."""
    directories = InstanceDirectories(instances_path)
    yield from _operations(books)
    yield from _targets(books)
    yield from _instances(books)
    yield from _ports(books)
    yield from _allocations(books)
    yield from _charges(books, directories)
    yield from _references(books, directories)
    yield from _members(books)
    yield from _secrets(books)
    yield from _ledger(books)


def _operations(books: Books) -> Iterator[Finding]:
    for row in books.operations.values():
        if not books.interrupted(row):
            if row.outcome == ops.FAILED_FORWARD:
                reason = f"{row.kind} is not done yet ({row.error}): virtflow operation resume {row.number}"
                yield Finding("operation", row.id, reason, row.id)
        elif row.state == ops.FINISHED:
            reason = f"its process died while it retried a revert: virtflow operation retry-revert {row.number}"
            yield Finding("operation", row.id, reason, row.id)
        else:
            reason = f"{row.kind} of {row.target} was interrupted: virtflow operation resume {row.number}"
            yield Finding("operation", row.id, reason, row.id)


def _targets(books: Books) -> Iterator[Finding]:
    for row in books.targets:
        operation = books.operations[row.operation]
        if operation.state == ops.FINISHED and not books.interrupted(operation) and operation.owner is None:
            reason = (
                f"{books.number(row.operation)} is over but holds it, so that nothing else can be done with it: "
                f"virtflow operation retry-revert {operation.number}"
            )
            yield Finding("target", row.target, reason, row.operation)


def _instances(books: Books) -> Iterator[Finding]:
    for row in books.instances.values():
        doing = (row.task_state or "").partition("/")[2]
        # GOING_ON is its host's worker's, which takes it away again, if need be when it is started.
        marked = row.task_state not in (None, GOING_ON)
        stuck = row.vm_state == "BUILDING" or (marked and not books.unfinished(doing))
        if row.deleted_at is None and stuck and not books.busy(row.uuid):
            state = f"{row.vm_state}, {row.task_state}" if row.task_state else row.vm_state
            reason = f"{row.name} is {state}, but nothing works on it: virtflow delete {row.name}"
            yield Finding("instance", row.uuid, reason, row.operation)


def _ports(books: Books) -> Iterator[Finding]:
    for row in books.ports:
        if not books.answered_for(row.instance, row.operation):
            reason = (
                f"{row.address} was allocated by {books.number(row.operation)}, its instance is gone: delete the row"
            )
            yield Finding("port", row.id, reason, row.operation)


def _allocations(books: Books) -> Iterator[Finding]:
    for row in books.allocations:
        if not books.answered_for_here(row.consumer, row.operation):
            reason = f"claimed by {books.number(row.operation)}, {books.unanswered(row.consumer)}: delete the row"
            yield Finding("allocation", f"{row.host}/{row.consumer}", reason, row.operation)


def _charges(books: Books, directories: InstanceDirectories) -> Iterator[Finding]:
    unaccounted: defaultdict[tuple[str, str, str], list[str]] = defaultdict(list)
    for row in books.charges:
        stored = books.storage(row.consumer)
        if stored is not None and row.state != RESERVED:
            # Of what was deleted the charge is released; it goes with the purge.
            fine = books.unfinished(stored.held_by) or (stored.deleted_at is None) == (row.state != RELEASED)
        elif row.state == RESERVED:
            fine = books.unfinished(row.operation) or books.busy(row.consumer)
        elif row.state == RELEASED:
            fine = books.busy(row.consumer) or _restorable(books, directories, row.consumer)
        else:
            fine = books.answered_for(row.consumer, row.operation)
        if not fine:
            unaccounted[row.consumer, row.state, row.operation].append(f"{row.amount} {row.resource}")
    for (consumer, state, operation), amounts in unaccounted.items():
        reason = f"{', '.join(amounts)} {state} by {books.number(operation)}, which is over: delete the rows"
        yield Finding("quota", consumer, reason, operation)


def _references(books: Books, directories: InstanceDirectories) -> Iterator[Finding]:
    for row in books.references:
        fine = books.answered_for_here(row.consumer, row.operation) or _restorable(books, directories, row.consumer)
        if not fine:
            why = f"made by {books.number(row.operation)}, {books.unanswered(row.consumer)}"
            reason = f"{why}, so the base is not in use by it: delete the row"
            yield Finding("base_reference", f"{Path(row.base_path).name}/{row.consumer}", reason, row.operation)


def _members(books: Books) -> Iterator[Finding]:
    """A membership outlives the deletion of its instance, but not the instance's row."""
    for row in books.members:
        if row.instance not in books.instances and not books.unfinished(row.operation):
            reason = f"a member of group {row.group_id} that never came to be, or is gone: delete the row"
            yield Finding("member", row.instance, reason, row.operation)


def _restorable(books: Books, directories: InstanceDirectories, instance: str) -> bool:
    """Whether a deleted instance can still be brought back, or is just being purged."""
    row = books.instances.get(instance)
    if row is None or row.deleted_by is None:
        return False
    if row.host != books.host and row.deleted_by not in books.purged:
        return True  # its trash is for its own host to look after
    return row.deleted_by in books.purging or directories.trash_path(row.deleted_by).exists()


def _secrets(books: Books) -> Iterator[Finding]:
    for row in books.secrets:
        if not (books.unfinished(row.owner) or books.keeps_secrets(row.owner)):
            operation = row.owner if row.owner in books.operations else None
            owner = row.owner if operation is None else books.number(operation)
            reason = f"secret {row.name} of {owner}, which needs it no longer: delete the row"
            yield Finding("secret", row.ref, reason, operation)


def _ledger(books: Books) -> Iterator[Finding]:
    for row in books.ledger:
        operation = books.operations.get(row.operation)
        if operation is None or operation.state == ops.FINISHED:
            yield from _ledger_row(books, row, operation)


def _ledger_row(books: Books, row: Row, operation: Row | None) -> Iterator[Finding]:
    outcome = None if operation is None else operation.outcome
    number = row.operation if operation is None else operation.number
    if row.state == ledger_states.DEBT:
        what = row.identity if row.kind == ledger_states.REVERT else f"{row.kind} {row.identity}"
        reason = f"{row.task} could not take it back ({row.error}): virtflow operation retry-revert {number}"
        yield Finding("debt", what, reason, row.operation)
    elif row.state == ledger_states.INTENDED and outcome != ops.FAILED_FORWARD:
        reason = f"{row.task} of {books.number(row.operation)} may have made it: look at it, then delete the row"
        yield Finding("intent", f"{row.kind} {row.identity}", reason, row.operation)
    elif row.state == ledger_states.PRESENT and outcome in _TAKEN_BACK:
        reason = f"{row.task} of {books.number(row.operation)} was not reverted: look at it, then delete the row"
        yield Finding("intent", f"{row.kind} {row.identity}", reason, row.operation)
