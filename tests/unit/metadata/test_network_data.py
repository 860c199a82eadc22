"""network_data.json, as guests' agents read it."""

from __future__ import annotations

from virtflow.metadata.network_data import Vif, VifAddress, network_data


def vif(*addresses: VifAddress, number: int = 1) -> Vif:
    return Vif(
        port_id=f"port-{number}",
        network_id=f"net-{number}",
        mac=f"52:54:00:00:00:0{number}",
        tap=f"vf0000000000{number}",
        mtu=1450,
        addresses=addresses,
    )


def v4(**more: object) -> VifAddress:
    return {"address": "10.0.0.5", "cidr": "10.0.0.0/20", "gateway": "10.0.0.1", **more}  # type: ignore[typeddict-item]


def test_an_ipv4_port_becomes_a_link_and_a_network_with_a_default_route() -> None:
    assert network_data([vif(v4(dns=["9.9.9.9"]))]) == {
        "links": [
            {
                "id": "vf00000000001",
                "vif_id": "port-1",
                "type": "phy",
                "mtu": 1450,
                "ethernet_mac_address": "52:54:00:00:00:01",
            }
        ],
        "networks": [
            {
                "id": "network0",
                "type": "ipv4",
                "link": "vf00000000001",
                "network_id": "net-1",
                "ip_address": "10.0.0.5",
                "netmask": "255.255.240.0",
                "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.0.0.1"}],
                "services": [{"type": "dns", "address": "9.9.9.9"}],
            }
        ],
        "services": [{"type": "dns", "address": "9.9.9.9"}],
    }


def test_an_ipv6_address_has_a_spelled_out_mask_and_its_own_default_route() -> None:
    address = VifAddress(address="fd00:0::5", cidr="fd00::/64", gateway="fd00::1")
    (network,) = network_data([vif(address)])["networks"]
    assert (network["type"], network["ip_address"]) == ("ipv6", "fd00::5")
    assert network["netmask"] == "ffff:ffff:ffff:ffff::"
    assert network["routes"] == [{"network": "::", "netmask": "::", "gateway": "fd00::1"}]


def test_without_a_gateway_there_is_no_default_route() -> None:
    (network,) = network_data([vif(v4(gateway=None))])["networks"]
    assert network["routes"] == []


def test_further_routes_follow_the_default_route() -> None:
    routes = [{"destination": "192.168.0.0/16", "gateway": "10.0.0.9"}]
    (network,) = network_data([vif(v4(routes=routes))])["networks"]
    assert network["routes"][1] == {"network": "192.168.0.0", "netmask": "255.255.0.0", "gateway": "10.0.0.9"}


def test_two_ports_keep_their_order_and_share_a_name_server_once() -> None:
    second = VifAddress(address="10.9.0.2", cidr="10.9.0.0/24", gateway=None, dns=["9.9.9.9", "1.1.1.1"])
    data = network_data([vif(v4(dns=["9.9.9.9"]), number=2), vif(second, number=1)])
    assert [link["id"] for link in data["links"]] == ["vf00000000002", "vf00000000001"]
    assert [(network["id"], network["link"]) for network in data["networks"]] == [
        ("network0", "vf00000000002"),
        ("network1", "vf00000000001"),
    ]
    assert [service["address"] for service in data["services"]] == ["9.9.9.9", "1.1.1.1"]


def test_an_instance_without_ports_has_three_empty_lists() -> None:
    assert network_data([]) == {"links": [], "networks": [], "services": []}
