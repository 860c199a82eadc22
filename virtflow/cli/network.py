"""``virtflow network``: the networks that instances can have ports on."""

from __future__ import annotations

import argparse
import re
import uuid
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from virtflow.cli.command import Command, Lister, ShowOne, row
from virtflow.cli.requesting import Output
from virtflow.cli.usage import whole_number
from virtflow.errors import InvalidRequest

if TYPE_CHECKING:
    from virtflow.persistence.networks import Network, NetworkRepository

_LISTED = ("name", "id", "cidr", "gateway", "bridge", "mtu", "ports")
_SHOWN = (
    *("id", "name", "cidr", "gateway", "dns", "bridge", "managed_bridge", "mtu"),
    *("allocation_start", "allocation_end", "ports", "created_at"),
)


class ListNetworks(Lister):
    """List the networks, with how many ports each has."""

    examples = ("virtflow network list", "virtflow network list -f yaml")

    def take_action(self, parsed_args: argparse.Namespace) -> Output:  # noqa: ARG002
        from virtflow.persistence.networks import NetworkRepository

        networks = NetworkRepository(self.context.database)
        return _LISTED, [row(_plain(networks, network), _LISTED) for network in networks.list()]


class ShowNetwork(ShowOne):
    """Show a network. The MTU is in bytes."""

    examples = ("virtflow network show blue",)

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", help="name or id of the network")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.persistence.networks import NetworkRepository

        networks = NetworkRepository(self.context.database)
        return _SHOWN, row(_plain(networks, networks.get(parsed_args.name)), _SHOWN)


class CreateNetwork(ShowOne):
    """Create a network.

    Without --bridge, virtflow makes a Linux bridge when the first port needs it, and removes it with the last.
    """

    examples = (
        "virtflow network create blue --cidr 10.0.0.0/24 --gateway 10.0.0.1 --dns 10.0.0.2",
        "virtflow network create lan --cidr 192.168.1.0/24 --bridge br0 --pool 192.168.1.100-192.168.1.150",
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add = parser.add_argument
        add("name", metavar="NAME", help="name of the network")
        add("--cidr", required=True, help="its addresses, such as 10.0.0.0/24")
        add("--gateway", metavar="ADDRESS", help="default route of the guests")
        add("--dns", action="append", metavar="ADDRESS", help="name server of the guests ([network] dns)")
        add("--bridge", help="an existing Linux bridge")
        add("--mtu", type=whole_number(576, 65535), help="in bytes ([network] mtu)")
        add("--pool", metavar="FIRST-LAST", help="the addresses that are given out (default: all)")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.persistence.networks import NetworkRepository

        network = build_network(parsed_args, self.context.config.network.mtu, self.context.config.network.dns)
        networks = NetworkRepository(self.context.database)
        networks.create(network)
        return _SHOWN, row(_plain(networks, network), _SHOWN)


class DeleteNetwork(Command):
    """Delete a network that has no ports."""

    examples = ("virtflow network delete blue",)

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", help="name or id of the network")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        from virtflow.persistence.networks import NetworkRepository

        NetworkRepository(self.context.database).delete(parsed_args.name)


def build_network(parsed_args: argparse.Namespace, mtu: int, dns: tuple[str, ...]) -> Network:
    """The network that the arguments describe, with the configured defaults. InvalidRequest names what is wrong."""
    from virtflow.network.addressing import pool
    from virtflow.persistence.networks import Network
    from virtflow.requests import check_address, check_name

    first, last = _range(parsed_args.pool)
    gateway = check_address("gateway", parsed_args.gateway) if parsed_args.gateway is not None else None
    addresses = pool(parsed_args.cidr, gateway, first, last)
    network_id = str(uuid.uuid4())
    # IFNAMSIZ of Linux: 15 bytes and a terminator; no slash, no white space (dev_valid_name in net/core/dev.c).
    if parsed_args.bridge is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}", parsed_args.bridge):
        raise InvalidRequest(field="bridge", reason="must be 1 to 15 letters, digits, '.', '_' or '-'")
    return Network(
        id=network_id,
        name=check_name("name", parsed_args.name),
        cidr=addresses.cidr,
        gateway=gateway,
        dns=tuple(check_address("dns", each) for each in (parsed_args.dns or dns)),
        bridge=parsed_args.bridge or f"vfbr{network_id.replace('-', '')[:10]}",
        mtu=parsed_args.mtu or mtu,
        managed_bridge=parsed_args.bridge is None,
        allocation_start=first,
        allocation_end=last,
    )


def _range(text: str | None) -> tuple[str | None, str | None]:
    from virtflow.requests import check_address

    if text is None:
        return None, None
    first, dash, last = text.partition("-")
    if not dash:
        raise InvalidRequest(field="pool", reason="must be FIRST-LAST, two addresses")
    return check_address("pool", first), check_address("pool", last)


def _plain(networks: NetworkRepository, network: Network) -> dict[str, Any]:
    from virtflow.persistence.models.base import isoformat

    plain = asdict(network) | {"dns": list(network.dns), "created_at": isoformat(network.created_at)}
    return plain | {"ports": len(networks.used_addresses(network.id))}
