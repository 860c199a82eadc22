"""``virtflow event``: what others have to say to an operation that waits for them."""

from __future__ import annotations

import argparse

from virtflow.cli.command import Command
from virtflow.errors import NotFound


class VifPlugged(Command):
    """Report that the cable of an instance's port is in, for [network] vif_events = external.

    It is kept: it may come before anybody waits for it. The last word counts.
    """

    examples = (
        "virtflow event vif-plugged web1 10.0.0.9",
        "virtflow event vif-plugged web1 52:54:00:00:00:01 --failed",
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("instance", metavar="INSTANCE", help="name or id of the instance")
        parser.add_argument("port", metavar="PORT", help="id, address, MAC address or tap of the port")
        parser.add_argument("--failed", action="store_true", help="it could not be plugged")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        from virtflow.persistence.instances import InstanceRepository
        from virtflow.persistence.networks import NetworkRepository
        from virtflow.persistence.vif_events import VifEventRepository

        database = self.context.database
        instance = InstanceRepository(database).find(parsed_args.instance, self.context.config.project)
        wanted = parsed_args.port.lower()
        found = [
            port
            for port in NetworkRepository(database).ports(instance=instance.uuid)
            if wanted in (port.id, port.address, port.mac, port.tap)
        ]
        if len(found) != 1:
            raise NotFound(kind=f"port of instance {instance.name}", name=parsed_args.port[:80])
        VifEventRepository(database).receive(instance.uuid, found[0].id, failed=parsed_args.failed)
