"""Where the volume is that a spawn makes to boot from, and where its instance: two hosts, neither serves the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.functional.conftest import missing
from virtflow.persistence.decisions import DecisionRepository
from virtflow.persistence.operations import Operation
from virtflow.requests import VolumeCreateRequest
from virtflow.testing.fleet import Fleet

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(180)]

SMALL, LARGE = "h1", "h2"


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    if reason := missing():
        pytest.skip(reason)
    room = {SMALL: {"volumes.capacity_gib": "5"}, LARGE: {"volumes.capacity_gib": "5000"}}
    with Fleet.up(special=room) as fleet:
        fleet.start()
        yield fleet
        assert fleet.settle() == []


def spawned(fleet: Fleet, name: str, **fields: Any) -> tuple[Operation, str, str]:
    """The spawn, and the hosts of its instance and of the volume that it boots from."""
    ended = fleet.wait(fleet.client.submit(fleet.small(name, disk_gib=None, boot_volume_gib=1, **fields)))
    assert ended.outcome == "SUCCESS", ended.error
    services = fleet.client.services
    instance = services["instances"].find(name, "default")
    return ended, str(instance.host), str(services["volumes"].find(f"{name}-root", "default").host)


def refused(fleet: Fleet, parent: Operation) -> dict[str, Any]:
    """What the decision about the volume says of the other backends."""
    (made,) = [each for each in fleet.client.operations.list(kind="volume-create") if each.parent == parent.id]
    (decision,) = DecisionRepository(fleet.client.database).of_operation(made.id)
    return dict(decision.document["refused"])


def test_a_volume_is_made_where_the_host_that_was_asked_for_reaches_it(fleet: Fleet) -> None:
    spawn, home, backend = spawned(fleet, "asked", host=SMALL)
    assert (home, backend) == (SMALL, SMALL)
    (filter_name, reason) = refused(fleet, spawn)[f"{LARGE}@local"]
    assert filter_name == "reach"
    assert reason == f"out of reach: it is on {LARGE}, which serves no other host, and the instance on {SMALL}"


def test_where_no_host_is_asked_for_the_instance_goes_to_the_volume(fleet: Fleet) -> None:
    spawn, home, backend = spawned(fleet, "free")
    assert (home, backend) == (LARGE, LARGE)
    assert refused(fleet, spawn) == {}


def test_other_volumes_that_decide_on_the_host_decide_on_the_backend_too(fleet: Fleet) -> None:
    made = fleet.wait(fleet.client.submit(VolumeCreateRequest(name="here", size_gib=1, for_host=SMALL)))
    assert made.outcome == "SUCCESS", made.error
    assert fleet.client.services["volumes"].find("here", "default").host == SMALL
    _spawn, home, backend = spawned(fleet, "bound", volumes=["here"])
    assert (home, backend) == (SMALL, SMALL)


def test_a_host_that_reaches_no_backend_with_room_is_told_so_and_nothing_is_left(fleet: Fleet) -> None:
    asked = fleet.small("full", disk_gib=None, boot_volume_gib=6, host=SMALL)
    ended = fleet.wait(fleet.client.submit(asked))
    assert (ended.outcome, ended.debts) == ("REVERTED", 0)
    assert f"{SMALL}@local: needs 6 GiB of disk" in str(ended.error)
    assert f"{LARGE}@local: out of reach" in str(ended.error)
