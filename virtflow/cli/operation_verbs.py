"""``virtflow operation watch|resume|cancel|undo|retry-revert``."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from virtflow.cli.background import POLL, raise_for_outcome, watch
from virtflow.cli.command import ShowOne
from virtflow.cli.foreground import run_in_foreground
from virtflow.cli.group import outcome_of_group
from virtflow.cli.operation import add_reference, find
from virtflow.cli.operation_columns import summary
from virtflow.cli.usage import UsageError, seconds
from virtflow.errors import Conflict, WaitTimeout

if TYPE_CHECKING:
    from virtflow.engine.runner import Runner
    from virtflow.persistence.operations import Operation

_PAYING = 60.0
"""Seconds to wait for workers that pay debts."""


class Watch(ShowOne):
    """Follow an operation until it ends; the exit code tells how. Ctrl-C stops watching, not the operation."""

    examples = ("virtflow operation watch 12", "virtflow operation watch --last --timeout 60")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_reference(parser)
        parser.add_argument("--timeout", type=seconds, metavar="S", help="stop watching after S seconds (exit code 6)")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], Iterable[Any]]:
        operation = watch(self.context, find(self.context, parsed_args).id, parsed_args.timeout)
        raise_for_outcome(operation)
        return summary(operation)


class _Verb(ShowOne):
    """An engine verb on one operation, run in this process to its end."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_reference(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], Iterable[Any]]:
        operation = find(self.context, parsed_args)
        if self.context.has_workers:
            return self._by_workers(operation.id)
        title = f"operation {operation.number}: {operation.kind} {operation.target}"
        return summary(run_in_foreground(self.context, title, lambda runner: self.verb(runner)(operation.id)))

    def _by_workers(self, operation_id: str) -> tuple[tuple[str, ...], Iterable[Any]]:
        with self.context.runner() as runner:
            self.ask(runner)(operation_id)
        operation = watch(self.context, operation_id, None)
        raise_for_outcome(operation)
        return summary(operation)

    @staticmethod
    def verb(runner: Runner) -> Callable[[str], Operation]:
        """The runner's method."""
        raise NotImplementedError

    @staticmethod
    def ask(runner: Runner) -> Callable[[str], Operation]:
        """The runner's method that has the workers do it."""
        return runner.request_attention


class Resume(_Verb):
    """Go on with an operation whose process died, from what was recorded."""

    examples = (
        "virtflow operation resume 12",
        "virtflow operation resume --last",
        "virtflow operation resume --group 0b7b0f8e-52d5-4a7e-8f0d-0a43c8a1d001",
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--group", metavar="ID", help="all of one request for several instances")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], Iterable[Any]]:
        if parsed_args.group is None:
            return super().take_action(parsed_args)
        if parsed_args.operation or parsed_args.last:
            raise UsageError(reason="give either an operation or a --group")
        with self.context.runner() as runner:
            return outcome_of_group(runner.resume_group(parsed_args.group))

    @staticmethod
    def verb(runner: Runner) -> Callable[[str], Operation]:
        return runner.resume


class Cancel(_Verb):
    """Stop an operation wherever it is, and take back what it has done."""

    examples = ("virtflow operation cancel 12",)

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], Iterable[Any]]:
        if self.context.has_workers:
            with self.context.runner() as runner:
                found = runner.cancel(find(self.context, parsed_args).id)
            answer: tuple[tuple[str, ...], Iterable[Any]] = summary(found)
        else:
            answer = super().take_action(parsed_args)
        columns, values = answer
        plain = dict(zip(columns, values, strict=True))
        if plain["state"] == "FINISHED":
            return columns, values
        # It runs in another process, which has been asked and now takes everything back.
        operation = watch(self.context, plain["id"], None)
        if operation.outcome == "SUCCESS":
            reason = "it had got too far and has finished: undo it instead"
            raise Conflict(action="cancel", kind="operation", name=operation.number, reason=reason)
        if operation.outcome != "CANCELLED":
            raise_for_outcome(operation)
        return summary(operation)

    @staticmethod
    def verb(runner: Runner) -> Callable[[str], Operation]:
        return runner.cancel


class Undo(_Verb):
    """Take back a finished operation: a spawned instance is removed, a deleted one comes back."""

    examples: ClassVar[tuple[str, ...]] = ("virtflow operation undo 12", "virtflow operation undo --last")

    @staticmethod
    def verb(runner: Runner) -> Callable[[str], Operation]:
        return runner.undo

    @staticmethod
    def ask(runner: Runner) -> Callable[[str], Operation]:
        return runner.request_undo


class RetryRevert(_Verb):
    """Try once more to take back what an operation could not (its debts)."""

    examples = ("virtflow operation retry-revert 12",)

    @staticmethod
    def verb(runner: Runner) -> Callable[[str], Operation]:
        return runner.retry_revert

    def _by_workers(self, operation_id: str) -> tuple[tuple[str, ...], Iterable[Any]]:
        """The operation has finished long ago: only its debts tell how far the workers are."""
        deadline = time.monotonic() + _PAYING
        with self.context.runner() as runner:
            runner.request_attention(operation_id)
            while True:
                operation = runner.operations.get(operation_id)
                if not operation.debts and operation.outcome != "REVERTED_WITH_DEBT":
                    return summary(operation)
                if time.monotonic() > deadline:
                    raise WaitTimeout(operation=operation.number, state=operation.outcome, seconds=f"{_PAYING:g}")
                time.sleep(POLL)
