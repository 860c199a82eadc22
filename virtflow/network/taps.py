"""Taps and bridges on this host, through netlink and the tun driver: no external program, no daemon.

A tap belongs to an operation by its alias (``virtflow:<operation>:<port>``, in ``ip link`` the line "alias"). Nothing
that carries another alias is ever changed or removed.

Everything here acts in the network namespace of the calling thread. Importing it costs 0.2 s (pyroute2), so import it
where it is used.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute, NetlinkError

from virtflow.errors import NetworkError
from virtflow.network.addressing import DRAFT_PREFIX, TAP_PREFIX, bridge_draft_name

OWNER_PREFIX = "virtflow:"

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_OUR_TAP = re.compile(re.escape(TAP_PREFIX) + r"[0-9a-f]{11}")
_OUR_DRAFT = re.compile(re.escape(DRAFT_PREFIX) + r"[0-9a-f]{12}")
_LONGEST_ALIAS = 255
"""Bytes: IFALIASZ of linux/if.h without the final NUL."""

# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_TUN_EXCL = 0x8000
_TUN_TYPE_TAP = 2

_IFF_UP = 0x1
_NO_LINK_LOCAL = {"attrs": [["AF_INET6", {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", 1]]}]]}
_SETTLE_SECONDS = 2.0


@dataclass(frozen=True)
class Tap:
    """A tap that is ours by its alias (``owner``), or, with ``owner`` None, only by the shape of its name."""

    name: str
    bridge: str | None
    mac: str
    mtu: int
    owner: str | None


class Taps:
    """Makes, finds and removes taps and bridges. Holds nothing, so it may be shared by threads."""

    def plug(self, name: str, bridge: str, mtu: int, owner: str) -> None:
        """Ensure that the persistent tap ``name`` is there, up, a port of ``bridge``, with ``mtu`` bytes.

        What is missing at a tap of the same owner is repaired. Raises NetworkError when the bridge is missing, or
        when the name is taken by something of another owner, which is left as it is.
        """
        _check(name, owner)
        _check(bridge)
        with _netlink("plug", name) as route:
            master = _find(route, bridge)
            if master is None:
                raise NetworkError(action="plug", device=name, reason=f"there is no bridge {bridge}")
            if _kind(master) != "bridge":
                raise NetworkError(action="plug", device=name, reason=f"{bridge} is not a bridge")
            link = _find_settled(route, name)
            if link is None:
                _create_tap(route, name, master["index"], mtu, owner)
            elif not _is_tap(link) or _alias(link) != owner:
                raise NetworkError(action="plug", device=name, reason="the name is taken by a device of somebody else")
            else:
                _repair_tap(route, link, master["index"], mtu)

    def is_plugged(self, name: str, bridge: str) -> bool:
        """Whether packets can flow: the tap is up, a port of ``bridge``, and a QEMU holds its other end."""
        _check(name)
        _check(bridge)
        with _netlink("look at", name) as route:
            link, master = _find(route, name), _find(route, bridge)
            if link is None or master is None or _master(link) != master["index"]:
                return False
            return bool(link["flags"] & _IFF_UP) and link.get_attr("IFLA_CARRIER") == 1

    def unplug(self, name: str, owner: str) -> bool:
        """Remove the tap if it is there and of this owner, and say whether it was removed.

        Takes about 15 ms, the kernel's time to forget a device; under a running guest it pulls the cable.
        """
        _check(name, owner)
        with _netlink("unplug", name) as route:
            link = _find(route, name)
            if link is None or not _is_tap(link) or _alias(link) != owner:
                return False
            return _delete(route, link)

    def list(self) -> list[Tap]:
        """All taps of virtflow, by alias or by the shape of their name (those have the owner None)."""
        with _netlink("list", "taps") as route:
            found = [link for link in route.link("dump", kind="tun") if _is_tap(link) and _is_ours(link, _OUR_TAP)]
            bridges = {link["index"]: _name(link) for link in route.link("dump", kind="bridge")} if found else {}
        return sorted((_tap(link, bridges) for link in found), key=lambda tap: tap.name)

    def bridge_exists(self, name: str) -> bool:
        _check(name)
        with _netlink("look for", name) as route:
            link = _find(route, name)
            return link is not None and _kind(link) == "bridge"

    def ensure_bridge(self, name: str, owner_alias: str, mtu: int) -> bool:
        """Make the bridge when it is missing, and say whether it was made. An existing one is used as it is.

        The caller holds a lock for the name that ``remove_bridge_if_empty`` and every ``plug`` into this bridge
        take too, on this host: the kernel has no "remove if it has no ports".
        """
        _check(name, owner_alias)
        with _netlink("create bridge", name) as route:
            link = _find(route, name)
            if link is not None and _kind(link) != "bridge":
                raise NetworkError(action="create bridge", device=name, reason="the name is taken by another device")
            made = link is None and _create_bridge(route, name, owner_alias, mtu)
            link = link or _find(route, name)
            # Also a bridge of ours whose maker died before the last step.
            if link is not None and _alias(link) == owner_alias and not link["flags"] & _IFF_UP:
                route.link("set", index=link["index"], state="up")
            return made

    def remove_bridge_if_empty(self, name: str, owner_alias: str) -> bool:
        """Remove the bridge if it has this alias and no port, and say whether it was removed. Lock: see above.

        Half a bridge, whose maker was killed, goes too: it never was in use.
        """
        _check(name, owner_alias)
        with _netlink("remove bridge", name) as route:
            _delete_draft(route, name)
            link = _find(route, name)
            if link is None or _kind(link) != "bridge" or _alias(link) != owner_alias:
                return False
            if any(_master(port) == link["index"] for port in route.link("dump", master=link["index"])):
                return False
            return _delete(route, link)

    def bridge_ports(self, name: str) -> tuple[str, ...]:
        """The names of all devices in the bridge, whoever made them; none when there is no such bridge."""
        _check(name)
        with _netlink("look at", name) as route:
            link = _find(route, name)
            if link is None:
                return ()
            index = link["index"]
            return tuple(_name(port) for port in route.link("dump", master=index) if _master(port) == index)

    def bridges(self) -> dict[str, str | None]:
        """The bridges that virtflow made, by name, with their alias; None for a draft whose maker died."""
        with _netlink("list", "bridges") as route:
            links = [link for link in route.link("dump", kind="bridge") if _is_ours(link, _OUR_DRAFT)]
        return {_name(link): _alias(link) for link in sorted(links, key=_name)}


def _create_tap(route: IPRoute, name: str, master: int, mtu: int, owner: str) -> None:
    # Without TUNSETPERSIST the tap goes away with its descriptor. It is made persistent only when it is complete, so
    # that a process killed in the middle leaves nothing behind.
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_TUN_EXCL
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode("ascii"), flags))
        index = route.link("get", ifname=name)[0]["index"]
        _silence(route, index)
        route.link("set", index=index, ifalias=owner, mtu=mtu, address=_host_side_mac(name), master=master, state="up")
        fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)
    finally:
        os.close(descriptor)


def _repair_tap(route: IPRoute, link: Any, master: int, mtu: int) -> None:
    changes: dict[str, Any] = {}
    if link.get_attr("IFLA_MASTER") != master:
        changes["master"] = master
    if link.get_attr("IFLA_MTU") != mtu:
        changes["mtu"] = mtu
    if not link["flags"] & _IFF_UP:
        changes["state"] = "up"
    if changes:
        route.link("set", index=link["index"], **changes)


def _create_bridge(route: IPRoute, name: str, owner: str, mtu: int) -> bool:
    """The alias cannot be given at creation. So that the final name always has it, it comes last, by renaming."""
    draft = bridge_draft_name(name)
    _delete_draft(route, name)
    # Its own address: a bridge without one takes the lowest of its ports', and changes it as they come and go.
    mac = bytes((0x52, 0x54, 0x00, *secrets.token_bytes(3))).hex(":")
    route.link("add", ifname=draft, kind="bridge", address=mac, mtu=mtu)
    link = route.link("get", ifname=draft)[0]
    try:
        _silence(route, link["index"])
        route.link("set", index=link["index"], ifalias=owner)
        route.link("set", index=link["index"], ifname=name)
    except NetlinkError as error:
        _delete(route, link)
        if error.code == errno.EEXIST:
            return False
        raise
    return True


def _delete_draft(route: IPRoute, name: str) -> None:
    """What is left of a bridge whose maker was killed."""
    leftover = _find(route, bridge_draft_name(name))
    if leftover is not None:
        _delete(route, leftover)


def _silence(route: IPRoute, index: int) -> None:
    """No IPv6 link-local address: the host has no business to answer its guests on their own cable."""
    try:
        route.link("set", index=index, IFLA_AF_SPEC=_NO_LINK_LOCAL)
    except NetlinkError as error:
        if error.code not in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP):  # a kernel without IPv6 needs no silencing
            raise


def _host_side_mac(name: str) -> str:
    """High, as libvirt's taps have it: a bridge without an address of its own takes the lowest of its ports'."""
    return (b"\xfe" + hashlib.sha256(name.encode()).digest()[:5]).hex(":")


def _find(route: IPRoute, name: str) -> Any:
    try:
        return route.link("get", ifname=name)[0]
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return None
        raise


def _find_settled(route: IPRoute, name: str) -> Any:
    """A tap that is not persistent is being made, or vanishes with the process that was making it: wait for it."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        link = _find(route, name)
        if link is None or not _is_tap(link) or link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_TUN_PERSIST"):
            return link
        if time.monotonic() > deadline:
            raise NetworkError(action="plug", device=name, reason="another process holds the tap")
        time.sleep(0.01)


def _delete(route: IPRoute, link: Any) -> bool:
    try:
        route.link("del", index=link["index"])
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return False
        raise
    return True


def _tap(link: Any, bridges: dict[int, str]) -> Tap:
    return Tap(
        name=_name(link),
        bridge=bridges.get(link.get_attr("IFLA_MASTER")),
        mac=link.get_attr("IFLA_ADDRESS"),
        mtu=link.get_attr("IFLA_MTU"),
        owner=_alias(link),
    )


def _is_ours(link: Any, pattern: re.Pattern[str]) -> bool:
    alias = _alias(link)
    return alias.startswith(OWNER_PREFIX) if alias else pattern.fullmatch(_name(link)) is not None


def _is_tap(link: Any) -> bool:
    return _kind(link) == "tun" and (
        link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_TUN_TYPE") == _TUN_TYPE_TAP
    )


def _kind(link: Any) -> str | None:
    kind: str | None = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")
    return kind


def _name(link: Any) -> str:
    return str(link.get_attr("IFLA_IFNAME"))


def _master(link: Any) -> int | None:
    index: int | None = link.get_attr("IFLA_MASTER")
    return index


def _alias(link: Any) -> str | None:
    return link.get_attr("IFLA_IFALIAS") or None


def _check(name: str, owner: str | None = None) -> None:
    """The rule is stricter than the kernel's (which takes every byte but / and space), for logs and XML."""
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise NetworkError(action="use", device=ascii(name[:40]), reason="not an interface name of virtflow's")
    if owner is not None and not (
        owner.startswith(OWNER_PREFIX) and owner.isascii() and owner.isprintable() and len(owner) <= _LONGEST_ALIAS
    ):
        raise NetworkError(action="use", device=name, reason=f"{owner[:80]!a} is not an owner")


@contextlib.contextmanager
def _netlink(action: str, device: str) -> Iterator[IPRoute]:
    try:
        with IPRoute() as route:
            yield route
    except NetlinkError as error:
        raise NetworkError(action=action, device=device, reason=os.strerror(error.code)) from error
    except OSError as error:
        raise NetworkError(action=action, device=device, reason=error.strerror or str(error)) from error
