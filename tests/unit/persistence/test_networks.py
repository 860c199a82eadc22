from __future__ import annotations

from dataclasses import asdict
from functools import partial

import pytest

from virtflow.errors import AlreadyExists, Conflict, NoFreeAddress, NotFound
from virtflow.persistence.networks import Network, NetworkRepository, Port

NET = Network(id="n1", name="net", cidr="10.0.0.0/24", dns=("10.0.0.2",), bridge="br0", managed_bridge=True)


def lowest(used: set[str]) -> str:
    for last in range(10, 20):
        if f"10.0.0.{last}" not in used:
            return f"10.0.0.{last}"
    raise NoFreeAddress(network="net")


@pytest.fixture
def networks(database):
    repository = NetworkRepository(database)
    repository.create(NET)
    return repository


@pytest.fixture
def allocate(networks):
    def call(port_id, *, network=NET, operation="op", address=None, mac=None):
        return networks.allocate_port(
            port_id,
            network,
            instance=f"instance-of-{port_id}",
            operation=operation,
            host="h1",
            requested_address=address,
            pick=lowest,
            mac=mac or f"52:54:00:00:00:{port_id}",
            tap=f"vf{port_id}",
        )

    return call


def test_a_network_is_found_by_name_and_by_id(networks):
    assert networks.get("net") == networks.get("n1") == NET
    assert networks.list() == [NET]
    with pytest.raises(NotFound, match="network 'absent' not found"):
        networks.get("absent")


def test_a_network_name_cannot_be_taken_twice(networks):
    with pytest.raises(AlreadyExists):
        networks.create(Network(id="n2", name="net", cidr="10.1.0.0/24", bridge="br1"))


def test_the_id_wins_over_a_network_that_bears_it_as_its_name(networks):
    networks.create(Network(id="n2", name="n1", cidr="10.1.0.0/24", bridge="br1"))
    assert networks.get("n1") == NET


def test_a_network_with_ports_cannot_be_deleted(networks, allocate):
    allocate("01")
    with pytest.raises(Conflict, match="cannot delete network 'net': it has ports"):
        networks.delete("net")
    networks.release_port("01")
    networks.delete("net")
    with pytest.raises(NotFound):
        networks.delete("net")


def test_ports_get_the_addresses_that_are_free(networks, allocate):
    assert [allocate(each).address for each in ("01", "02")] == ["10.0.0.10", "10.0.0.11"]
    networks.release_port("01")
    assert networks.used_addresses("n1") == {"10.0.0.11"}
    assert allocate("03").address == "10.0.0.10"


def test_allocating_the_same_port_again_returns_the_one_that_is_there(networks, allocate):
    first = allocate("01")
    assert allocate("01", address="10.0.0.99") == first
    assert networks.ports() == [first]


def test_a_requested_address_is_given_or_refused_and_never_replaced(networks, allocate):
    assert allocate("01", address="10.0.0.50").address == "10.0.0.50"
    with pytest.raises(Conflict, match=r"network 'net': address 10\.0\.0\.50 is in use"):
        allocate("02", address="10.0.0.50")
    assert len(networks.ports(network="n1")) == 1


def test_a_mac_address_in_use_is_refused(networks, allocate):
    allocate("01", mac="52:54:00:00:00:01")
    with pytest.raises(Conflict, match="MAC address 52:54:00:00:00:01 is in use"):
        allocate("02", mac="52:54:00:00:00:01")


def test_the_same_address_may_be_used_on_two_networks(networks, allocate):
    other = Network(id="n2", name="other", cidr="10.0.0.0/24", bridge="br1")
    networks.create(other)
    assert allocate("01").address == allocate("02", network=other).address


def test_a_port_on_a_network_that_is_gone_is_not_made(networks, allocate):
    networks.delete("net")
    with pytest.raises(NotFound, match="network 'net' not found"):
        allocate("01")


def test_an_error_of_the_picker_leaves_no_port(networks, allocate):
    for last in range(10, 20):
        allocate(f"{last}")
    with pytest.raises(NoFreeAddress):
        allocate("01")
    assert networks.ports(instance="instance-of-01") == []


def test_eight_ports_at_once_get_eight_addresses(networks, allocate, race):
    ports, raised = race([partial(allocate, f"0{n}", operation=f"op{n}") for n in range(8)])
    assert not raised
    assert len({port.address for port in ports}) == 8


def test_of_eight_that_request_one_address_one_gets_it(networks, allocate, race):
    ports, raised = race([partial(allocate, f"0{n}", address="10.0.0.50") for n in range(8)])
    assert len(ports) == 1
    assert [type(error) for error in raised] == [Conflict] * 7


def test_a_port_allocated_twice_at_once_is_one_port(networks, allocate, race):
    ports, raised = race([partial(allocate, "01")] * 8)
    assert not raised
    assert set(ports) == set(networks.ports())
    assert len(networks.ports()) == 1


def test_only_the_operation_that_made_a_port_releases_it_when_one_is_named(networks, allocate):
    allocate("01")
    assert not networks.release_port("01", "other")
    assert networks.release_port("01", "op")
    assert not networks.release_port("01")


def test_a_released_port_is_restored_from_its_plain_values(networks, allocate):
    port = allocate("01")
    networks.release_port("01")
    networks.restore_port(Port(**asdict(port)))
    networks.restore_port(port)
    assert networks.ports() == [port]


def test_a_port_whose_address_was_taken_meanwhile_cannot_be_restored(networks, allocate):
    port = allocate("01")
    networks.release_port("01")
    allocate("02")
    with pytest.raises(Conflict, match=r"address 10\.0\.0\.10 is in use"):
        networks.restore_port(port)


def test_a_port_whose_network_is_gone_cannot_be_restored(networks, allocate):
    port = allocate("01")
    networks.release_port("01")
    networks.delete("net")
    with pytest.raises(NotFound):
        networks.restore_port(port)
