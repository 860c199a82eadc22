"""Which address, MAC and tap name a port gets. Pure: the caller reads what is used and writes what was picked.

Two callers may pick the same address or MAC at the same time; the unique columns of the ports table decide, and the
loser picks again.
"""

from __future__ import annotations

import hashlib
import ipaddress
import uuid
from collections.abc import Collection
from dataclasses import dataclass

from virtflow.errors import InvalidRequest, NoFreeAddress

TAP_PREFIX = "vf"
DRAFT_PREFIX = "vf-"
_TAP_DIGITS = 11
"""11 of a uuid's hex digits: a name of 13 characters where Linux allows 15 (IFNAMSIZ)."""

_OUI = "52:54:00"
"""The locally administered prefix that QEMU's documentation reserves for guests."""

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class AddressPool:
    """The addresses of a network that ports may have: ``first`` to ``last`` (both included) without ``gateway``."""

    network: IPNetwork
    gateway: IPAddress | None
    first: int
    last: int

    @property
    def cidr(self) -> str:
        return str(self.network)


def pool(
    cidr: str, gateway: str | None = None, allocation_start: str | None = None, allocation_end: str | None = None
) -> AddressPool:
    """Check the numbers of a network. InvalidRequest names the wrong one (cidr, gateway, allocation_start ...).

    The first address of a network is never handed out, nor IPv4's last (broadcast); both are ordinary addresses in
    /31 and /127 (RFC 3021, RFC 6164) and in a network of one. IPv6 has no broadcast; its first address is the subnet
    routers' anycast address (RFC 4291, 2.6.1).
    """
    network = _network(cidr)
    lowest, highest = _usable(network)
    first = int(_inside(network, allocation_start, "allocation_start")) if allocation_start else lowest
    last = int(_inside(network, allocation_end, "allocation_end")) if allocation_end else highest
    if first > last:
        raise InvalidRequest(field="allocation_end", reason=f"{allocation_end} is below the start of the range")
    return AddressPool(
        network=network,
        gateway=_inside(network, gateway, "gateway") if gateway else None,
        first=max(first, lowest),
        last=min(last, highest),
    )


def pick_address(
    cidr: str,
    gateway: str | None,
    allocation_start: str | None,
    allocation_end: str | None,
    used: Collection[str],
    *,
    network: str | None = None,
) -> str:
    """The lowest free address. Takes time in proportion to ``used``, not to the size of the network.

    ``network`` is the name for the error NoFreeAddress.
    """
    allowed = pool(cidr, gateway, allocation_start, allocation_end)
    taken = _numbers(used, allowed.network.version)
    if allowed.gateway is not None:
        taken.add(int(allowed.gateway))
    candidate = allowed.first
    while candidate in taken:
        candidate += 1
    if candidate > allowed.last:
        raise NoFreeAddress(network=network or cidr)
    return str(type(allowed.network.network_address)(candidate))


def check_address(cidr: str, gateway: str | None, address: str) -> str:
    """A requested address in its canonical spelling, or InvalidRequest(field="network").

    It may lie outside of the allocation range (that is what a person asks for it for), but must be one that a guest
    can have. Whether it is free is the caller's question to the database.
    """
    allowed = pool(cidr, gateway)
    wanted = _inside(allowed.network, address, "network")
    if wanted == allowed.gateway:
        raise InvalidRequest(field="network", reason=f"{wanted} is the gateway of {allowed.cidr}")
    if not allowed.first <= int(wanted) <= allowed.last:
        which = "network" if wanted == allowed.network.network_address else "broadcast"
        raise InvalidRequest(field="network", reason=f"{wanted} is the {which} address of {allowed.cidr}")
    return str(wanted)


def mac_for(port_id: str, attempt: int = 0) -> str:
    """The MAC of a port, always the same for the same port and attempt.

    24 bits are free, so among 1,000 ports a new one collides once in 17,000 times: after the unique column refused
    one, ask with the next ``attempt``.
    """
    digest = hashlib.sha256(uuid.UUID(port_id).bytes + attempt.to_bytes(4, "big")).digest()
    return ":".join((_OUI, *(f"{byte:02x}" for byte in digest[:3])))


def tap_name(port_id: str) -> str:
    """``vf`` and the first 11 hex digits of the port's uuid."""
    return TAP_PREFIX + uuid.UUID(port_id).hex[:_TAP_DIGITS]


def bridge_draft_name(bridge: str) -> str:
    """What a bridge of ours is called until it is complete: half a bridge is found by the name of the whole one."""
    return DRAFT_PREFIX + hashlib.sha256(bridge.encode()).hexdigest()[:12]


def _network(cidr: str) -> IPNetwork:
    try:
        network = ipaddress.ip_network(cidr)
    except ValueError as error:
        raise InvalidRequest(field="cidr", reason=_printable(str(error))) from error
    if network.is_multicast or network.is_loopback:
        raise InvalidRequest(field="cidr", reason=f"{network} has no addresses for guests")
    return network


def _usable(network: IPNetwork) -> tuple[int, int]:
    lowest, highest = int(network.network_address), int(network.broadcast_address)
    if network.num_addresses > 2:
        lowest += 1
        if network.version == 4:
            highest -= 1
    return lowest, highest


def _inside(network: IPNetwork, text: str, field: str) -> IPAddress:
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise InvalidRequest(field=field, reason=_printable(str(error))) from error
    if getattr(address, "scope_id", None) is not None:
        raise InvalidRequest(field=field, reason=f"{_printable(text)} names an interface of some host")
    if address not in network:
        raise InvalidRequest(field=field, reason=f"{address} is not in {network}")
    return address


def _numbers(used: Collection[str], version: int) -> set[int]:
    """As integers, because an IPv6 address has many spellings. A port of the other family is in nobody's way."""
    addresses = map(ipaddress.ip_address, used)
    return {int(address) for address in addresses if address.version == version}


def _printable(text: str) -> str:
    """What a person typed, safe and short enough for one line of a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text[:200])
