"""``virtflow operation list`` and ``show``: what is recorded, read without TaskFlow."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from virtflow.cli.command import Lister, ShowOne
from virtflow.cli.operation_columns import LISTED, full, listed
from virtflow.cli.usage import UsageError, moment, whole_number

if TYPE_CHECKING:
    from virtflow.cli.context import Context
    from virtflow.persistence.operations import Operation


def add_reference(parser: argparse.ArgumentParser) -> None:
    """The argument that names an operation."""
    parser.add_argument("operation", nargs="?", metavar="ID", help="number, id, or the beginning of an id")
    parser.add_argument("--last", action="store_true", help="the latest operation")


def find(context: Context, parsed_args: argparse.Namespace) -> Operation:
    """The operation that the arguments name. UsageError, NotFound."""
    from virtflow.persistence.operations import OperationRepository

    if bool(parsed_args.operation) == parsed_args.last:
        raise UsageError(reason="give either the ID of an operation or --last")
    return OperationRepository(context.database).get("--last" if parsed_args.last else parsed_args.operation)


class ListOperations(Lister):
    """List operations, newest first."""

    examples = (
        "virtflow operation list",
        "virtflow operation list --kind spawn --state FINISHED --outcome REVERTED_WITH_DEBT",
        "virtflow operation list --target instance:web1 -f json",
        "virtflow operation list --host node1 --since 2h",
        "virtflow operation list --group 0b7b0f8e-52d5-4a7e-8f0d-0a43c8a1d001",
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--state", type=str.upper, help="only those in this state (RUNNING, FINISHED ...)")
        parser.add_argument("--outcome", type=str.upper, help="only those that ended so (SUCCESS, REVERTED ...)")
        parser.add_argument("--kind", help="only those of this kind (spawn, delete ...)")
        parser.add_argument("--target", help="only those of this target (instance:NAME)")
        parser.add_argument("--host", metavar="HOST", help="only those of which something was done on this host")
        parser.add_argument("--since", type=moment, metavar="TIME", help="only newer ones: 90s, 15m, 2h, 7d, or a date")
        parser.add_argument("--group", metavar="ID", help="only those of one request for several instances")
        parser.add_argument("--limit", type=whole_number(1, 10000), default=50, help="at most so many (default 50)")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], Iterable[Any]]:
        from virtflow.persistence.operations import OperationRepository

        found = OperationRepository(self.context.database).list(
            state=parsed_args.state,
            outcome=parsed_args.outcome,
            kind=parsed_args.kind,
            target=parsed_args.target,
            group=parsed_args.group,
            host=parsed_args.host,
            since=parsed_args.since,
            limit=parsed_args.limit,
        )
        return LISTED, [listed(operation) for operation in found]


class ShowOperation(ShowOne):
    """Show an operation: state, outcome, error, debts, and every task.

    Also which hosts were tried and why, and what it has asked of other hosts.
    """

    examples = ("virtflow operation show 12", "virtflow operation show --last -f json")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_reference(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], Iterable[Any]]:
        from virtflow.persistence.decisions import DecisionRepository
        from virtflow.persistence.hosts import HostRepository
        from virtflow.persistence.segments import SegmentRepository

        operation = find(self.context, parsed_args)
        decisions = DecisionRepository(self.context.database).of_operation(operation.id)
        segments = SegmentRepository(self.context.database, lease=self.context.config.jobboard.lease)
        asked = [segment.to_dict() for segment in segments.of_operation(operation.id)]
        hosts = HostRepository(self.context.database)
        limit = self.context.config.worker.host_down_after
        for each in asked:
            waiting = each["state"] in ("REQUESTED", "RUNNING") and not each["running"]
            each["waits_for"] = hosts.why_silent(each["host"], limit) if waiting else None
        return full(operation, [decision.to_dict() for decision in decisions], asked)
