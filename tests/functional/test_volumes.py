"""Volumes on one host, with a guest that says what it sees."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.functional.node_volumes import file_of, make, volume
from tests.functional.nodes import Console, Node, booting, node_up
from tests.lab.processes import wait_until
from virtflow import faults
from virtflow.engine.audit import audit_of
from virtflow.errors import Conflict, InvalidRequest, OperationFailed
from virtflow.requests import (
    DeleteRequest,
    SnapshotCreateRequest,
    SnapshotDeleteRequest,
    VolumeAttachRequest,
    VolumeDeleteRequest,
    VolumeDetachRequest,
    VolumeExtendRequest,
)

if TYPE_CHECKING:
    from virtflow.requests import Request

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(240)]

GIB = 1 << 30
GIB_IN_KIB = 1 << 20
SEEN_SECONDS = 60.0


@pytest.fixture(scope="module")
def node(embed_root: Path, catalog: Path) -> Iterator[Node]:
    settings = {"volumes.backends": "first:file,second:file", "volumes.detach_timeout": "20"}
    settings["notifications.drivers"] = "file"
    with node_up(embed_root, catalog, **settings) as up:
        yield up


def run(node: Node, request: Request) -> None:
    node.runner.run(request)


def seen(console: Console) -> dict[str, int]:
    """Disks and their sizes in KiB, as the guest has said last."""
    return {name: int(size) for name, size in re.findall(r"(vd[a-z])=(\d+)", console.line("PARTS"))}


def wait_seen(console: Console, device: str, size: int | None) -> None:
    deadline = time.monotonic() + SEEN_SECONDS
    while seen(console).get(device) != size:
        assert time.monotonic() < deadline, f"{device} is never {size}: {console.text[-500:]}"
        time.sleep(0.2)


def test_a_running_guest_sees_a_volume_come_grow_and_go(node: Node) -> None:
    node.runner.run(booting("talker"))
    console = Console(node.directory("talker") / "console.log").wait_ready()
    made = make(node, "data")
    run(node, VolumeAttachRequest(name="data", instance="talker"))
    (attachment,) = node.rows("volume_attachments")
    wait_seen(console, attachment["device"], GIB_IN_KIB)
    assert volume(node, "data").state == "IN_USE"
    run(node, VolumeExtendRequest(name="data", size_gib=2))
    wait_seen(console, attachment["device"], 2 * GIB_IN_KIB)
    assert (file_of(node, made).stat().st_size, volume(node, "data").size_gib) == (2 * GIB, 2)
    assert audit_of(node.runner) == []
    run(node, VolumeDetachRequest(name="data"))
    wait_seen(console, attachment["device"], None)
    assert (volume(node, "data").state, node.rows("volume_attachments")) == ("AVAILABLE", [])
    assert made.id not in node.hypervisor.domain_xml(node.instance("talker").uuid)


def test_an_attach_that_fails_at_its_end_takes_the_disk_out_of_the_running_guest(node: Node) -> None:
    console = Console(node.directory("talker") / "console.log").wait_ready()
    make(node, "late")
    before, disks = node.residue(), seen(console)
    with faults.injected("LetInstanceGo:before:raise"), pytest.raises(OperationFailed):
        run(node, VolumeAttachRequest(name="late", instance="talker"))
    assert node.left_since(before) == []
    for device in set(seen(console)) - set(disks):
        wait_seen(console, device, None)


def test_a_detach_that_fails_at_its_end_gives_the_disk_back_to_the_running_guest(node: Node) -> None:
    console = Console(node.directory("talker") / "console.log").wait_ready()
    run(node, VolumeAttachRequest(name="late", instance="talker"))
    (attachment,) = node.rows("volume_attachments")
    wait_seen(console, attachment["device"], GIB_IN_KIB)
    before = node.residue()
    with faults.injected("LetInstanceGo:before:raise"), pytest.raises(OperationFailed):
        run(node, VolumeDetachRequest(name="late"))
    assert node.left_since(before) == []
    guest_disks, uuid = node.runner.services["guest_disks"], node.instance("talker").uuid
    assert guest_disks.find(uuid, attachment["volume"], live=True) is not None
    run(node, VolumeDetachRequest(name="late"))


def test_a_guest_that_does_not_let_go_keeps_its_volume(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.spawn("deaf")  # it has halted its processor
    make(node, "kept")
    run(node, VolumeAttachRequest(name="kept", instance="deaf"))
    before = node.residue()
    monkeypatch.setattr(node.runner.services["guest_disks"], "_detach_seconds", 1.0)
    with pytest.raises(OperationFailed, match="has not let go"):
        run(node, VolumeDetachRequest(name="kept"))
    assert node.left_since(before) == []
    assert volume(node, "kept").state == "IN_USE"
    node.hypervisor.destroy(node.instance("deaf").uuid)
    run(node, VolumeDetachRequest(name="kept"))
    assert volume(node, "kept").state == "AVAILABLE"


def test_a_deleted_instance_lets_go_of_its_volumes_and_an_undo_gives_them_back(node: Node) -> None:
    run(node, VolumeAttachRequest(name="kept", instance="deaf"))
    deleted = node.delete("deaf")
    assert (volume(node, "kept").state, node.rows("volume_attachments")) == ("AVAILABLE", [])
    node.runner.undo(deleted.id)
    assert volume(node, "kept").state == "IN_USE"
    assert volume(node, "kept").id in node.hypervisor.domain_xml(node.instance("deaf").uuid)
    assert audit_of(node.runner) == []
    again = node.delete("deaf")
    node.spawn("thief", volumes=["kept"])
    with pytest.raises(Conflict, match="kept"):
        node.runner.undo(again.id)
    node.delete("thief")


def test_a_guest_boots_from_a_volume_and_has_another_and_no_root_disk_besides(node: Node) -> None:
    before = node.residue()
    root = make(node, "bootable", image="halt")
    sizes = {"image": None, "disk_gib": None, "boot_volume": "bootable", "volumes": ["kept"]}
    spawned = node.spawn("booted", **sizes)
    disks = [disk["device"] for disk in sorted(node.rows("volume_attachments"), key=lambda row: row["device"])]
    assert disks == ["vda", "vdb"]
    xml = node.hypervisor.domain_xml(node.instance("booted").uuid)
    assert xml.index(root.id) < xml.index(volume(node, "kept").id)
    assert not (node.directory("booted") / "disk").exists()
    assert node.state_of("booted") == "running"
    assert audit_of(node.runner) == []
    node.runner.undo(spawned.id)
    assert (volume(node, "bootable").state, volume(node, "kept").state) == ("AVAILABLE", "AVAILABLE")
    with pytest.raises(InvalidRequest, match="not bootable"):
        node.spawn("booted", **{**sizes, "boot_volume": "kept", "volumes": []})
    node.runner.undo(root.operation)
    assert node.left_since(before) == []


def test_a_guest_boots_from_a_volume_that_is_made_of_the_image_and_goes_with_it(node: Node) -> None:
    before = node.residue()
    request = booting("owner", networks=[], disk_gib=None, boot_volume_gib=1, delete_volume=True)
    assert ("volume", "owner-root") in node.runner.plan(request).resources
    spawned = node.runner.run(request)
    Console(node.directory("owner") / "console.log").wait_ready()
    root = volume(node, "owner-root")
    assert (root.state, root.size_gib, root.bootable) == ("IN_USE", 1, True)
    assert not (node.directory("owner") / "disk").exists()
    assert audit_of(node.runner) == []
    deleted = node.delete("owner")
    assert [each for each in node.rows("volumes", id=root.id) if each["deleted_at"] is None] == []
    node.runner.undo(deleted.id)
    assert (volume(node, "owner-root").id, volume(node, "owner-root").state) == (root.id, "IN_USE")
    assert audit_of(node.runner) == []
    node.delete("owner")
    assert audit_of(node.runner) == []
    again = node.runner.run(request.model_copy(update={"name": "again"}))
    node.runner.undo(again.id)
    assert node.rows("volumes", name="again-root") == []
    assert spawned.outcome == "SUCCESS"
    node.runner.purge(older_than=0)
    assert [line for line in node.left_since(before) if "volume-" in line] == []


def test_a_volume_that_grew_goes_as_a_whole_when_what_has_made_it_is_undone(node: Node) -> None:
    before, usage = node.residue(), node.runner.services["quotas"].usage(node.config.project)
    made = make(node, "grown")
    run(node, VolumeExtendRequest(name="grown", size_gib=2))
    extended = node.last()
    assert node.runner.undo(made.operation).outcome == "UNDONE"
    with pytest.raises(Conflict, match="its volume is gone"):
        node.runner.undo(extended.id)
    spawned = node.runner.run(booting("owner", networks=[], disk_gib=None, boot_volume_gib=1, delete_volume=True))
    console = Console(node.directory("owner") / "console.log").wait_ready()
    root = volume(node, "owner-root")
    run(node, VolumeExtendRequest(name="owner-root", size_gib=2))
    wait_seen(console, "vda", 2 * GIB_IN_KIB)
    assert node.runner.undo(spawned.id).outcome == "UNDONE"
    assert node.runner.operations.get(root.operation).outcome == "UNDONE"
    assert (node.rows("volumes", id=root.id), file_of(node, root).exists()) == ([], False)
    assert node.runner.services["quotas"].usage(node.config.project) == usage
    assert node.left_since(before) == audit_of(node.runner) == []


def test_a_spawn_is_not_undone_as_long_as_its_instance_has_other_volumes_than_it_was_made_with(node: Node) -> None:
    before, sizes = node.residue(), {"disk_gib": None, "boot_volume_gib": 1, "networks": []}
    make(node, "more")
    spawned = node.spawn("changed", **sizes, volumes=["more"])
    node.hypervisor.destroy(node.instance("changed").uuid)  # one that runs lets go of nothing
    run(node, VolumeDetachRequest(name="more"))
    detached = node.last()
    run(node, VolumeAttachRequest(name="more", instance="changed"))
    attached = node.last()
    with pytest.raises(Conflict, match="volume more was detached from its instance"):
        node.runner.undo(spawned.id)
    node.runner.undo(attached.id)
    node.runner.undo(detached.id)
    make(node, "yet-more")
    run(node, VolumeAttachRequest(name="yet-more", instance="changed"))
    with pytest.raises(Conflict, match="volume yet-more was attached to its instance"):
        node.runner.undo(spawned.id)
    assert node.runner.operations.get(spawned.id).outcome == "SUCCESS"
    run(node, VolumeDetachRequest(name="yet-more"))
    assert node.runner.undo(spawned.id).outcome == "UNDONE"
    copied = node.spawn("copied", **sizes)
    run(node, SnapshotCreateRequest(name="kept", volume="copied-root"))
    with pytest.raises(Conflict, match="snapshots were taken of its volume copied-root"):
        node.runner.undo(copied.id)
    assert audit_of(node.runner) == []
    run(node, SnapshotDeleteRequest(name="kept"))
    run(node, DeleteRequest(name="copied"))
    for name in ("copied-root", "more", "yet-more"):
        run(node, VolumeDeleteRequest(name=name))
    node.runner.purge(older_than=0)
    assert [line for line in node.left_since(before) if "volume-" in line] == []


def test_a_spawn_that_fails_takes_the_volume_back_that_was_made_for_it(node: Node) -> None:
    before = node.residue()
    sizes = {"disk_gib": None, "boot_volume_gib": 1, "networks": []}
    for broken in ("FinishInstance:before:raise", "HoldVolumes:before:raise", "FinishVolume:before:raise"):
        with faults.injected(broken), pytest.raises(OperationFailed):
            node.spawn("never", **sizes)
        assert node.left_since(before) == [], broken


def test_a_volume_of_an_image_is_what_the_image_is_and_stays_sparse(node: Node) -> None:
    made = make(node, "root", image="tiny")
    path = file_of(node, made)
    assert (path.stat().st_size, made.bootable) == (GIB, True)
    assert path.stat().st_blocks * 512 < GIB // 4
    with path.open("rb") as file:
        assert file.read(512)[510:] == b"\x55\xaa"
    assert node.rows("base_references", consumer=made.id) == []


def test_a_backend_that_fails_is_clean_before_the_other_one_is_tried(node: Node) -> None:
    before = node.residue()
    with faults.injected("CreateBlankVolume:after:raise:1"):
        made = make(node, "moved")
    decisions = [each["chosen"] for each in node.rows("decisions", operation=made.operation)]
    assert len(set(decisions)) == 2
    assert made.backend == decisions[1]
    first = str(decisions[0]).partition("@")[2]
    assert not (node.state / "volumes" / first / f"volume-{made.id}").exists()
    operation = node.runner.operations.get(made.operation)
    node.runner.undo(operation.id)
    assert node.left_since(before) == []


def test_a_snapshot_becomes_a_volume_with_the_old_content(node: Node) -> None:
    made = make(node, "original")
    with file_of(node, made).open("r+b") as file:
        file.write(b"then")
    run(node, SnapshotCreateRequest(name="before", volume="original"))
    with file_of(node, made).open("r+b") as file:
        file.write(b"now!")
    copy = make(node, "copy", size_gib=None, snapshot="before")
    assert file_of(node, copy).read_bytes()[:4] == b"then"
    with pytest.raises(Conflict, match="before"):
        run(node, VolumeDeleteRequest(name="original"))
    run(node, SnapshotDeleteRequest(name="before"))
    run(node, VolumeDeleteRequest(name="original"))


@pytest.mark.parametrize("file_format", ["raw", "qcow2"])
def test_a_snapshot_of_a_volume_in_use_halts_its_guest_and_lets_it_go_on(
    embed_root: Path, catalog: Path, file_format: str
) -> None:
    with node_up(embed_root, catalog, **{"volumes.format": file_format}) as node:
        made = make(node, "used")
        pattern = ["qemu-io", "-f", file_format, "-c", "write -P 0x5a 1M 1M", str(file_of(node, made))]
        subprocess.run(pattern, check=True, capture_output=True)
        make(node, "other")
        node.spawn("web1", volumes=["used", "other"], networks=[])
        before, uuid = node.residue(), node.instance("web1").uuid
        for broken in ("PauseGuest:after:raise", "TakeSnapshot:after:raise", "LetGuestRun:before:raise"):
            with faults.injected(broken), pytest.raises(OperationFailed):
                run(node, SnapshotCreateRequest(name="then", volume="used"))
            assert node.left_since(before) == []
            assert (node.hypervisor.state(uuid), volume(node, "used").state) == ("running", "IN_USE")
        with faults.injected("TakeSnapshot:before:sleep=4"), ThreadPoolExecutor(1) as threads:
            first = threads.submit(run, node, SnapshotCreateRequest(name="slow", volume="other"))
            assert wait_until(lambda: node.hypervisor.state(uuid) == "paused", 20)
            for second in (
                SnapshotCreateRequest(name="then", volume="used"),
                VolumeExtendRequest(name="used", size_gib=2),
            ):
                with pytest.raises(Conflict, match="cannot halt instance 'web1'"):
                    run(node, second)
            assert node.hypervisor.state(uuid) == "paused", "who is refused lets nobody run"
            first.result()
        assert node.hypervisor.state(uuid) == "running"
        node.runner.undo(node.runner.services["volume_snapshots"].find("slow", "default").operation)
        run(node, SnapshotCreateRequest(name="then", volume="used"))
        assert (node.hypervisor.state(uuid), volume(node, "used").state) == ("running", "IN_USE")
        copy = file_of(node, make(node, "copy", size_gib=None, snapshot="then"))
        look = ["qemu-io", "-r", "-f", file_format, "-c", "read -P 0x5a 1M 1M", str(copy)]
        assert "failed" not in subprocess.run(look, check=True, capture_output=True, text=True).stdout
        for made in (volume(node, "copy"), node.runner.services["volume_snapshots"].find("then", "default")):
            assert node.runner.undo(made.operation).outcome == "UNDONE"
        assert node.left_since(before) == []
        run(node, DeleteRequest(name="web1"))


def test_a_running_guest_takes_several_volumes_and_lets_all_of_them_go(node: Node) -> None:
    node.runner.run(booting("many"))
    console = Console(node.directory("many") / "console.log").wait_ready()
    names = [f"many-{number}" for number in range(3)]
    for name in names:
        make(node, name)
        run(node, VolumeAttachRequest(name=name, instance="many"))
    devices = [row["device"] for row in node.rows("volume_attachments")]
    assert len(devices) == len(names)
    for device in devices:
        wait_seen(console, device, GIB_IN_KIB)
    for name in names:
        run(node, VolumeDetachRequest(name=name))
        run(node, VolumeDeleteRequest(name=name))
    for device in devices:
        wait_seen(console, device, None)
    run(node, DeleteRequest(name="many"))


def test_a_type_decides_which_backend_a_volume_is_on(node: Node) -> None:
    node.runner.services["volume_types"].create("second-only", {"backend": "second"})
    assert (make(node, "typed", type="second-only").backend or "").endswith("@second")


def test_what_was_purged_takes_no_room_and_no_quota(node: Node) -> None:
    for each in node.runner.services["volumes"].list(node.config.project):
        run(node, VolumeDeleteRequest(name=each.name))
    node.runner.purge(older_than=0)
    assert [each.allocated_gib for each in node.runner.services["volume_backends"].list()] == [0, 0]
    usage = node.runner.services["quotas"].usage(node.config.project)
    assert (usage["volumes"].used, usage["volume_gib"].used) == (0, 0)
    assert [each for each in audit_of(node.runner) if "volume" in each.kind] == []


def told(node: Node, since: int = 0) -> list[tuple[str, dict[str, Any]]]:
    lines = (node.state / "notifications.jsonl").read_text().splitlines()[since:]
    documents = [json.loads(line) for line in lines]
    return [(document["event_type"], document["payload"]["data"]) for document in documents]


def test_what_happens_to_a_volume_is_told(node: Node) -> None:
    before = len(told(node))
    made = make(node, "told", meta={"token": "secret-meta"})
    run(node, VolumeExtendRequest(name="told", size_gib=2))
    run(node, SnapshotCreateRequest(name="told-snapshot", volume="told"))
    run(node, SnapshotDeleteRequest(name="told-snapshot"))
    deleted = node.runner.run(VolumeDeleteRequest(name="told"))
    node.runner.undo(deleted.id)
    with faults.injected("MarkVolumeDeleted:after:raise"), pytest.raises(OperationFailed):
        run(node, VolumeDeleteRequest(name="told"))
    events = told(node, before)
    done = ("volume.create", "volume.extend", "snapshot.create", "snapshot.delete", "volume.delete")
    assert [event for event, _data in events] == [
        *(f"{action}.{phase}" for action in done for phase in ("start", "end")),
        *("volume.delete.undone", "volume.delete.start", "volume.delete.error"),
    ]
    created, extended, failed = events[1][1], events[3][1], events[-1][1]
    assert (created["id"], created["state"], created["backend"]) == (made.id, "AVAILABLE", made.backend)
    assert (extended["size_gib"], events[5][1]["volume"], events[9][1]["name"]) == (2, made.id, "told")
    assert events[9][1]["deleted_at"] is not None
    assert (failed["state"], failed["deleted_at"], failed["fault"]["exception"]) == ("DELETING", None, "InjectedFault")
    assert "secret-meta" not in (node.state / "notifications.jsonl").read_text()
