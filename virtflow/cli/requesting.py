"""Run a request the way the user wants to wait for it: here, here with a limit, or not at all."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cliff.columns import FormattableColumn

from virtflow.cli.background import raise_for_outcome, resume_in_background, watch
from virtflow.cli.command import Plain
from virtflow.cli.foreground import run_in_foreground
from virtflow.cli.operation_columns import summary
from virtflow.cli.usage import UsageError, seconds

if TYPE_CHECKING:
    from virtflow.cli.context import Context
    from virtflow.requests import Request

Output = tuple[tuple[str, ...], Iterable[Any]]


def add_waiting(parser: argparse.ArgumentParser) -> None:
    """The arguments that say how long to wait."""
    waiting = parser.add_mutually_exclusive_group()
    waiting.add_argument("--no-wait", action="store_true", help="leave it to a background process and print its id")
    waiting.add_argument(
        "--timeout",
        type=seconds,
        metavar="S",
        help="wait S seconds at most (exit code 6); a background process runs it, and goes on",
    )
    parser.add_argument(
        "--queue", action="store_true", help="wait while another operation holds the target, instead of exit code 7"
    )
    parser.add_argument(
        "--idempotency-key", metavar="KEY", help="the same request with the same key, however often, is one operation"
    )
    waiting.add_argument("--plan", action="store_true", help="only show what would be done")


def carry_out(context: Context, request: Request, parsed_args: argparse.Namespace) -> Output:
    """Plan, submit or run the request, and return what to print."""
    if parsed_args.plan:
        return _plan(context, request)
    how = {"queue": parsed_args.queue, "key": _key(parsed_args.idempotency_key)}
    if context.has_workers:
        return _leave_to_workers(context, request, parsed_args, how)
    if not parsed_args.no_wait and parsed_args.timeout is None:
        title = f"{request.kind} {request.target()}"
        return summary(run_in_foreground(context, title, lambda runner: runner.run(request, **how), new=True))
    with context.runner() as runner:
        operation = runner.submit(request, **how)
    if operation.state == "FINISHED":
        return summary(operation)
    # Only now: a directory of qemu:///embed has room for one process.
    log = resume_in_background(context, operation.id)
    context.stderr.write(f"operation {operation.number} ({operation.id}) runs in the background, output in {log}\n")
    return summary(operation) if parsed_args.timeout is None else _watched(context, operation.id, parsed_args.timeout)


def _leave_to_workers(
    context: Context, request: Request, parsed_args: argparse.Namespace, how: Mapping[str, Any]
) -> Output:
    with context.runner() as runner:
        operation = runner.submit(request, **how)
    if parsed_args.no_wait:
        return summary(operation)
    return _watched(context, operation.id, parsed_args.timeout)


def _watched(context: Context, operation_id: str, timeout: float | None) -> Output:
    operation = watch(context, operation_id, timeout)
    raise_for_outcome(operation)
    return summary(operation)


def _key(text: str | None) -> str | None:
    if text is not None and not (text.isprintable() and 0 < len(text) <= 255):
        raise UsageError(reason="--idempotency-key: must be 1 to 255 printable characters")
    return text


def _plan(context: Context, request: Request) -> Output:
    with context.runner() as runner:
        plan = runner.plan(request).to_dict()
    columns = [PlannedTasks(value) if name == "tasks" else Plain(value) for name, value in plan.items()]
    return tuple(plan), columns


class PlannedTasks(FormattableColumn[list[dict[str, Any]]]):
    """One line per task in a table."""

    def human_readable(self) -> str:
        return "\n".join(f"{task['name']:<20} {task['does']}" for task in self._value)
