"""A request for several instances: accepted here, run by a background process, and watched."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from cliff.columns import FormattableColumn

from virtflow.cli.background import resume_in_background, watch
from virtflow.cli.progress import printable
from virtflow.cli.usage import UsageError
from virtflow.errors import OperationFailed, RevertIncomplete

if TYPE_CHECKING:
    from virtflow.cli.context import Context
    from virtflow.persistence.operations import Operation
    from virtflow.requests import SpawnRequest

_FAILED = ("REVERTED", "CANCELLED", "REVERTED_WITH_DEBT", "FAILED_FORWARD")


def carry_out_group(
    context: Context, request: SpawnRequest, parsed_args: argparse.Namespace
) -> tuple[tuple[str, ...], Iterable[Any]]:
    """Accept the group, leave it to a background process, and watch its members unless told not to."""
    if parsed_args.plan:
        raise UsageError(reason="--plan is for a single instance: leave out --count")
    with context.runner() as runner:
        operations = runner.submit_group(request)
    group = operations[0].group
    assert group is not None
    log = resume_in_background(context, group, group=True)
    context.stderr.write(f"group {group} of {len(operations)} runs in the background, output in {log}\n")
    if parsed_args.no_wait:
        return shown(operations)
    deadline = None if parsed_args.timeout is None else time.monotonic() + parsed_args.timeout
    finished = []
    for operation in operations:
        left = None if deadline is None else max(deadline - time.monotonic(), 0.001)
        finished.append(watch(context, operation.id, left))
    return outcome_of_group(finished)


def outcome_of_group(operations: Sequence[Operation]) -> tuple[tuple[str, ...], Iterable[Any]]:
    """What to print of a group that has ended. OperationFailed, RevertIncomplete when some members failed."""
    failed = [operation for operation in operations if operation.outcome in _FAILED]
    if not failed:
        return shown(operations)
    worst = max(failed, key=lambda operation: operation.debts)
    target = f"of {len(failed)} of {len(operations)} instances (group {worst.group})"
    fields = {"kind": worst.kind, "target": target, "cause": worst.error or worst.outcome}
    if worst.debts:
        raise RevertIncomplete(**fields, debts=sum(operation.debts for operation in failed))
    raise OperationFailed(**fields)


def shown(operations: Sequence[Operation]) -> tuple[tuple[str, ...], Iterable[Any]]:
    """Column names and values."""
    names = ("number", "id", "target", "state", "outcome")
    members = [{name: getattr(operation, name) for name in names} for operation in operations]
    return ("group", "count", "operations"), [operations[0].group, len(operations), Members(members)]


class Members(FormattableColumn[list[dict[str, Any]]]):
    """One line per operation in a table."""

    def human_readable(self) -> str:
        return "\n".join(
            f"{each['number']:<5} {printable(each['target'], 60):<30} {each['outcome'] or each['state']}"
            for each in self._value
        )
