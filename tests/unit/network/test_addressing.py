"""Which address, MAC and tap name a port gets."""

from __future__ import annotations

import ipaddress
import time
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtflow.errors import InvalidRequest, NoFreeAddress
from virtflow.network.addressing import check_address, mac_for, pick_address, pool, tap_name


def pick(cidr: str, gateway: str | None = None, *used: str, start: str | None = None, end: str | None = None) -> str:
    return pick_address(cidr, gateway, start, end, set(used))


@pytest.mark.parametrize(
    ("cidr", "gateway", "used", "expected"),
    [
        ("10.0.0.0/24", None, (), "10.0.0.1"),
        ("10.0.0.0/24", "10.0.0.1", (), "10.0.0.2"),
        ("10.0.0.0/24", "10.0.0.1", ("10.0.0.2", "10.0.0.4"), "10.0.0.3"),
        ("10.0.0.0/24", "10.0.0.254", ("10.0.0.1",), "10.0.0.2"),
        ("10.0.0.0/31", None, (), "10.0.0.0"),
        ("10.0.0.0/31", "10.0.0.0", (), "10.0.0.1"),
        ("10.0.0.7/32", None, (), "10.0.0.7"),
        ("fd00::/64", "fd00::1", (), "fd00::2"),
        ("fd00::/64", "fd00::1", ("fd00:0:0:0::2",), "fd00::3"),
        ("fd00::/127", None, (), "fd00::"),
    ],
)
def test_the_lowest_free_address_is_picked(
    cidr: str, gateway: str | None, used: tuple[str, ...], expected: str
) -> None:
    assert pick(cidr, gateway, *used) == expected


def test_the_allocation_range_is_kept_on_both_ends() -> None:
    assert pick("10.0.0.0/24", "10.0.0.1", start="10.0.0.100", end="10.0.0.101") == "10.0.0.100"
    assert pick("10.0.0.0/24", "10.0.0.1", "10.0.0.100", start="10.0.0.100", end="10.0.0.101") == "10.0.0.101"
    with pytest.raises(NoFreeAddress):
        pick("10.0.0.0/24", "10.0.0.1", "10.0.0.100", "10.0.0.101", start="10.0.0.100", end="10.0.0.101")


def test_a_range_that_covers_the_whole_network_still_spares_network_and_broadcast() -> None:
    assert pick("10.0.0.0/30", None, start="10.0.0.0", end="10.0.0.3") == "10.0.0.1"
    with pytest.raises(NoFreeAddress):
        pick("10.0.0.0/30", None, "10.0.0.1", "10.0.0.2", start="10.0.0.0", end="10.0.0.3")


def test_a_full_network_says_its_name() -> None:
    with pytest.raises(NoFreeAddress, match="'backstage'"):
        pick_address("10.0.0.0/30", "10.0.0.1", None, None, {"10.0.0.2"}, network="backstage")


def test_ports_of_the_other_family_are_in_nobodys_way() -> None:
    assert pick("10.0.0.0/24", None, "fd00::1", "::a00:1") == "10.0.0.1"


def test_the_size_of_the_network_costs_nothing() -> None:
    started = time.process_time()
    assert pick("10.0.0.0/8", "10.0.0.1", "10.0.0.2") == "10.0.0.3"
    assert pick("fd00::/8", "fd00::1") == "fd00::2"
    assert time.process_time() - started < 0.05


@st.composite
def networks_in_use(draw: st.DrawFn) -> tuple[str, str | None, set[str]]:
    prefix = draw(st.integers(24, 32))
    base = draw(st.integers(0x0A000000, 0x0AFFFFFF))
    network = ipaddress.IPv4Network((base & ~((1 << (32 - prefix)) - 1), prefix))
    addresses = [str(address) for address in network]
    gateway = draw(st.none() | st.sampled_from(addresses))
    return str(network), gateway, draw(st.sets(st.sampled_from(addresses), max_size=len(addresses)))


@given(networks_in_use())
def test_what_is_picked_is_free_usable_and_the_lowest_such(case: tuple[str, str | None, set[str]]) -> None:
    cidr, gateway, used = case
    network = ipaddress.IPv4Network(cidr)
    usable = [str(a) for a in (network.hosts() if network.prefixlen < 31 else network)]
    free = [address for address in usable if address not in used and address != gateway]
    if free:
        picked = pick_address(cidr, gateway, None, None, used)
        assert picked == free[0]
        assert check_address(cidr, gateway, picked) == picked
    else:
        with pytest.raises(NoFreeAddress):
            pick_address(cidr, gateway, None, None, used)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("10.0.0.0", "network address"),
        ("10.0.0.255", "broadcast address"),
        ("10.0.0.1", "gateway"),
        ("10.0.1.5", "not in 10.0.0.0/24"),
        ("fd00::5", "not in 10.0.0.0/24"),
        ("10.0.0.05", "05"),
        ("10.0.0.5/24", "10.0.0.5/24"),
        ("", "does not appear"),
        ("5", "does not appear"),
        ("fe80::5%eth0", "interface"),
        ("\x1b[31m", "does not appear"),
    ],
)
def test_a_requested_address_that_no_guest_can_have_is_refused(address: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as caught:
        check_address("10.0.0.0/24", "10.0.0.1", address)
    assert caught.value.field == "network"
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_a_requested_address_comes_back_in_its_canonical_spelling() -> None:
    assert check_address("fd00::/64", "fd00::1", "FD00:0:0:0:0:0:0:0abc") == "fd00::abc"


def test_ipv6_has_no_broadcast_address() -> None:
    assert check_address("fd00::/126", None, "fd00::3") == "fd00::3"


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_one_clear_line(text: str) -> None:
    outcome = ""
    try:
        outcome = check_address("10.0.0.0/24", None, text)
    except InvalidRequest as error:
        outcome = str(error).removeprefix("network: ")
    assert outcome.isprintable()
    assert " " in outcome or outcome in map(str, ipaddress.IPv4Network("10.0.0.0/24").hosts())


@pytest.mark.parametrize(
    ("field", "numbers"),
    [
        ("cidr", {"cidr": "10.0.0.1/24"}),
        ("cidr", {"cidr": "10.0.0.0/33"}),
        ("cidr", {"cidr": "everything"}),
        ("cidr", {"cidr": "224.0.0.0/8"}),
        ("cidr", {"cidr": "127.0.0.0/8"}),
        ("gateway", {"cidr": "10.0.0.0/24", "gateway": "10.0.1.1"}),
        ("gateway", {"cidr": "10.0.0.0/24", "gateway": "nobody"}),
        ("allocation_start", {"cidr": "10.0.0.0/24", "allocation_start": "10.0.1.0"}),
        ("allocation_end", {"cidr": "10.0.0.0/24", "allocation_end": "fd00::1"}),
        (
            "allocation_end",
            {"cidr": "10.0.0.0/24", "allocation_start": "10.0.0.9", "allocation_end": "10.0.0.8"},
        ),
    ],
)
def test_a_wrong_number_of_a_network_is_named(field: str, numbers: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        pool(**numbers)
    assert caught.value.field == field


PORT = "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9fa"


def test_a_mac_is_the_ports_own_and_another_one_at_the_next_attempt() -> None:
    macs = {mac_for(PORT), mac_for(PORT, 1), mac_for(str(uuid.UUID(int=1)))}
    assert len(macs) == 3
    assert mac_for(PORT) == mac_for(PORT.upper())
    assert all(mac.startswith("52:54:00:") and len(mac) == 17 for mac in macs)


def test_a_taps_name_fits_the_kernel_and_comes_from_the_port() -> None:
    assert tap_name(PORT) == "vf0b1c2d3e4f5"


@pytest.mark.parametrize("port", ["", "../../etc", "0b1c2d3e"])
def test_what_is_no_uuid_never_becomes_a_tap(port: str) -> None:
    with pytest.raises(ValueError, match="badly formed"):
        tap_name(port)
