"""``virtflow delete``."""

from __future__ import annotations

import argparse

from virtflow.cli.command import ShowOne
from virtflow.cli.requesting import Output, add_waiting, carry_out


class Delete(ShowOne):
    """Remove an instance.

    Its disks are kept in the trash for a while ([instances] trash_retention): until they are purged,
    `virtflow operation undo` brings the instance back.
    """

    examples = ("virtflow delete web1", "virtflow delete web1 --no-wait")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", help="name or id of the instance")
        add_waiting(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.persistence.instances import InstanceRepository
        from virtflow.requests import DeleteRequest, check_name

        name = check_name("name", parsed_args.name)
        # The name is what an operation holds, so that two of them on one instance exclude each other.
        instance = InstanceRepository(self.context.database).find(name, self.context.config.project)
        return carry_out(self.context, DeleteRequest(name=instance.name), parsed_args)
