"""``virtflow instance list`` and ``show``: what the database knows."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from virtflow.cli.command import Lister, ShowOne, row
from virtflow.cli.requesting import Output

if TYPE_CHECKING:
    from virtflow.persistence.instances import Instance

_LISTED = ("name", "uuid", "vm_state", "task_state", "host", "addresses", "image_name", "created_at")
_SHOWN = (
    *("uuid", "name", "project", "host", "vm_state", "task_state", "vcpus", "memory_mib", "disk_gib", "flavor"),
    *("image_name", "image_id", "addresses", "ports", "meta", "operation", "fault"),
    *("created_at", "launched_at", "deleted_at"),
)
_TIMES = ("created_at", "launched_at", "deleted_at")


class ListInstances(Lister):
    """List the instances of the project."""

    examples = ("virtflow instance list", "virtflow instance list --deleted -f json")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--deleted", action="store_true", help="those that were deleted, too")
        parser.add_argument("--all-projects", action="store_true", help="those of every project")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.persistence.instances import InstanceRepository
        from virtflow.persistence.networks import NetworkRepository

        project = None if parsed_args.all_projects else self.context.config.project
        found = InstanceRepository(self.context.database).list(project, include_deleted=parsed_args.deleted)
        addresses: dict[str, list[str]] = {}
        for port in NetworkRepository(self.context.database).ports():
            addresses.setdefault(port.instance, []).append(port.address)
        rows = [_plain(instance) | {"addresses": addresses.get(instance.uuid, [])} for instance in found]
        return _LISTED, [row(plain, _LISTED) for plain in rows]


class ShowInstance(ShowOne):
    """Show an instance."""

    examples = ("virtflow instance show web1", "virtflow instance show web1 -f value -c addresses")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", help="name or id of the instance")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.persistence.instances import InstanceRepository
        from virtflow.persistence.networks import NetworkRepository
        from virtflow.requests import check_name

        name = check_name("name", parsed_args.name)
        database = self.context.database
        project = self.context.config.project
        instance = InstanceRepository(database).find(name, project, include_deleted=True)
        networks = NetworkRepository(database)
        names = {network.id: network.name for network in networks.list()}
        ports = [
            {"network": names.get(port.network_id), "address": port.address, "mac": port.mac, "tap": port.tap}
            for port in networks.ports(instance=instance.uuid)
        ]
        plain = _plain(instance) | {"ports": ports, "addresses": [port["address"] for port in ports]}
        return _SHOWN, row(plain, _SHOWN)


def _plain(instance: Instance) -> dict[str, Any]:
    from virtflow.persistence.models.base import isoformat

    return asdict(instance) | {name: isoformat(getattr(instance, name)) for name in _TIMES}
