"""Ports, taps and filters."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from taskflow.types.failure import Failure

from virtflow.errors import Conflict, HypervisorUnreachable
from virtflow.files.lock import hold
from virtflow.network.addressing import mac_for, pick_address, tap_name
from virtflow.network.filters import build_filter, filter_name
from virtflow.persistence.networks import Network, Port
from virtflow.tasks.base import Intent, Task

_MAC_ATTEMPTS = 5


def port_id(instance_uuid: str, number: int) -> str:
    """The port's id follows from the instance: it is known before the port exists."""
    return str(uuid.uuid5(uuid.UUID(instance_uuid), f"port/{number}"))


def vif(port: Port, network: Network, dns: Sequence[str]) -> dict[str, Any]:
    """A port as the other tasks need it: plain data."""
    address = {"address": port.address, "cidr": network.cidr, "gateway": network.gateway}
    return {
        "port_id": port.id,
        "network_id": network.id,
        "mac": port.mac,
        "tap": port.tap,
        "mtu": network.mtu,
        "bridge": network.bridge,
        "managed_bridge": network.managed_bridge,
        "addresses": [address | {"dns": list(network.dns or dns)}],
        "owner": f"virtflow:{port.operation}:{port.id}",
    }


class AllocatePorts(Task):
    """Allocate a port on each network: address, MAC and tap name.

    Reverts: releases the ports that this operation allocated for this host: where the host was given up for another,
    which may be long ago, they are the other's by now. Port ids follow from the instance, so the same ports are found
    again.
    """

    default_provides = "vifs"

    def intents(self, spec: Mapping[str, Any], instance_uuid: str, **_arguments: Any) -> list[Intent]:
        return [Intent("port", port_id(instance_uuid, wanted["number"])) for wanted in spec["networks"]]

    def execute(
        self, spec: Mapping[str, Any], instance_uuid: str, operation: str, networks: Any, settings: Any
    ) -> list[dict[str, Any]]:
        vifs = []
        for wanted in spec["networks"]:
            network = networks.get(wanted["network"])
            port = self._allocate(networks, network, wanted, instance_uuid, operation, settings.host)
            vifs.append(vif(port, network, settings.dns))
        return vifs

    def revert(
        self, spec: Mapping[str, Any], instance_uuid: str, operation: str, networks: Any, settings: Any, **_kwargs: Any
    ) -> None:
        for wanted in reversed(spec["networks"]):
            networks.release_port(port_id(instance_uuid, wanted["number"]), operation, settings.host)

    @staticmethod
    def _allocate(
        networks: Any, network: Network, wanted: Mapping[str, Any], instance_uuid: str, operation: str, host: str
    ) -> Port:
        def pick(used: set[str]) -> str:
            pool = (network.cidr, network.gateway, network.allocation_start, network.allocation_end)
            return pick_address(*pool, used, network=network.name)

        identity = port_id(instance_uuid, wanted["number"])
        for attempt in range(_MAC_ATTEMPTS):
            try:
                port: Port = networks.allocate_port(
                    identity,
                    network,
                    instance=instance_uuid,
                    operation=operation,
                    host=host,
                    requested_address=wanted["address"],
                    pick=pick,
                    mac=mac_for(identity, attempt),
                    tap=tap_name(identity),
                )
            except Conflict:  # the MAC (24 bits) or the address is taken: another MAC helps against the first
                if wanted["address"] is not None or attempt == _MAC_ATTEMPTS - 1:
                    raise
            else:
                return port
        raise AssertionError("unreachable")


class PlugVifs(Task):
    """Make a tap for each port, on its network's bridge, and the filter against spoofing where libvirt has filters.

    Reverts: removes the filters and the taps that carry this operation's mark, then a bridge of ours that is left
    empty. Where libvirt could not be reached and no tap is there, nothing was made. A tap or filter that is there
    already is repaired, not made twice.
    """

    default_provides = "plugged"

    def intents(self, vifs: Sequence[Mapping[str, Any]], **_arguments: Any) -> list[Intent]:
        return [Intent("tap", each["tap"], {"bridge": each["bridge"]}) for each in vifs]

    def execute(
        self, vifs: Sequence[Mapping[str, Any]], taps: Any, hypervisor: Any, settings: Any
    ) -> list[dict[str, Any]]:
        return plug(vifs, taps, hypervisor, settings)

    def revert(
        self, result: Any, vifs: Sequence[Mapping[str, Any]], taps: Any, hypervisor: Any, settings: Any, **_kwargs: Any
    ) -> None:
        # Libvirt is asked before anything is made, and each tap is made before its filter.
        unreachable = isinstance(result, Failure) and result.check(HypervisorUnreachable)
        if unreachable and not {each["tap"] for each in vifs} & {tap.name for tap in taps.list()}:
            return
        unplug(vifs, taps, hypervisor, settings)


class UnplugVifs(Task):
    """Remove the taps and filters of a deleted instance.

    Reverts: plugs them again, as they were. Both directions only do what is not done yet.
    """

    def execute(self, vifs: Sequence[Mapping[str, Any]], taps: Any, hypervisor: Any, settings: Any) -> None:
        unplug(vifs, taps, hypervisor, settings)

    def revert(
        self, vifs: Sequence[Mapping[str, Any]], taps: Any, hypervisor: Any, settings: Any, **_kwargs: Any
    ) -> None:
        plug(vifs, taps, hypervisor, settings)


class DescribeVifs(Task):
    """Provide the vifs of an existing instance from its ports. It only reads; nothing to revert."""

    default_provides = "vifs"

    def execute(self, ports: Sequence[Mapping[str, Any]], networks: Any, settings: Any) -> list[dict[str, Any]]:
        return [vif(Port(**port), networks.get(port["network_id"]), settings.dns) for port in ports]

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


class ReleasePorts(Task):
    """Give the addresses of a deleted instance back to their networks.

    Reverts: takes them again; one that was given to another meanwhile makes that a debt. Doing it twice is no harm.
    """

    def execute(self, ports: Sequence[Mapping[str, Any]], networks: Any) -> None:
        for port in ports:
            networks.release_port(port["id"])

    def revert(self, ports: Sequence[Mapping[str, Any]], networks: Any, **_kwargs: Any) -> None:
        for port in reversed(ports):
            networks.restore_port(Port(**port))


def plug(vifs: Sequence[Mapping[str, Any]], taps: Any, hypervisor: Any, settings: Any) -> list[dict[str, Any]]:
    """Make sure that every vif has its tap and, where there are filters, its filter."""
    filters = bool(vifs) and hypervisor.capabilities().has_nwfilter
    plugged = []
    for each in vifs:
        with _bridge(each["bridge"], settings):
            if each["managed_bridge"]:
                taps.ensure_bridge(each["bridge"], _bridge_owner(each), each["mtu"])
            taps.plug(each["tap"], each["bridge"], each["mtu"], each["owner"])
        addresses = [address["address"] for address in each["addresses"]]
        if filters:
            hypervisor.define_filter(build_filter(each["tap"], each["mac"], addresses))
        plugged.append({"tap": each["tap"], "filter": filter_name(each["tap"]) if filters else None})
    return plugged


def unplug(vifs: Sequence[Mapping[str, Any]], taps: Any, hypervisor: Any, settings: Any) -> None:
    """Remove filters, taps and an empty bridge of ours, in the reverse order of ``plug``."""
    filters = bool(vifs) and hypervisor.capabilities().has_nwfilter
    for each in reversed(vifs):
        if filters:
            hypervisor.undefine_filter(filter_name(each["tap"]))
        with _bridge(each["bridge"], settings):
            taps.unplug(each["tap"], each["owner"])
            if each["managed_bridge"]:
                taps.remove_bridge_if_empty(each["bridge"], _bridge_owner(each))


@contextmanager
def _bridge(name: str, settings: Any) -> Iterator[None]:
    """The kernel has no "remove if it has no ports": who plugs into a bridge, or removes it, holds its lock."""
    with hold(settings.locks_path / f"bridge-{name}"):
        yield


def _bridge_owner(each: Mapping[str, Any]) -> str:
    return f"virtflow:network:{each['network_id']}"
