"""The guest's /etc/network/interfaces, rendered from a template."""

from __future__ import annotations

from typing import Any

import pytest

from virtflow.metadata.network_template import VARIABLES, check_template, render_network


def vif(*addresses: dict[str, Any], mac: str = "52:54:00:00:00:01") -> Any:
    return {"port_id": "p", "network_id": "n", "mac": mac, "tap": "vf1", "mtu": 1450, "addresses": addresses}


FULL = {"address": "10.0.0.5", "cidr": "10.0.0.0/24", "gateway": "10.0.0.1", "dns": ["9.9.9.9", "1.1.1.1"]}
BARE = {"address": "10.1.0.7", "cidr": "10.1.0.0/16", "gateway": None}
SIX = {"address": "fd00::5", "cidr": "fd00::/64", "gateway": "fd00::1"}


def test_a_static_address_with_all_that_belongs_to_it() -> None:
    rendered = render_network([vif(FULL)])
    assert rendered is not None
    assert rendered.decode().split("\n\n")[1] == (
        "auto eth0\n"
        "iface eth0 inet static\n"
        "    address 10.0.0.5\n"
        "    netmask 255.255.255.0\n"
        "    broadcast 10.0.0.255\n"
        "    gateway 10.0.0.1\n"
        "    dns-nameservers 9.9.9.9 1.1.1.1\n"
        "    mtu 1450\n"
    )
    assert b"iface lo inet loopback\n" in rendered


def test_what_an_address_does_not_have_has_no_line() -> None:
    rendered = render_network([vif(BARE)])
    assert rendered is not None
    assert b"netmask 255.255.0.0\n" in rendered
    assert b"gateway" not in rendered
    assert b"dns" not in rendered


def test_ports_are_counted_and_a_second_address_of_a_port_brings_it_up_only_once() -> None:
    rendered = render_network([vif(FULL, SIX), vif(BARE, mac="52:54:00:00:00:02")])
    assert rendered is not None
    lines = rendered.decode().splitlines()
    assert [line for line in lines if line.startswith("iface eth")] == [
        "iface eth0 inet static",
        "iface eth0 inet6 static",
        "iface eth1 inet static",
    ]
    assert [line for line in lines if line.startswith("auto")] == ["auto lo", "auto eth0", "auto eth1"]
    assert "    netmask 64" in lines


def test_a_guest_without_an_address_has_no_file() -> None:
    assert render_network([]) is None
    assert render_network([vif()]) is None


def test_a_template_of_ones_own_is_used_as_it_is() -> None:
    own = "# head $$5\n%%\n$name $mac $address/$prefix via $gateway\n"
    assert (
        render_network([vif(FULL), vif(BARE)], own) == b"# head $5\neth0 52:54:00:00:00:01 10.0.0.5/24 via 10.0.0.1\n"
    )


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("nothing is repeated\n", "0 lines %%"),
        ("%%\n%%\n", "2 lines %%"),
        ("%%\ncosts 5 $\n", "stray"),
        ("%%\n$host\n", "unknown variable \\$host"),
        ("$address\n%%\n", "unknown variable \\$address"),
    ],
)
def test_a_wrong_template_is_refused_with_its_line(template: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_template(template)


def test_every_variable_that_is_told_of_exists() -> None:
    check_template("%%\n" + " ".join(f"${name}" for name in VARIABLES))
    rendered = render_network([vif(FULL)], "%%\n" + "\n".join(f"{name} ${name}" for name in VARIABLES))
    assert rendered is not None
    assert len(rendered.decode().splitlines()) == len(VARIABLES)
