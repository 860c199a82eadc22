"""``virtflow resize|migrate|resize-confirm|resize-revert``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from virtflow.cli.command import ShowOne
from virtflow.cli.operation_verbs import Undo
from virtflow.cli.requesting import Output, add_waiting, carry_out

if TYPE_CHECKING:
    from virtflow.cli.context import Context
    from virtflow.persistence.instances import Instance


class Resize(ShowOne):
    """Give an instance another size, on its host or on another one.

    It is shut down meanwhile. Afterwards it is in VERIFY_RESIZE, and what it was is kept: until `virtflow
    resize-confirm`, `virtflow resize-revert` brings that back. Disks never shrink.
    """

    examples = ("virtflow resize web1 --flavor large", "virtflow resize web1 --memory 2048 --disk 40 --host node7")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add = parser.add_argument
        add("name", metavar="NAME", help="name or id of the instance")
        add("--flavor", metavar="FLAVOR", help="its new size")
        add("--vcpus", type=int, metavar="N", help="virtual CPUs, instead of a flavor; what is not named stays")
        add("--memory", type=int, dest="memory_mib", metavar="MiB", help="memory, in MiB")
        add("--disk", type=int, dest="disk_gib", metavar="GiB", help="root disk, in GiB")
        add("--host", metavar="HOST", help="where it has to go; left out, the scheduler chooses")
        add_waiting(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.requests import ResizeRequest

        given = ("flavor", "vcpus", "memory_mib", "disk_gib", "host")
        fields: dict[str, Any] = {name: getattr(parsed_args, name) for name in given}
        request = ResizeRequest(name=find_instance(self.context, parsed_args.name).name, **fields)
        return carry_out(self.context, request, parsed_args)


class Migrate(ShowOne):
    """Move an instance to another host, with its disks. It is shut down meanwhile.

    Afterwards it is in VERIFY_RESIZE, as after `virtflow resize`: confirm it, or go back.
    """

    examples = ("virtflow migrate web1", "virtflow migrate web1 --host node7")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", help="name or id of the instance")
        parser.add_argument("--host", metavar="HOST", help="where it has to go; left out, the scheduler chooses")
        add_waiting(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.requests import MigrateRequest

        request = MigrateRequest(name=find_instance(self.context, parsed_args.name).name, host=parsed_args.host)
        return carry_out(self.context, request, parsed_args)


class ResizeConfirm(ShowOne):
    """Keep what a resize or migration has made of an instance; what it was goes to the trash."""

    examples = ("virtflow resize-confirm web1",)

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", help="name or id of the instance")
        add_waiting(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.requests import ConfirmRequest

        return carry_out(
            self.context, ConfirmRequest(name=find_instance(self.context, parsed_args.name).name), parsed_args
        )


class ResizeRevert(Undo):
    """Bring back what an instance was before its last resize or migration, on the host where it was.

    This undoes that operation: what the guest has written since is lost. It runs again where it was before what it had
    become is removed.
    """

    examples = ("virtflow resize-revert web1",)

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = ShowOne.get_parser(self, prog_name)
        parser.add_argument("name", metavar="NAME", help="name or id of the instance")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.errors import Conflict
        from virtflow.persistence.instance_specs import InstanceSpecRepository

        instance = find_instance(self.context, parsed_args.name)
        found = InstanceSpecRepository(self.context.database).find(instance.uuid)
        if found is None or found.previous_host is None:
            reason = f"it is {instance.vm_state}, and there is no resize to go back from"
            raise Conflict(action="revert the resize of", kind="instance", name=instance.name, reason=reason)
        parsed_args.operation, parsed_args.last = found.operation, False
        return super().take_action(parsed_args)


def find_instance(context: Context, given: str) -> Instance:
    """By name or id: the name is what an operation holds."""
    from virtflow.persistence.instances import InstanceRepository
    from virtflow.requests import check_name

    return InstanceRepository(context.database).find(check_name("name", given), context.config.project)
