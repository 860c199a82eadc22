from __future__ import annotations

from functools import partial

import pytest

from virtflow.errors import Conflict, HostFull, NotFound
from virtflow.persistence.hosts import HostRepository
from virtflow.persistence.placement import PlacementRepository

SMALL = {"vcpus": 1, "memory_mib": 128, "disk_gib": 1}


@pytest.fixture
def placement(database):
    HostRepository(database).register("h1", 4, 1024, 10, cpu_ratio=1.5)
    return PlacementRepository(database)


@pytest.fixture
def hosts(database):
    return HostRepository(database)


def test_a_claim_is_recorded_and_released(placement):
    made = placement.claim("h1", "u1", "op", **SMALL)
    assert list(placement.allocations(consumer="u1")) == [made]
    assert placement.release("h1", "u1")
    assert not placement.release("h1", "u1")
    assert placement.allocations(host="h1") == []


def test_every_change_raises_the_generation(placement, hosts):
    generations = [hosts.get("h1").generation]
    placement.claim("h1", "u1", "op", **SMALL)
    generations.append(hosts.get("h1").generation)
    placement.release("h1", "u1")
    generations.append(hosts.get("h1").generation)
    hosts.register("h1", 8, 1024, 10)
    generations.append(hosts.get("h1").generation)
    assert generations == sorted(set(generations))


def test_the_first_resource_that_does_not_fit_is_named_with_what_is_free(placement):
    placement.claim("h1", "u1", "op", vcpus=5, memory_mib=1000, disk_gib=1)
    with pytest.raises(HostFull, match="host h1 has not enough memory_mib: 128 requested, 24 free"):
        placement.claim("h1", "u2", "op2", **SMALL)
    with pytest.raises(HostFull, match="vcpus: 2 requested, 1 free"):
        placement.claim("h1", "u2", "op2", **SMALL | {"vcpus": 2})
    assert placement.allocations(consumer="u2") == []


def test_a_ratio_overcommits_and_is_rounded_down(placement, hosts):
    hosts.register("h1", 3, 1024, 10, cpu_ratio=1.5)
    placement.claim("h1", "u1", "op", **SMALL | {"vcpus": 4})
    with pytest.raises(HostFull):
        placement.claim("h1", "u2", "op", **SMALL)


def test_a_host_that_shrank_below_its_claims_has_nothing_free(placement, hosts):
    placement.claim("h1", "u1", "op", **SMALL | {"vcpus": 4})
    hosts.register("h1", 1, 1024, 10)
    with pytest.raises(HostFull, match="1 requested, 0 free"):
        placement.claim("h1", "u2", "op2", **SMALL)


def test_the_same_operation_may_claim_again_and_change_its_mind(placement):
    made = placement.claim("h1", "u1", "op", **SMALL | {"vcpus": 6})
    assert placement.claim("h1", "u1", "op", **SMALL | {"vcpus": 6}) == made
    placement.claim("h1", "u1", "op", **SMALL | {"vcpus": 5})
    assert [each.vcpus for each in placement.allocations(host="h1")] == [5]


def test_another_operation_can_neither_replace_nor_release_a_claim(placement):
    placement.claim("h1", "u1", "op", **SMALL)
    with pytest.raises(Conflict, match="operation op has claimed it"):
        placement.claim("h1", "u1", "op2", **SMALL)
    assert not placement.release("h1", "u1", "op2")
    assert placement.release("h1", "u1", "op")


def test_an_unknown_host_is_not_found(placement, hosts):
    with pytest.raises(NotFound, match="host 'h9' not found"):
        placement.claim("h9", "u1", "op", **SMALL)
    with pytest.raises(NotFound):
        hosts.get("h9")


def test_eight_claims_at_once_never_oversell_a_host(placement, race):
    attempts = [partial(placement.claim, "h1", f"u{n}", f"op{n}", **SMALL | {"vcpus": 2}) for n in range(8)]
    claimed, raised = race(attempts)
    assert len(claimed) == 3
    assert [type(error) for error in raised] == [HostFull] * 5
    assert sum(each.vcpus for each in placement.allocations(host="h1")) == 6


def test_eight_claims_at_once_that_fit_all_succeed(placement, hosts, race):
    hosts.register("h2", 8, 1024, 8)
    claimed, raised = race([partial(placement.claim, "h2", f"u{n}", f"op{n}", **SMALL) for n in range(8)])
    assert (len(claimed), raised) == (8, [])
    assert hosts.get("h2").generation == 9
    assert [each.name for each in hosts.list()] == ["h1", "h2"]


def test_a_claim_that_is_adjusted_keeps_its_place_among_those_on_the_host(placement, hosts):
    first = placement.claim("h1", "u1", "op", **SMALL)
    second = placement.claim("h1", "u2", "op", **SMALL)
    before = hosts.get("h1").generation
    placement.adjust("h1", "u1", **{**SMALL, "vcpus": 2})
    (adjusted,) = placement.allocations(consumer="u1")
    assert adjusted.vcpus == 2
    assert adjusted.generation == first.generation < second.generation
    assert hosts.get("h1").generation > before
