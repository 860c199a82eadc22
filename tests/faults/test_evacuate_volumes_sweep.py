"""Whatever breaks in what an evacuation does to volumes: one host reaches them, and the books say which.

It needs a server that asks for passwords, so it is a sweep of its own, on real hosts; a chosen few cases of it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.test_evacuate_volumes import AWAY, BEYOND, HOME, attachment, back, given_up, passwords
from tests.lab import tgt as lab_tgt
from tests.lab.hosts import missing
from tests.lab.processes import stop, wait_until
from tests.lab.serving import COUNTING, SECONDS, Place, halting, place_up
from virtflow.persistence.operations import Operation
from virtflow.requests import DeleteRequest, EvacuateRequest, VolumeCreateRequest, VolumeDeleteRequest

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(400)]

CASES = [
    (BEYOND, HOME, "ExportAnew:after:kill"),
    (BEYOND, HOME, "ExportAnew:after:raise"),
    (HOME, HOME, "LetMovedVolumesGo:after:raise"),
    (HOME, HOME, "ConnectMovedVolumes:after:kill"),
    (HOME, HOME, "ReplaceAttachments:after:kill"),
    (BEYOND, AWAY, "DisconnectLeftVolumes:before:repeat"),
]
"""Where the instance is to go, and what breaks on which host. Where it goes HOME, no other worker lives."""
EVERY = 2
CHOSEN = CASES if os.environ.get("VIRTFLOW_WHOLE_SWEEP") else CASES[::EVERY]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    if reason := missing() or lab_tgt.missing():
        pytest.skip(reason)
    with place_up(Path(tempfile.mkdtemp(prefix="vflab-")), hosts=3) as up:
        yield up


def again(place: Place, name: str, fault: str = "") -> None:
    """Start the worker again, with this fault."""
    stop(place.pids[name])
    place.start(place.hosts[name], fault)


def ended(place: Place, asked: Operation, host: str) -> Operation:
    """How it ends; who dies of it is started again, in peace."""

    def over() -> bool:
        place.start(place.hosts[host])
        return place.client.operations.get(asked.id, tasks=False).state == "FINISHED"

    assert wait_until(over, SECONDS, 0.2), place.client.operations.get(asked.id)
    return place.client.operations.get(asked.id)


@pytest.mark.parametrize(("to", "host", "fault"), CHOSEN, ids=[f"{fault}, to {to}" for to, _host, fault in CHOSEN])
def test_an_evacuation_that_breaks_leaves_the_volume_with_one_host(
    place: Place, to: str, host: str, fault: str
) -> None:
    for each in place.hosts.values():
        place.start(each)
    place.run(VolumeCreateRequest(name="root", size_gib=1, image=COUNTING))
    place.run(halting("web1", boot_volume="root", host=AWAY))
    before = attachment(place, "web1")
    given_up(place, place.compute)
    if to == HOME:
        stop(place.pids[BEYOND])
    if host != AWAY:
        again(place, host, fault)
    done = ended(place, place.client.submit(EvacuateRequest(name="web1", host=to)), to if host == AWAY else host)
    reverted = fault.endswith("raise")
    assert (done.outcome, done.debts) == ("REVERTED" if reverted else "SUCCESS", 0), done.error
    now = attachment(place, "web1")
    kept = [] if to == HOME and not reverted else [now["id"]]
    assert passwords(place) == kept
    assert (len(place.tgt.targets()), place.state("root")) == (len(kept), "IN_USE")
    if reverted:
        assert (now, place.runs_on("web1")) == (before, [AWAY])
        place.start(place.compute)
    else:
        assert now["host"] == to
        assert now["id"] != before["id"]
        place.start(place.compute, fault if host == AWAY else "")
        place.start(place.hosts[BEYOND])
        back(place, place.compute, "web1")
    for each in (HOME, BEYOND):
        again(place, each)  # whatever fault it has not met yet
    assert place.settled() == []
    place.run(DeleteRequest(name="web1"))
    place.run(VolumeDeleteRequest(name="root"))
    assert place.attached() == (0, 0, 0, 0)
    assert place.settled() == []
