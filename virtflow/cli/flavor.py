"""``virtflow flavor``: named sizes."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from virtflow.cli.command import Command, Lister, ShowOne, row
from virtflow.cli.requesting import Output
from virtflow.cli.usage import key_value, whole_number

if TYPE_CHECKING:
    from virtflow.persistence.flavors import Flavor

_COLUMNS = ("name", "vcpus", "memory_mib", "disk_gib", "properties")


class ListFlavors(Lister):
    """List the flavors, smallest first."""

    examples = ("virtflow flavor list",)

    def take_action(self, parsed_args: argparse.Namespace) -> Output:  # noqa: ARG002
        from virtflow.persistence.flavors import FlavorRepository

        return _COLUMNS, [_shown(flavor)[1] for flavor in FlavorRepository(self.context.database).list()]


class ShowFlavor(ShowOne):
    """Show a flavor. memory_mib is in MiB, disk_gib in GiB."""

    examples = ("virtflow flavor show small",)

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", help="name of the flavor")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.persistence.flavors import FlavorRepository

        return _shown(FlavorRepository(self.context.database).get(parsed_args.name))


class CreateFlavor(ShowOne):
    """Create a flavor. A flavor is never changed afterwards.

    Two properties give its instances more disks, and are the most that a request may ask for instead: ephemeral_gib
    (GiB[:FS], several with commas) and swap_mib.
    """

    examples = (
        "virtflow flavor create small --vcpus 1 --memory 512 --disk 5",
        "virtflow flavor create roomy --vcpus 2 --memory 2048 --disk 5 --property ephemeral_gib=20,4:vfat",
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add = parser.add_argument
        add("name", metavar="NAME", help="name of the flavor")
        add("--vcpus", type=whole_number(1, 512), required=True, metavar="N", help="virtual CPUs")
        add("--memory", type=whole_number(16, 16 * 2**20), required=True, metavar="MiB", help="memory, in MiB")
        add("--disk", type=whole_number(1, 65536), required=True, metavar="GiB", help="root disk, in GiB")
        add("--property", action="append", type=key_value, default=[], metavar="K=V", help="a property")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.persistence.flavors import Flavor, FlavorRepository
        from virtflow.requests import check_name, check_text
        from virtflow.requests.disks import parse_ephemerals, parse_swap

        properties = {check_text("property", key): check_text("property", value) for key, value in parsed_args.property}
        parse_ephemerals(properties.get("ephemeral_gib", ""))
        parse_swap(properties.get("swap_mib", "0"))
        name = check_name("name", parsed_args.name)
        flavor = Flavor(name, parsed_args.vcpus, parsed_args.memory, parsed_args.disk, properties)
        FlavorRepository(self.context.database).create(flavor)
        return _shown(flavor)


class DeleteFlavor(Command):
    """Delete a flavor. Instances made from it keep their size."""

    examples = ("virtflow flavor delete small",)

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", help="name of the flavor")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        from virtflow.persistence.flavors import FlavorRepository

        FlavorRepository(self.context.database).delete(parsed_args.name)


def _shown(flavor: Flavor) -> Output:
    return _COLUMNS, row(asdict(flavor), _COLUMNS)
