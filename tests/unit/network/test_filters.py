"""The anti-spoofing filter of a port."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree

from virtflow.errors import NetworkError
from virtflow.network.filters import build_filter, filter_name

TAP = "vf0b1c2d3e4f5"
MAC = "52:54:00:01:02:03"
SCHEMA = Path("/usr/share/libvirt/schemas/nwfilter.rng")


def sent(xml: str) -> list[tuple[str, dict[str, str]]]:
    """What a guest may send: protocol and what it must match."""
    accepting = etree.fromstring(xml).iterfind("rule[@action='accept'][@direction='out']")
    return [(match.tag, dict(match.attrib.items())) for rule in accepting for match in rule]


def test_an_ipv4_port_may_send_only_from_its_mac_and_address() -> None:
    xml = build_filter(TAP, MAC, ["10.0.0.5"])
    assert etree.fromstring(xml).get("name") == filter_name(TAP) == "virtflow-vf0b1c2d3e4f5"
    arp, ip, dhcp, announcement = sent(xml)
    assert arp == ("arp", {"srcmacaddr": MAC, "arpsrcmacaddr": MAC, "arpsrcipaddr": "10.0.0.5"})
    assert ip == ("ip", {"srcmacaddr": MAC, "srcipaddr": "10.0.0.5"})
    assert dhcp[1].items() > {"srcipaddr": "0.0.0.0", "protocol": "udp", "dstportstart": "67"}.items()
    assert announcement[0] == "rarp"


@pytest.mark.parametrize("addresses", [["10.0.0.5"], ["fd00::5"], ["10.0.0.5", "10.0.0.6", "fd00::5"], []])
def test_whatever_it_sends_is_from_its_mac_and_all_the_rest_is_dropped_last(addresses: list[str]) -> None:
    xml = build_filter(TAP, MAC, addresses)
    assert all(match["srcmacaddr"] == MAC for _protocol, match in sent(xml))
    *accepting, last = etree.fromstring(xml).iterfind("rule")
    assert (last.get("action"), last.get("direction"), last[0].attrib) == ("drop", "inout", {})
    assert all(int(rule.get("priority", "")) < int(last.get("priority", "")) for rule in accepting)


def test_a_port_with_both_families_may_use_both_and_discover_its_neighbours() -> None:
    found = [
        (protocol, match.get("srcipaddr")) for protocol, match in sent(build_filter(TAP, MAC, ["10.0.0.5", "fd00::5"]))
    ]
    assert ("ip", "10.0.0.5") in found
    assert [address for protocol, address in found if protocol == "ipv6"] == ["fd00::5", "fe80::5054:ff:fe01:203", "::"]


def test_without_an_address_nothing_may_be_sent() -> None:
    assert sent(build_filter(TAP, MAC, [])) == []


def test_all_rules_stand_in_one_chain_since_each_chain_costs_a_start_eight_commands() -> None:
    root = etree.fromstring(build_filter(TAP, MAC, ["10.0.0.5", "fd00::5"]))
    assert root.get("chain") == "root"
    assert root.find("filterref") is None


def test_building_it_again_gives_the_same_uuid_so_that_define_replaces_it() -> None:
    first, second = (etree.fromstring(build_filter(TAP, MAC, [a])).findtext("uuid") for a in ("10.0.0.5", "10.0.0.6"))
    assert first == second
    assert etree.fromstring(build_filter("vf00000000000", MAC, ["10.0.0.5"])).findtext("uuid") != first


@pytest.mark.parametrize(
    ("mac", "address"), [("52:54:00", "10.0.0.5"), (MAC, "10.0.0.5'/><x a='"), (MAC + "\n", "::1")]
)
def test_what_is_no_mac_or_address_is_refused(mac: str, address: str) -> None:
    with pytest.raises(NetworkError):
        build_filter(TAP, mac, [address])


@pytest.mark.parametrize("addresses", [["10.0.0.5"], ["fd00::5"], ["10.0.0.5", "fd00::5"], []])
def test_libvirts_schema_accepts_it(addresses: list[str]) -> None:
    if not SCHEMA.exists():
        pytest.skip(f"{SCHEMA} is missing (package libvirt-daemon or libvirt0)")
    etree.RelaxNG(etree.parse(SCHEMA)).assertValid(etree.fromstring(build_filter(TAP, MAC, addresses)))
