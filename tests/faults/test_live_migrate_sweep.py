"""Whatever breaks in a live migration, on either host: the guest runs on one of them, all that belongs to it is there.

It has a volume, encrypted, of one of the two.

Two real hosts are needed, so this is a sweep of its own, over all tasks of all flows of it: each raises before and
after its work, has its process killed there, and is executed twice. Reverts are swept where a migration that was to
fail anyway is taken back. Usually each n-th case is tried; VIRTFLOW_WHOLE_SWEEP=1 takes them all.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from taskflow.flow import Flow

from tests.lab import tgt as lab_tgt
from tests.lab.hosts import missing
from tests.lab.migrating import Movers, Watched, movers_up
from tests.lab.processes import wait_until
from virtflow.flows.live_migrate.kinds import LIVE_MIGRATE_KINDS
from virtflow.flows.volume.export_host import EXPORT_MOVED
from virtflow.persistence.operations import Operation
from virtflow.requests import VolumeCreateRequest
from virtflow.tasks.base import Task

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(300)]

EVERY = 61
HOSTS = ("labhost1", "labhost2")
ACTIONS = ("before:raise", "after:raise", "before:kill", "after:kill", "after:repeat")
REVERT_ACTIONS = ("before:kill", "after:kill", "after:repeat")
GOING = (
    *("LeaveSource", "SwitchArrived", "SwitchHost", "UnexportOnBackends", "PurgeUnused", "LetArrivedGo"),
    *("NotifyArrived", "Migrate", "UnexportLeft"),
)
CLEANING = ("CleanSource", "SettleLeftover", "RemoveLeftDir", "UnplugLeft", "DisconnectLeft", "UndefineLeft")
BEFORE_ACCEPT = {"LockForLiveMigration", "NotifyStart", "HoldMovedVolumes", "StashTransferSecret", "Accept"}
"""These run where the request comes from, in this very process."""
FENCED = {"FindArrived"}
"""Only where the source was fenced meanwhile: see functional/test_live_migrate_fenced.py."""


def tasks() -> list[str]:
    """Of all flows of a live migration, in their order, each once."""
    found = [name for kind in (*LIVE_MIGRATE_KINDS, EXPORT_MOVED) for name in names(kind.build(None))]
    return [name for name in dict.fromkeys(found) if name not in BEFORE_ACCEPT | FENCED]


def names(flow: Flow) -> Iterator[str]:
    for node, _links in flow.iter_nodes():
        if isinstance(node, Flow):
            yield from names(node)
        elif isinstance(node, Task):
            yield node.name


def cases() -> list[str]:
    forward = [f"{task}:{action}" for task in tasks() for action in ACTIONS]
    # The last thing that can fail before the guest goes makes everything before it revert.
    taken_back = [task for task in tasks() if task not in (*GOING, *CLEANING)]
    back = [f"PurgeSecrets:after:raise;{task}.revert:{action}" for task in taken_back for action in REVERT_ACTIONS]
    back += [f"Migrate:before:raise:5;Migrate.revert:{action}" for action in REVERT_ACTIONS]
    found = forward + back
    return found if os.environ.get("VIRTFLOW_WHOLE_SWEEP") else found[::EVERY]


@pytest.fixture(scope="module")
def movers() -> Iterator[Movers]:
    if reason := missing() or lab_tgt.missing():
        pytest.skip(reason)
    with movers_up(Path(tempfile.mkdtemp(prefix="vflab-")), volumes=True) as up:
        up.run(VolumeCreateRequest(name="sealed", size_gib=1, encrypted=True))
        up.spawn("swept", HOSTS[0], volumes=["sealed"])
        up.mark(HOSTS[0], "swept")
        yield up


@pytest.mark.parametrize("fault", cases())
def test_a_live_migration_that_breaks_leaves_the_guest_whole_on_one_host(movers: Movers, fault: str) -> None:
    source = str(movers.instance("swept").host)
    (other,) = set(HOSTS) - {source}
    for host in HOSTS:
        movers.stop(host)
        movers.start(host, fault)
    with Watched(movers, "swept"):
        asked = movers.migrate("swept")
        assert wait_until(lambda: ended(movers, asked), 150, 0.3), (movers.problems(), movers.told(asked))
    outcome = movers.outcome(asked)
    assert outcome in ("SUCCESS", "REVERTED"), movers.told(asked)
    here, there = (other, source) if outcome == "SUCCESS" else (source, other)
    assert movers.instance("swept").host == here
    assert movers.runs_on("swept") == [here]
    assert movers.is_marked(here, "swept")
    assert not movers.directory(there, "swept").exists()
    (attachment,) = movers.client.services["volume_attachments"].list()
    assert movers.tgt is not None
    reached = attachment.host, attachment.connection["kind"], len(movers.tgt.targets())
    assert reached == ((here, "file", 0) if here == HOSTS[0] else (here, "iscsi", 1))
    assert "sealed" in [each.name for each in movers.client.services["volumes"].list(state="IN_USE")]


def ended(movers: Movers, asked: Operation) -> bool:
    """Whether it is over and everything holds. Whichever worker has met the fault and was killed comes back without."""
    for host in HOSTS:
        movers.start(host)
    return movers.is_over(asked) and movers.problems() == []
