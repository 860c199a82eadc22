"""The anti-spoofing filter of a port: what a guest may send, bound to the port's MAC and addresses.

All rules stand in one chain; see https://libvirt.org/formatnwfilter.html. libvirt's own building blocks
(``clean-traffic`` ...) forbid the same in seven chains, but libvirt runs eight ebtables commands for each chain and two
for each rule, for one guest after the other: they made a start take a second more, and eight starts eight.
A domain refers to the filter by the name that ``filter_name`` gives.
"""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Sequence

from lxml import etree

from virtflow.errors import NetworkError

FILTER_PREFIX = "virtflow-"

_UUIDS = uuid.UUID("5b0b8a52-8c0e-5d5c-9a3b-5c2f1c0a7e11")
_NOWHERE = str(ipaddress.IPv4Address(0))
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def filter_name(tap: str) -> str:
    return FILTER_PREFIX + tap


def build_filter(tap: str, mac: str, addresses: Sequence[str]) -> str:
    """nwfilter XML that lets a guest send only from ``mac`` and ``addresses`` (IPv4 or IPv6), and only IP and ARP.

    The filter's uuid is derived from its name: defining it again replaces it, where libvirt would refuse the same
    name under a new uuid. Raises NetworkError for what is no MAC or address.
    """
    mac = mac.lower()
    if not _MAC.fullmatch(mac):
        raise NetworkError(action="filter", device=tap, reason="not a MAC address")
    try:
        parsed = [ipaddress.ip_address(address) for address in addresses]
    except ValueError as error:
        raise NetworkError(action="filter", device=tap, reason=str(error)) from error
    name = filter_name(tap)
    root = etree.Element("filter", name=name, chain="root")
    etree.SubElement(root, "uuid").text = str(uuid.uuid5(_UUIDS, name))
    _add_ipv4(root, mac, [str(address) for address in parsed if address.version == 4])
    _add_ipv6(root, mac, [str(address) for address in parsed if address.version == 6])
    if parsed:
        _add_announcement(root, mac)
    _rule(root, "drop", "inout", "mac")
    return etree.tostring(root, pretty_print=True, encoding="unicode")


def _add_ipv4(root: etree._Element, mac: str, addresses: list[str]) -> None:
    """ARP may name the guest's own MAC and addresses alone. Who has no address yet may ask for one (RFC 2131, 4.1)."""
    if not addresses:
        return
    for address in addresses:
        _rule(root, "accept", "out", "arp", srcmacaddr=mac, arpsrcmacaddr=mac, arpsrcipaddr=address)
        _rule(root, "accept", "out", "ip", srcmacaddr=mac, srcipaddr=address)
    asking = {"srcipaddr": _NOWHERE, "dstipaddr": "255.255.255.255", "srcportstart": "68", "dstportstart": "67"}
    _rule(root, "accept", "out", "ip", srcmacaddr=mac, protocol="udp", **asking)
    _rule(root, "accept", "in", "arp")
    _rule(root, "accept", "in", "ip")


def _add_ipv6(root: etree._Element, mac: str, addresses: list[str]) -> None:
    """Neighbour discovery needs the link-local and, to detect duplicates, the unspecified address (RFC 4862, 5.4.2)."""
    if not addresses:
        return
    for address in (*addresses, _link_local(mac), "::"):
        _rule(root, "accept", "out", "ipv6", srcmacaddr=mac, srcipaddr=address)
    _rule(root, "accept", "in", "ipv6")


def _add_announcement(root: etree._Element, mac: str) -> None:
    """After a migration QEMU tells switches where the guest is now: a reverse ARP request for its own MAC."""
    nowhere = {"arpsrcipaddr": _NOWHERE, "arpdstipaddr": _NOWHERE}
    itself = {"srcmacaddr": mac, "arpsrcmacaddr": mac, "arpdstmacaddr": mac}
    _rule(root, "accept", "out", "rarp", dstmacaddr="ff:ff:ff:ff:ff:ff", opcode="Request_Reverse", **itself, **nowhere)


def _rule(root: etree._Element, action: str, direction: str, kind: str, **matches: str) -> None:
    """``out`` is what the guest sends. Rules are tried by priority: what no rule accepts is dropped last."""
    priority = "1000" if action == "drop" else "100"
    rule = etree.SubElement(root, "rule", action=action, direction=direction, priority=priority)
    etree.SubElement(rule, kind, matches)


def _link_local(mac: str) -> str:
    """fe80::/64 with the modified EUI-64 of the MAC (RFC 4291, appendix A)."""
    octets = bytearray.fromhex(mac.replace(":", ""))
    octets[0] ^= 0x02
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + octets[:3] + b"\xff\xfe" + octets[3:]))
