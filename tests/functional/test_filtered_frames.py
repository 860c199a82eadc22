"""What a port's filter lets through, frame by frame: sent on the guest's end of a cable whose other end is the port.

No guest is needed: libvirt applies a filter to any port of a bridge, and a hostile guest would send such frames.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.lab.processes import wait_until
from virtflow.network.filters import build_filter, filter_name

if TYPE_CHECKING:
    from tests.lab.hosts import LabHost

libvirt = pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(120)]

PORT, GUEST, LISTENER, OUT = "vf5e17a0b0c1d", "vfguest", "vflisten", "vfout"
BRIDGE = "brframes"
MAC, OTHER_MAC, BROADCAST = "52:54:00:aa:bb:cc", "52:54:00:de:ad:01", "ff:ff:ff:ff:ff:ff"
V4, OTHER_V4, V6, OTHER_V6 = "10.99.7.5", "10.99.7.66", "fd00:7::5", "fd00:7::66"
LINK_LOCAL = "fe80::5054:ff:feaa:bbcc"
MARK = b"frame 0000"
"""In what a frame carries: its number, by which it is known again."""
_LAST = "last"
EVERYBODY = 0x0003
"""ETH_P_ALL"""


def frame(ethertype: int, payload: bytes, *, source: str = MAC, target: str = BROADCAST) -> bytes:
    return mac(target) + mac(source) + struct.pack("!H", ethertype) + payload + MARK


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def ip(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def arp(sender: str, *, sender_mac: str = MAC, source: str = MAC, opcode: int = 1) -> bytes:
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, opcode) + mac(sender_mac) + ip(sender) + bytes(6) + ip("10.99.7.1")
    return frame(0x0806, body, source=source)


def rarp(announced: str, *, source: str = MAC) -> bytes:
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 3) + mac(announced) + bytes(4) + mac(announced) + bytes(4)
    return frame(0x8035, body, source=source)


def ipv4(sender: str, *, source: str = MAC, target: str = "10.99.7.1", ports: tuple[int, int] = (9, 9)) -> bytes:
    udp = struct.pack("!HHHH", *ports, 8 + len(MARK), 0)
    words = [
        0x4500,
        28 + len(MARK),
        0,
        0,
        64 << 8 | socket.IPPROTO_UDP,
        0,
        *struct.unpack("!4H", ip(sender) + ip(target)),
    ]
    folded = sum(words) % 0xFFFF
    words[5] = 0xFFFF - folded
    return frame(0x0800, struct.pack("!10H", *words) + udp, source=source)


def ipv6(sender: str, *, source: str = MAC) -> bytes:
    header = struct.pack("!IHBB", 6 << 28, 8 + len(MARK), socket.IPPROTO_UDP, 64) + ip(sender) + ip("ff02::1")
    return frame(0x86DD, header + struct.pack("!HHHH", 9, 9, 8 + len(MARK), 0), source=source)


OWN_V4 = {
    "ARP": arp(V4),
    "ARP reply": arp(V4, opcode=2),
    "IPv4": ipv4(V4),
    "DHCP": ipv4("0.0.0.0", target="255.255.255.255", ports=(68, 67)),
}
OWN_V6 = {"IPv6": ipv6(V6), "link-local": ipv6(LINK_LOCAL), "duplicate address detection": ipv6("::")}
ANNOUNCEMENT = {"announcement": rarp(MAC)}
SPOOFED = {
    "IPv4 of another address": ipv4(OTHER_V4),
    "IPv4 of another MAC": ipv4(V4, source=OTHER_MAC),
    "IPv4 from nowhere, to a host": ipv4("0.0.0.0", ports=(68, 67)),
    "DHCP of another MAC": ipv4("0.0.0.0", source=OTHER_MAC, target="255.255.255.255", ports=(68, 67)),
    "a DHCP server": ipv4(OTHER_V4, target="255.255.255.255", ports=(67, 68)),
    "ARP of another address": arp(OTHER_V4),
    "ARP reply of another address": arp(OTHER_V4, opcode=2),
    "ARP that names another MAC": arp(V4, sender_mac=OTHER_MAC),
    "ARP of another MAC": arp(V4, source=OTHER_MAC),
    "ARP of another MAC altogether": arp(V4, source=OTHER_MAC, sender_mac=OTHER_MAC),
    "announcement of another MAC": rarp(OTHER_MAC),
    "announcement by another MAC": rarp(MAC, source=OTHER_MAC),
    "IPv6 of another address": ipv6(OTHER_V6),
    "IPv6 of another MAC": ipv6(V6, source=OTHER_MAC),
    "a VLAN's": frame(0x8100, struct.pack("!HH", 5, 0x0800) + ipv4(V4)[14 : -len(MARK)]),
    "frames without a protocol": mac("01:00:0c:cc:cc:cc")
    + mac(MAC)
    + struct.pack("!H", 38)
    + b"\x42\x42\x03".ljust(38 - len(MARK), b"\0")
    + MARK,
    "an unknown protocol": frame(0x88B5, b"hello"),
}
FRAMES = OWN_V4 | OWN_V6 | ANNOUNCEMENT | SPOOFED


class Cable:
    """A port of a bridge, what the guest would hold of it, and somebody who listens on the same bridge."""

    def __init__(self, host: LabHost) -> None:
        self._host = host
        for one, other in ((PORT, GUEST), (LISTENER, OUT)):
            host.network.ip("link", "add", one, "type", "veth", "peer", "name", other)
        host.network.ip("link", "add", BRIDGE, "type", "bridge", "mcast_snooping", "0")
        for name in (PORT, LISTENER):
            host.network.ip("link", "set", name, "master", BRIDGE)
        for name in (BRIDGE, PORT, GUEST, LISTENER, OUT):
            host.network.ip("link", "set", name, "up")
        assert wait_until(lambda: all(self._forwards(name) for name in (PORT, LISTENER)), 10)

    def _forwards(self, name: str) -> bool:
        return "state forwarding" in self._host.network.ip("-d", "link", "show", name)

    def remove(self) -> None:
        for name in (PORT, LISTENER, BRIDGE):
            self._host.network.ip("link", "delete", name)

    def passes(self, frames: dict[str, bytes], *, towards_the_guest: bool = False) -> set[str]:
        """The names of those that come out at the other end. The last one sent says that all others are through."""
        start, end = (OUT, GUEST) if towards_the_guest else (GUEST, OUT)
        sender, receiver = (self._host.call(lambda name=name: _raw(name)) for name in (start, end))
        last = ipv4(OTHER_V4, source=OTHER_MAC) if towards_the_guest else ipv4(V4)
        marks = {b"frame %04d" % number: name for number, name in enumerate((*frames, _LAST))}
        passed = set()
        with sender, receiver:
            for mark, content in zip(marks, (*frames.values(), last), strict=True):
                sender.send(content.replace(MARK, mark))
            while _LAST not in passed:
                passed |= {marks[mark] for mark in re.findall(rb"frame \d{4}", receiver.recv(2048))}
        return passed - {_LAST}


def _raw(name: str) -> socket.socket:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERYBODY))
    raw.bind((name, EVERYBODY))
    raw.settimeout(10)
    return raw


@pytest.fixture(scope="module")
def cable(lab_hosts: tuple[LabHost, ...]) -> Iterator[Cable]:
    made = Cable(lab_hosts[0])
    yield made
    made.remove()


class Binding:
    """A filter, applied to the port while the block runs."""

    def __init__(self, host: LabHost, addresses: list[str]) -> None:
        self._connection = libvirt.open(host.local_uri)
        self._filter = self._connection.nwfilterDefineXML(build_filter(PORT, MAC, addresses))

    def __enter__(self) -> None:
        self._binding = self._connection.nwfilterBindingCreateXML(
            f"<filterbinding><owner><name>none</name><uuid>{uuid.uuid4()}</uuid></owner><portdev name='{PORT}'/>"
            f"<mac address='{MAC}'/><filterref filter='{filter_name(PORT)}'/></filterbinding>"
        )

    def __exit__(self, *_: object) -> None:
        self._binding.delete()
        self._filter.undefine()
        self._connection.close()


def test_without_a_filter_everything_passes(cable: Cable) -> None:
    assert cable.passes(FRAMES) == FRAMES.keys()


def test_a_port_with_an_ipv4_address_sends_under_its_own_name_only(
    lab_hosts: tuple[LabHost, ...], cable: Cable
) -> None:
    with Binding(lab_hosts[0], [V4]):
        assert cable.passes(FRAMES) == (OWN_V4 | ANNOUNCEMENT).keys()


def test_a_port_with_both_families_sends_under_its_own_names_only(lab_hosts: tuple[LabHost, ...], cable: Cable) -> None:
    with Binding(lab_hosts[0], [V4, V6]):
        assert cable.passes(FRAMES) == (OWN_V4 | OWN_V6 | ANNOUNCEMENT).keys()


def test_only_the_families_of_its_addresses_reach_a_port(lab_hosts: tuple[LabHost, ...], cable: Cable) -> None:
    towards = {
        "ARP": arp(OTHER_V4, source=OTHER_MAC, sender_mac=OTHER_MAC),
        "IPv4": ipv4(OTHER_V4, source=OTHER_MAC),
        "IPv6": ipv6(OTHER_V6, source=OTHER_MAC),
        "unknown": frame(0x88B5, b"hello", source=OTHER_MAC),
    }
    with Binding(lab_hosts[0], [V4]):
        assert cable.passes(towards, towards_the_guest=True) == {"ARP", "IPv4"}
    with Binding(lab_hosts[0], [V4, V6]):
        assert cable.passes(towards, towards_the_guest=True) == {"ARP", "IPv4", "IPv6"}
