"""``network_data.json``: what cloud-init and cloudbase-init read to set up the guest's interfaces.

The format is OpenStack's: https://docs.openstack.org/nova/latest/user/metadata.html and the JSON schema there.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict


class Route(TypedDict):
    """``destination`` as CIDR."""

    destination: str
    gateway: str


class VifAddress(TypedDict):
    """An address of a port, with what its network says about it. ``cidr`` is the network's, "10.0.0.0/24"."""

    address: str
    cidr: str
    gateway: str | None
    dns: NotRequired[Sequence[str]]
    routes: NotRequired[Sequence[Route]]


class Vif(TypedDict):
    """A port as plain data. ``mtu`` in bytes."""

    port_id: str
    network_id: str
    mac: str
    tap: str
    mtu: int
    addresses: Sequence[VifAddress]


def network_data(vifs: Sequence[Vif]) -> dict[str, Any]:
    """Links, networks and services of the ports, in their order. Several addresses of a port are several networks."""
    networks = [
        _network(f"network{number}", vif, address)
        for number, (vif, address) in enumerate((vif, address) for vif in vifs for address in vif["addresses"])
    ]
    servers = [server for vif in vifs for address in vif["addresses"] for server in address.get("dns", ())]
    return {
        "links": [_link(vif) for vif in vifs],
        "networks": networks,
        "services": [_dns(server) for server in dict.fromkeys(servers)],
    }


def _link(vif: Vif) -> dict[str, Any]:
    # "phy": to the guest it is an Ethernet card. What it is on the host ("tap") is not known to every guest agent.
    return {
        "id": vif["tap"],
        "vif_id": vif["port_id"],
        "type": "phy",
        "mtu": vif["mtu"],
        "ethernet_mac_address": vif["mac"],
    }


def _network(name: str, vif: Vif, address: VifAddress) -> dict[str, Any]:
    interface = ipaddress.ip_interface(f"{address['address']}/{address['cidr'].rpartition('/')[2]}")
    routes = [_route(route["destination"], route["gateway"]) for route in address.get("routes", ())]
    if address["gateway"] is not None:
        routes.insert(0, _route("0.0.0.0/0" if interface.version == 4 else "::/0", address["gateway"]))
    return {
        "id": name,
        "type": f"ipv{interface.version}",
        "link": vif["tap"],
        "network_id": vif["network_id"],
        "ip_address": str(interface.ip),
        "netmask": str(interface.netmask),
        "routes": routes,
        "services": [_dns(server) for server in address.get("dns", ())],
    }


def _route(destination: str, gateway: str) -> dict[str, str]:
    network = ipaddress.ip_network(destination)
    return {"network": str(network.network_address), "netmask": str(network.netmask), "gateway": gateway}


def _dns(server: str) -> dict[str, str]:
    return {"type": "dns", "address": server}
