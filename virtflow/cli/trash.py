"""``virtflow trash list|purge``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from virtflow.cli.command import Lister
from virtflow.cli.operation_columns import LISTED, listed
from virtflow.cli.requesting import Output
from virtflow.cli.usage import whole_number

if TYPE_CHECKING:
    from virtflow.persistence.operations import Operation

_COLUMNS = ("operation", "instance", "deleted_at", "purged_after")


class ListTrash(Lister):
    """List what is in the trash: until it is purged, `virtflow operation undo` of what put it there brings it back."""

    examples = ("virtflow trash list",)

    def take_action(self, parsed_args: argparse.Namespace) -> Output:  # noqa: ARG002
        from virtflow.engine.purging import OF_INSTANCES, OF_VOLUMES
        from virtflow.persistence.models.base import now
        from virtflow.persistence.operations import OperationRepository

        config, operations = self.context.config, OperationRepository(self.context.database)
        rows = []
        for kinds, options in ((OF_INSTANCES, config.instances), (OF_VOLUMES, config.volumes)):
            kept = [each for kind in kinds for each in operations.unpurged(kind, now())]
            rows += [_row(deleted, options.trash_retention) for deleted in kept]
        return _COLUMNS, rows


class PurgeTrash(Lister):
    """Remove for good what has been in the trash longer than [instances] trash_retention. Cannot be undone.

    A delete does this on its way, for what is due. Prints the purges.
    """

    examples = ("virtflow trash purge", "virtflow trash purge --older-than 0")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        text = "purge what is older than S seconds instead"
        parser.add_argument("--older-than", type=whole_number(0, 10**9), metavar="S", help=text)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        with self.context.runner() as runner:
            return LISTED, [listed(purge) for purge in runner.purge(older_than=parsed_args.older_than)]


def _row(deleted: Operation, retention: int) -> list[object]:
    from virtflow.persistence.models.base import isoformat

    finished = deleted.finished_at or 0
    kind, _, name = deleted.target.partition(":")
    name = name if kind == "instance" else f"{kind} {name}"
    return [deleted.number, name, isoformat(finished), isoformat(finished + retention * 1_000_000)]
