"""Whatever dies on either host while an instance moves: its guest runs on one host, as it was or as it was to be.

Every task of the segments of a resize to another host: its worker is killed before or after it, and restarted or not;
the operation is cancelled there; or the task fails, or is repeated. Usually each ``EVERY``-th case is tried;
VIRTFLOW_WHOLE_SWEEP=1 takes them all. What is done to volumes only is tried with an instance that has one, of h1.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.faults.conftest import missing
from tests.faults.test_workers import never_twice
from tests.functional.test_migrate import SETTINGS, directory, instance, is_marked, mark
from virtflow.flows.kind import FlowKind
from virtflow.flows.resize import destination, prepare, source
from virtflow.flows.resize.destination import DestinationShape
from virtflow.flows.resize.source import SourceShape
from virtflow.persistence.operations import Operation
from virtflow.requests import DeleteRequest, Request, ResizeRequest, VolumeCreateRequest, VolumeDeleteRequest
from virtflow.testing.fleet import DOWN_AFTER, Fleet, await_

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(300)]

EVERY = 12
SEGMENTS: list[tuple[str, FlowKind, Any]] = [
    ("h2", prepare.KIND, None),
    ("h1", source.KIND, SourceShape()),
    ("h2", destination.KIND, DestinationShape(swap=True)),
]
TASKS = [(host, task.name) for host, kind, shape in SEGMENTS for task, _data in kind.build(shape).iter_nodes()]
HOW = {
    "before, restarted": "before:kill",
    "after, restarted": "after:kill",
    "before, away": "before:kill",
    "after, away": "after:kill",
    "cancelled": "after:sleep=1.5",
    "raised": "after:raise",
    "repeated": "before:repeat",
}
OUTCOMES = {
    "before, restarted": "SUCCESS",
    "after, restarted": "SUCCESS",
    "cancelled": "CANCELLED",
    "raised": "REVERTED",
    "repeated": "SUCCESS",
}
VOLUME_TASKS = {"DisconnectMovedVolumes": "h1", "ExportToDestination": "h1", "ConnectMovedVolumes": "h2"}
EVERY_OF_VOLUMES = 4
CASES = [(host, task, how) for how in HOW for host, task in TASKS]
VOLUME_CASES = [(host, task, how) for how in HOW for task, host in VOLUME_TASKS.items()]
if os.environ.get("VIRTFLOW_WHOLE_SWEEP"):
    CHOSEN = CASES + VOLUME_CASES
else:
    CHOSEN = CASES[::EVERY] + VOLUME_CASES[::EVERY_OF_VOLUMES]
SERVES = {"volumes.export": "nbd", "volumes.export_address": "127.0.0.1"}
GIVEN_UP = 2 * DOWN_AFTER + 2
LONG = 120.0
"""Seconds that an operation may take where others are busy."""


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    if reason := missing():
        pytest.skip(reason)
    with Fleet.up(special={"h1": SERVES, "h2": {"volumes.backends": ""}}, **SETTINGS) as up:
        yield up


def died_or_over(fleet: Fleet, host: str, operation: Operation) -> bool:
    return not fleet.hosts[host].alive or fleet.over(operation)


def broken(fleet: Fleet, operation: Operation, host: str, task: str, how: str) -> Operation:
    """How it ends: with its worker killed there, which is back at once or when it was given up; or as it was broken."""
    if how == "cancelled":
        fleet.wait_for_task(operation, task, host=host)
        fleet.client.cancel(operation.id)
        return fleet.wait(operation, LONG)
    if how in ("raised", "repeated"):
        return fleet.wait(operation, LONG)
    await_(partial(died_or_over, fleet, host, operation), f"the death of {host}'s worker", LONG)
    assert not fleet.hosts[host].alive, "the fault was never met"
    if how.endswith("away"):
        with contextlib.suppress(AssertionError):
            fleet.wait(operation, GIVEN_UP)
    fleet.start()
    return fleet.wait(operation, LONG)


@pytest.mark.parametrize(("host", "task", "how"), CHOSEN, ids=[f"{task}, {how}" for _host, task, how in CHOSEN])
def test_a_move_that_breaks_leaves_one_guest_with_its_data(fleet: Fleet, host: str, task: str, how: str) -> None:
    fleet.start()
    # The hosts are in one network namespace: what one takes back late would be taken from the other.
    plain: dict[str, Any] = {"networks": []} if how.endswith("away") else {}
    with_volume = task in VOLUME_TASKS
    if with_volume:
        plain |= {"volumes": ["data"]}
        run(fleet, VolumeCreateRequest(name="data", size_gib=1))
    request = fleet.small(host="h1", swap_mib=4, **plain)
    name = str(request.name)
    run(fleet, request)
    mark(directory(fleet, "h1", name) / "disk")
    fleet.hosts[host].stop()
    fleet.start({host: f"{task}:{HOW[how]}"})
    with never_twice(fleet):
        move = fleet.client.submit(ResizeRequest(name=name, disk_gib=2, host="h2"))
        ended = broken(fleet, move, host, task, how)
        assert fleet.settle(LONG) == []
        check(fleet, name, "h2" if ended.outcome == "SUCCESS" else "h1")
        assert ended.outcome == OUTCOMES.get(how, ended.outcome), ended.error
        if ended.outcome == "SUCCESS":
            fleet.client.request_undo(move.id)
            assert fleet.wait(move, LONG).outcome == "UNDONE"
            check(fleet, name, "h1")
        assert fleet.client.operations.get(move.id).debts == 0
    run(fleet, DeleteRequest(name=name))
    if with_volume:
        run(fleet, VolumeDeleteRequest(name="data"))
    fleet.hosts[host].stop()  # whatever fault it has not met yet
    assert fleet.settle(LONG) == []


def run(fleet: Fleet, request: Request) -> None:
    done = fleet.wait(fleet.client.submit(request), LONG)
    assert done.outcome == "SUCCESS", done.error


def check(fleet: Fleet, name: str, host: str) -> None:
    """It runs there and nowhere else, in the shape that it has there, with what it had on its disk."""
    found = instance(fleet, name)
    shape = ("h2", 2, "VERIFY_RESIZE") if host == "h2" else ("h1", 1, "ACTIVE")
    assert (found.host, found.disk_gib, found.vm_state, found.task_state) == (*shape, None)
    await_(lambda: name in fleet.hosts[host].guests(), f"that {name} runs on {host}")
    assert fleet.running()[found.uuid] == 1
    assert is_marked(directory(fleet, host, name) / "disk")
    for attachment in fleet.client.services["volume_attachments"].list(instance=found.uuid):
        assert attachment.connection is not None
        assert (attachment.host, attachment.connection["kind"]) == (host, "file" if host == "h1" else "nbd")
        assert fleet.client.services["volumes"].get(attachment.volume).state == "IN_USE"
