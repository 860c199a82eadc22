from __future__ import annotations

import pytest

from virtflow.errors import NotFound
from virtflow.persistence.networks import Network, NetworkRepository
from virtflow.persistence.vif_events import VifEventRepository


@pytest.fixture
def networks(database):
    """With the ports p1 and p2, of the instances u1 and u2."""
    networks = NetworkRepository(database)
    blue = Network(id="n1", name="blue", cidr="10.0.0.0/24", bridge="br0")
    networks.create(blue)
    for number in (1, 2):
        names = {"instance": f"u{number}", "operation": "op", "host": None, "mac": f"m{number}", "tap": f"t{number}"}
        address = f"10.0.0.{number}"
        networks.allocate_port(f"p{number}", blue, requested_address=address, pick=lambda _used: "", **names)
    return networks


@pytest.fixture
def events(database, networks):
    return VifEventRepository(database)


def test_what_is_expected_is_outstanding_until_it_comes(events):
    events.expect("u1", ["p1", "p2"])
    assert events.states("u1") == {"p1": "EXPECTED", "p2": "EXPECTED"}
    events.receive("u1", "p1")
    events.receive("u1", "p2", failed=True)
    assert events.states("u1") == {"p1": "PLUGGED", "p2": "FAILED"}


def test_an_event_that_came_before_anybody_expected_it_counts(events):
    events.receive("u1", "p1")
    events.expect("u1", ["p1", "p2"])
    assert events.states("u1") == {"p1": "PLUGGED", "p2": "EXPECTED"}


def test_expecting_again_after_a_crash_loses_nothing(events):
    events.expect("u1", ["p1"])
    events.receive("u1", "p1", failed=True)
    events.expect("u1", ["p1"])
    assert events.states("u1") == {"p1": "FAILED"}


def test_a_port_that_failed_and_was_plugged_after_all_is_plugged(events):
    events.receive("u1", "p1", failed=True)
    events.receive("u1", "p1")
    assert events.states("u1") == {"p1": "PLUGGED"}


def test_instances_do_not_see_each_others_ports(events):
    events.expect("u1", ["p1"])
    events.expect("u2", ["p2"])
    events.forget("u1")
    events.forget("u1")
    assert (events.states("u1"), events.states("u2")) == ({}, {"p2": "EXPECTED"})


def test_what_was_said_about_a_port_goes_with_the_port(events, networks):
    events.receive("u1", "p1")
    networks.release_port("p1")
    assert events.states("u1") == {}


def test_an_event_of_a_port_that_does_not_exist_is_refused(events):
    with pytest.raises(NotFound, match="port 'p9' not found"):
        events.receive("u1", "p9")
