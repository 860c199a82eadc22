"""Taps and bridges in the kernel, each test in a network namespace of its own."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
from pyroute2 import netns

from virtflow.errors import NetworkError
from virtflow.network.addressing import bridge_draft_name, tap_name
from virtflow.network.taps import Tap, Taps

T = TypeVar("T")

PORT = "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9fa"
TAP = tap_name(PORT)
OWNER = f"virtflow:op1:{PORT}"
SOMEBODY = f"virtflow:op2:{PORT}"
BRIDGE_OWNER = "virtflow:op1:net1"


_STEADY = ("ifindex", "mtu", "master", "ifalias", "address")


class Host:
    """A network namespace. ``do`` calls a function in a thread that lives in it; ``ip`` is iproute2's view of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._inside = ThreadPoolExecutor(max_workers=1, initializer=netns.setns, initargs=(name,))

    def do(self, function: Callable[..., T], *arguments: Any) -> T:
        return self._inside.submit(function, *arguments).result(timeout=30)

    def ip(self, *arguments: str) -> str:
        done = subprocess.run(["ip", "-n", self.name, *arguments], check=True, capture_output=True, text=True)
        return done.stdout

    def links(self) -> dict[str, Any]:
        """All but lo, and of their flags only "UP": the others (carrier) change by themselves, a little later."""
        found = [link for link in json.loads(self.ip("-j", "-d", "link", "show")) if link["ifname"] != "lo"]
        return {
            link["ifname"]: {"up": "UP" in link["flags"], **{key: link.get(key) for key in _STEADY}} for link in found
        }

    def python(self, script: str, *arguments: str) -> int:
        command = ["ip", "netns", "exec", self.name, sys.executable, "-c", script, *arguments]
        return subprocess.run(command, check=False, capture_output=True, timeout=60).returncode

    def close(self) -> None:
        self._inside.shutdown()


@pytest.fixture
def host() -> Iterator[Host]:
    if os.geteuid() != 0:
        pytest.skip("root is missing")
    if shutil.which("ip") is None:
        pytest.skip("ip is missing (apt install iproute2)")
    if not os.path.exists("/dev/net/tun"):
        pytest.skip("/dev/net/tun is missing")
    name = f"vft-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        made = Host(name)
        yield made
        made.close()
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture
def taps(host: Host) -> Taps:
    assert host.do(Taps().ensure_bridge, "br0", BRIDGE_OWNER, 1450) is True
    return Taps()


@pytest.mark.must_run
def test_a_plugged_tap_is_a_persistent_port_of_its_bridge_and_says_whose_it_is(host: Host, taps: Taps) -> None:
    host.do(taps.plug, TAP, "br0", 1400, OWNER)
    link = host.links()[TAP]
    assert "tun type tap pi off vnet_hdr off persist on" in host.ip("-d", "link", "show", TAP)
    assert (link["master"], link["mtu"], link["ifalias"]) == ("br0", 1400, OWNER)
    assert link["up"]
    assert host.do(taps.list) == [Tap(name=TAP, bridge="br0", mac=link["address"], mtu=1400, owner=OWNER)]


def test_the_host_has_no_address_on_its_guests_cables(host: Host, taps: Taps) -> None:
    host.do(taps.plug, TAP, "br0", 1500, OWNER)
    addresses = json.loads(host.ip("-j", "addr", "show"))
    assert {link["ifname"]: link["addr_info"] for link in addresses if link["ifname"] != "lo"} == {"br0": [], TAP: []}


def test_plugging_again_changes_nothing(host: Host, taps: Taps) -> None:
    host.do(taps.plug, TAP, "br0", 1400, OWNER)
    before = host.links()[TAP]
    host.do(taps.plug, TAP, "br0", 1400, OWNER)
    assert host.links()[TAP] == before


@pytest.mark.parametrize("damage", [("nomaster",), ("down",), ("mtu", "1300"), ("master", "other")], ids="-".join)
def test_plugging_again_repairs_what_is_missing(host: Host, taps: Taps, damage: tuple[str, ...]) -> None:
    host.do(taps.plug, TAP, "br0", 1400, OWNER)
    host.ip("link", "add", "other", "type", "bridge")
    before = host.links()[TAP]
    host.ip("link", "set", TAP, *damage)
    assert host.links()[TAP] != before
    host.do(taps.plug, TAP, "br0", 1400, OWNER)
    link = host.links()[TAP]
    assert (link["master"], link["mtu"], link["ifindex"]) == ("br0", 1400, before["ifindex"])
    assert link["up"]


def test_a_guest_may_hold_the_tap_while_it_is_plugged_again(host: Host, taps: Taps) -> None:
    host.do(taps.plug, TAP, "br0", 1400, OWNER)
    held = host.do(attach, TAP)
    host.do(taps.plug, TAP, "br0", 1400, OWNER)
    os.close(held)
    assert host.links()[TAP]["ifalias"] == OWNER


def test_two_guests_on_one_bridge_hear_each_other(host: Host, taps: Taps) -> None:
    other = tap_name(str(uuid.UUID(int=5)))
    host.do(taps.plug, TAP, "br0", 1400, OWNER)
    host.do(taps.plug, other, "br0", 1400, "virtflow:op1:5")
    first, second = host.do(attach, TAP), host.do(attach, other)
    frame = b"\xff" * 6 + bytes.fromhex("525400000001") + b"\x88\xb5" + b"hello, neighbour".ljust(60, b"\0")
    try:
        deadline, heard = time.monotonic() + 10, b""
        while heard != frame and time.monotonic() < deadline:
            os.write(first, frame)
            while select.select([second], [], [], 0.05)[0] and heard != frame:
                heard = os.read(second, 2048)
        assert heard == frame
    finally:
        os.close(first)
        os.close(second)


def attach(name: str) -> int:
    """Take the tap's other end, as QEMU does."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x0002 | 0x1000))
    return descriptor


@pytest.mark.parametrize(
    "stranger",
    [
        (("tuntap", "add", TAP, "mode", "tap"), ("link", "set", TAP, "alias", SOMEBODY)),
        (("tuntap", "add", TAP, "mode", "tap"),),
        (("tuntap", "add", TAP, "mode", "tun"), ("link", "set", TAP, "alias", OWNER)),
        (("link", "add", TAP, "type", "bridge"), ("link", "set", TAP, "alias", OWNER)),
        (("link", "add", TAP, "type", "veth", "peer", "name", "peer"),),
    ],
    ids=["another operation's tap", "a tap without alias", "a tun", "a bridge", "a veth"],
)
def test_a_device_of_somebody_else_is_neither_taken_nor_removed(
    host: Host, taps: Taps, stranger: tuple[tuple[str, ...], ...]
) -> None:
    for command in stranger:
        host.ip(*command)
    before = host.links()
    with pytest.raises(NetworkError, match=f"cannot plug {TAP}: the name is taken"):
        host.do(taps.plug, TAP, "br0", 1400, OWNER)
    assert host.do(taps.unplug, TAP, OWNER) is False
    assert host.links() == before


def test_plugging_into_a_missing_bridge_fails_and_leaves_nothing(host: Host) -> None:
    with pytest.raises(NetworkError, match=f"cannot plug {TAP}: there is no bridge br9"):
        host.do(Taps().plug, TAP, "br9", 1500, OWNER)
    assert host.links() == {}


def test_plugging_into_what_is_no_bridge_fails_and_leaves_nothing(host: Host) -> None:
    with pytest.raises(NetworkError, match="lo is not a bridge"):
        host.do(Taps().plug, TAP, "lo", 1500, OWNER)
    assert host.links() == {}


def test_an_mtu_that_the_kernel_refuses_leaves_nothing(host: Host, taps: Taps) -> None:
    with pytest.raises(NetworkError, match=f"cannot plug {TAP}: "):
        host.do(taps.plug, TAP, "br0", 1_000_000, OWNER)
    assert set(host.links()) == {"br0"}


def test_a_small_mtu_that_ipv6_cannot_use_is_fine(host: Host, taps: Taps) -> None:
    for _ in range(2):
        host.do(taps.plug, TAP, "br0", 600, OWNER)
        assert host.links()[TAP]["mtu"] == 600


def test_unplugging_removes_only_this_owners_tap_and_twice_is_fine(host: Host, taps: Taps) -> None:
    host.do(taps.plug, TAP, "br0", 1400, OWNER)
    assert host.do(taps.unplug, TAP, SOMEBODY) is False
    assert TAP in host.links()
    assert host.do(taps.unplug, TAP, OWNER) is True
    assert host.do(taps.unplug, TAP, OWNER) is False
    assert set(host.links()) == {"br0"}


def test_a_tap_that_looks_like_ours_is_listed_without_an_owner(host: Host, taps: Taps) -> None:
    for name in (TAP, "vf0b1c2d3e4fXY", "tap0"):
        host.ip("tuntap", "add", name, "mode", "tap")
    host.ip("tuntap", "add", "mine", "mode", "tap")
    host.ip("link", "set", "mine", "alias", "virtflow:op1:x")
    host.ip("tuntap", "add", "theirs", "mode", "tap")
    host.ip("link", "set", "theirs", "alias", "libvirt")
    assert [(tap.name, tap.bridge, tap.owner) for tap in host.do(taps.list)] == [
        ("mine", None, "virtflow:op1:x"),
        (TAP, None, None),
    ]


KILLED = """
import os, signal, sys
from virtflow.network import taps
steps, call, arguments = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
def counting(real):
    def step(*a, **k):
        global steps
        steps -= 1
        if steps < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*a, **k)
    return step
class Route:
    def __init__(self, real=taps.IPRoute):
        self.real = real()
        self.link = counting(self.real.link)
    def __enter__(self):
        return self
    def __exit__(self, *error):
        self.real.close()
taps.fcntl = type("fcntl", (), {"ioctl": staticmethod(counting(taps.fcntl.ioctl))})
taps.IPRoute = Route
getattr(taps.Taps(), call)(*(int(a) if a.isdigit() else a for a in arguments))
"""


def test_a_kill_at_any_step_of_plugging_leaves_nothing_and_the_next_plug_succeeds(host: Host, taps: Taps) -> None:
    for step in range(30):
        status = host.python(KILLED, str(step), "plug", TAP, "br0", "1400", OWNER)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        until_gone = time.monotonic() + 5
        while TAP in host.links() and time.monotonic() < until_gone:
            time.sleep(0.01)
        assert set(host.links()) == {"br0"}, f"after {step} steps"
    assert status == 0
    assert step > 4
    host.do(taps.plug, TAP, "br0", 1400, OWNER)
    assert [tap.owner for tap in host.do(taps.list)] == [OWNER]


def test_a_tap_that_is_about_to_vanish_with_its_maker_is_waited_for(host: Host, taps: Taps) -> None:
    def plug_while_it_vanishes() -> None:
        dying = attach(TAP)
        host.ip("link", "set", TAP, "alias", OWNER)
        with ThreadPoolExecutor(max_workers=1) as pool:
            pool.submit(lambda: (time.sleep(0.1), os.close(dying)))
            taps.plug(TAP, "br0", 1400, OWNER)

    host.do(plug_while_it_vanishes)
    assert "persist on" in host.ip("-d", "link", "show", TAP)
    assert host.links()[TAP]["master"] == "br0"


def test_a_kill_at_any_step_of_making_a_bridge_leaves_nothing_unknown_and_the_next_try_succeeds(host: Host) -> None:
    for step in range(30):
        status = host.python(KILLED, str(step), "ensure_bridge", "br1", BRIDGE_OWNER, "1450")
        assert set(host.do(Taps().bridges)) == set(host.links()), f"after {step} steps"
        assert host.do(Taps().bridges).get("br1", BRIDGE_OWNER) == BRIDGE_OWNER
        host.do(Taps().ensure_bridge, "br1", BRIDGE_OWNER, 1450)
        assert set(host.links()) == {"br1"}
        assert host.links()["br1"]["up"]
        assert host.do(Taps().remove_bridge_if_empty, "br1", BRIDGE_OWNER) is True
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert status == 0
    assert step > 4


def test_half_a_bridge_goes_with_the_revert_of_whoever_was_killed_making_it(host: Host) -> None:
    host.ip("link", "add", bridge_draft_name("br9"), "type", "bridge")
    host.ip("link", "add", bridge_draft_name("br8"), "type", "bridge")
    assert not host.do(Taps().remove_bridge_if_empty, "br9", BRIDGE_OWNER)
    assert set(host.do(Taps().bridges)) == {bridge_draft_name("br8")}


def test_a_made_bridge_is_up_has_its_mtu_and_an_address_that_its_ports_do_not_change(host: Host, taps: Taps) -> None:
    before = host.links()["br0"]
    assert (before["mtu"], before["ifalias"]) == (1450, BRIDGE_OWNER)
    assert before["up"]
    host.ip("tuntap", "add", "low", "mode", "tap")
    host.ip("link", "set", "low", "address", "02:00:00:00:00:01", "master", "br0")
    host.do(taps.plug, TAP, "br0", 1450, OWNER)
    after = host.links()["br0"]
    assert (after["address"], after["mtu"]) == (before["address"], 1450)


def test_a_bridge_of_anybody_is_used_as_it_is(host: Host) -> None:
    host.ip("link", "add", "br7", "type", "bridge")
    before = host.links()
    assert host.do(Taps().bridge_exists, "br7") is True
    assert host.do(Taps().ensure_bridge, "br7", BRIDGE_OWNER, 1450) is False
    assert host.do(Taps().remove_bridge_if_empty, "br7", BRIDGE_OWNER) is False
    assert host.do(Taps().bridges) == {}
    assert host.links() == before


def test_a_device_that_is_no_bridge_is_not_taken_for_one(host: Host) -> None:
    host.ip("tuntap", "add", "br8", "mode", "tap")
    assert host.do(Taps().bridge_exists, "br8") is False
    with pytest.raises(NetworkError, match="cannot create bridge br8: the name is taken"):
        host.do(Taps().ensure_bridge, "br8", BRIDGE_OWNER, 1450)
    assert set(host.links()) == {"br8"}


def test_a_bridge_is_removed_by_its_owner_when_its_last_port_is_gone(host: Host, taps: Taps) -> None:
    host.do(taps.plug, TAP, "br0", 1400, OWNER)
    assert host.do(taps.bridges) == {"br0": BRIDGE_OWNER}
    assert host.do(taps.remove_bridge_if_empty, "br0", BRIDGE_OWNER) is False
    host.do(taps.unplug, TAP, OWNER)
    assert host.do(taps.remove_bridge_if_empty, "br0", "virtflow:op2:net1") is False
    assert host.do(taps.remove_bridge_if_empty, "br0", BRIDGE_OWNER) is True
    assert host.do(taps.remove_bridge_if_empty, "br0", BRIDGE_OWNER) is False
    assert host.links() == {}


def test_without_the_right_to_change_the_network_there_is_one_clear_error(host: Host) -> None:
    script = """
import os
from virtflow.errors import NetworkError
from virtflow.network.taps import Taps
os.setgid(65534); os.setuid(65534)
try:
    Taps().ensure_bridge("br1", "virtflow:op1:net1", 1450)
except NetworkError as error:
    raise SystemExit(0 if str(error) == "cannot create bridge br1: Operation not permitted" else 2)
"""
    assert host.python(script) == 0
    assert host.links() == {}


def test_plugging_takes_less_than_10_ms_and_removing_little_more_than_the_kernel_needs(host: Host, taps: Taps) -> None:
    def measure() -> tuple[float, float, float]:
        started = time.perf_counter()
        taps.plug(TAP, "br0", 1400, OWNER)
        plugged = time.perf_counter()
        taps.unplug(TAP, OWNER)
        unplugged = time.perf_counter()
        os.close(attach("bare0"))  # not persistent: closing it is the least that removing a device costs
        return plugged - started, unplugged - plugged, time.perf_counter() - unplugged

    plug, unplug, bare = (min(column) for column in zip(*(host.do(measure) for _ in range(7)), strict=True))
    assert plug < 0.010
    assert unplug < bare + 0.010


def test_threads_share_one_taps_and_plug_side_by_side(host: Host, taps: Taps) -> None:
    ports = [str(uuid.uuid4()) for _ in range(16)]

    def plug_all() -> None:
        # Threads start in the namespace of the thread that starts them.
        with ThreadPoolExecutor(max_workers=8) as pool:
            for done in [pool.submit(taps.plug, tap_name(p), "br0", 1400, f"virtflow:op1:{p}") for p in ports]:
                done.result()

    host.do(plug_all)
    assert {(tap.name, tap.bridge) for tap in host.do(taps.list)} == {(tap_name(port), "br0") for port in ports}
