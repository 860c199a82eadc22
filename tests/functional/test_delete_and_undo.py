"""Deleting, bringing back, purging; and undoing a spawn."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.functional.nodes import CommandLine, Console, Node, booting, links_of
from virtflow import DeleteRequest, faults
from virtflow.errors import Conflict, NotFound, OperationFailed, RevertIncomplete

if TYPE_CHECKING:
    from virtflow.persistence.operations import Operation

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(180)]

OFFSET = str(600 << 20)
PATTERN = "0x5a"


def write_marker(disk: Path) -> None:
    """64 KiB of a pattern in the middle of a disk that nobody uses at the moment."""
    done = qemu_io(disk, f"write -P {PATTERN} {OFFSET} 64k")
    assert "wrote 65536" in done, done


def marker_is_there(disk: Path) -> bool:
    return "read 65536/65536" in qemu_io(disk, f"read -P {PATTERN} {OFFSET} 64k")


def qemu_io(disk: Path, command: str) -> str:
    done = subprocess.run(["qemu-io", "-f", "qcow2", "-c", command, str(disk)], check=False, capture_output=True)
    output = (done.stdout + done.stderr).decode()
    return "" if "Pattern verification failed" in output else output


def trash_of(node: Node, delete: Operation) -> Path:
    return node.config.instances.path / "_trash" / delete.id


# -- delete -----------------------------------------------------------------------------------------------------------


def test_a_deleted_guest_is_gone_but_for_its_disks_which_are_in_the_trash(node: Node) -> None:
    before = node.residue()
    node.spawn("web1")
    instance, port, directory = node.instance("web1"), node.port("web1"), node.directory("web1")
    delete = node.delete("web1")
    assert delete.outcome == "SUCCESS"
    assert node.hypervisor.state(instance.uuid) is None
    assert not directory.exists()
    assert {path.name for path in trash_of(node, delete).iterdir()} >= {"disk", "disk.config", "console.log"}
    assert links_of(node.network.bridge) == [], "neither tap nor bridge"
    assert port.address not in node.networks.used_addresses(node.network.id)
    with pytest.raises(NotFound, match="instance 'web1' not found"):
        node.instance("web1")
    usage = node.runner.services["quotas"].usage(node.config.project)
    assert {resource: (each.used, each.reserved) for resource, each in usage.items()} == dict.fromkeys(usage, (0, 0))
    assert node.rows("allocations") == []
    assert stat.S_IMODE(trash_of(node, delete).parent.stat().st_mode) == 0o700
    trash = f"_trash/{delete.id}"
    kept = ("left: row instances", "left: row quota_charges", "left: row base_references")
    assert [line for line in node.left_since(before) if trash not in line and not line.startswith(kept)] == []


def test_name_and_address_of_a_deleted_guest_can_be_used_at_once(node: Node) -> None:
    node.spawn("web1", networks=[{"network": "net0", "address": "10.93.7.50"}])
    node.delete("web1")
    node.spawn("web1", networks=[{"network": "net0", "address": "10.93.7.50"}])
    assert node.state_of("web1") == "running"


def test_a_planned_delete_says_what_would_go_and_changes_nothing(command_line: CommandLine) -> None:
    assert command_line.spawn("web1").code == 0
    before, operations = command_line.residue(), command_line.rows("operations")
    answer = command_line("delete", "web1", "--plan", "-f", "json")
    assert answer.code == 0, answer.err
    instance = command_line.instance("web1")
    (port,) = command_line.rows("ports")
    assert answer.json["resources"] == [
        {"kind": "domain", "identity": "web1"},
        {"kind": "tap", "identity": f"{port['tap']} on {command_line.network.bridge}"},
        {"kind": "port", "identity": f"{port['mac']} {port['address']}"},
        {"kind": "directory", "identity": str(command_line.config.instances.path / instance.uuid)},
    ]
    names = [task["name"] for task in answer.json["tasks"]]
    assert names[0] == "LockInstance"
    assert {"StopDomain", "TrashDisks", "ReleasePorts"} <= set(names)
    assert "StopDomain" in command_line("delete", "web1", "--plan").out
    assert command_line("delete", "nobody", "--plan").code == 3
    assert command_line.left_since(before) == []
    assert command_line.rows("operations") == operations
    assert command_line("delete", "web1").code == 0


def test_an_unknown_instance_cannot_be_deleted(node: Node) -> None:
    before = node.residue()
    with pytest.raises(NotFound) as caught:
        node.delete("nobody")
    assert caught.value.exit_code == 3
    assert node.left_since(before) == []


@pytest.mark.parametrize(
    "point", ["LockInstance:after", "StopDomain:after", "UndefineDomain:after", "TrashDisks:after", "MarkDeleted:after"]
)
def test_a_delete_that_fails_leaves_the_guest_as_it_was(node: Node, point: str) -> None:
    node.spawn("web1")
    before = node.residue()
    with faults.injected(f"{point}:raise"), pytest.raises(OperationFailed) as caught:
        node.delete("web1")
    task, when = point.split(":")
    assert caught.value.cause == f"{task}: injected fault {when} {task}"
    assert node.left_since(before) == []
    assert node.state_of("web1") == "running"


# -- undoing a delete -------------------------------------------------------------------------------------------------


def test_undoing_a_delete_brings_the_same_guest_back_and_it_boots(node: Node) -> None:
    node.runner.run(booting("web1"))
    instance, port, disk = node.instance("web1"), node.port("web1"), node.directory("web1") / "disk"
    console = Console(disk.with_name("console.log"))
    node.hypervisor.destroy(instance.uuid)
    write_marker(disk)
    node.hypervisor.start(instance.uuid)
    before, xml = node.residue(), node.hypervisor.domain_xml(instance.uuid)
    delete = node.delete("web1")
    console.path.parent.parent.joinpath("_trash", delete.id, "console.log").write_text("")

    undone = node.runner.undo(delete.id)
    assert (undone.outcome, undone.state, undone.error, undone.debts) == ("UNDONE", "FINISHED", None, 0)
    assert node.left_since(before) == []
    assert node.instance("web1").uuid == instance.uuid
    assert node.port("web1") == port
    assert node.hypervisor.domain_xml(instance.uuid) == xml
    assert node.state_of("web1") == "running"
    console.wait_ready()
    assert console.line("ADDRESS") == f"eth0 {port.address} 255.255.255.0"
    assert f"NIC eth0 {port.mac}\n" in console.text
    node.hypervisor.destroy(instance.uuid)
    assert marker_is_there(disk)
    # And all of it once more: an undone delete is as if it had never been.
    assert node.delete("web1").outcome == "SUCCESS"


def test_a_guest_that_was_off_when_it_was_deleted_is_off_when_it_is_back(node: Node) -> None:
    node.spawn("web1")
    node.hypervisor.destroy(node.instance("web1").uuid)
    delete = node.delete("web1")
    node.runner.undo(delete.id)
    assert node.state_of("web1") == "shutoff"


def test_a_delete_is_not_undone_twice(node: Node) -> None:
    node.spawn("web1")
    delete = node.delete("web1")
    node.runner.undo(delete.id)
    with pytest.raises(Conflict, match="it is UNDONE"):
        node.runner.undo(delete.id)
    assert node.state_of("web1") == "running"


def test_a_delete_is_not_undone_when_the_name_was_taken_meanwhile(node: Node) -> None:
    node.spawn("web1")
    delete = node.delete("web1")
    node.spawn("web1", config_drive=False)
    before = node.residue()
    with pytest.raises(Conflict, match=r"instance:web1 has moved on: operation 3 \(spawn\) came after it") as caught:
        node.runner.undo(delete.id)
    assert caught.value.exit_code == 4
    assert node.left_since(before) == []


def test_a_delete_is_not_undone_when_the_address_was_given_away_meanwhile(node: Node) -> None:
    node.spawn("web1")
    address = node.port("web1").address
    delete = node.delete("web1")
    node.spawn("web2", networks=[{"network": "net0", "address": address}])
    before = node.residue()
    with pytest.raises(Conflict, match=f"address {address} was given to another instance"):
        node.runner.undo(delete.id)
    assert node.left_since(before) == []


def test_a_delete_can_be_undone_after_a_spawn_of_the_same_name_that_failed(node: Node) -> None:
    node.spawn("web1")
    delete = node.delete("web1")
    with faults.injected("DefineDomain:after:raise"), pytest.raises(OperationFailed):
        node.spawn("web1")
    node.runner.undo(delete.id)
    assert node.state_of("web1") == "running"


def test_an_undo_that_fails_half_way_is_debt_and_can_be_finished(node: Node) -> None:
    node.spawn("web1")
    before = node.residue()
    delete = node.delete("web1")
    with faults.injected("UnplugVifs.revert:before:raise:*"), pytest.raises(RevertIncomplete):
        node.runner.undo(delete.id)
    node.runner.retry_revert(delete.id)
    assert node.left_since(before) == []
    assert node.state_of("web1") == "running"


# -- purge ------------------------------------------------------------------------------------------------------------


def test_purging_removes_what_the_delete_has_kept_and_ends_the_chance_to_undo(node: Node) -> None:
    before = node.residue()
    node.spawn("web1")
    delete = node.delete("web1")
    assert node.runner.purge() == [], "the retention is a day"
    (purge,) = node.runner.purge(older_than=0)
    assert (purge.kind, purge.outcome, purge.parent) == ("purge", "SUCCESS", delete.id)
    assert [line for line in node.left_since(before) if not line.startswith("left: row instances")] == []
    with pytest.raises(Conflict, match="what it had kept was purged"):
        node.runner.undo(delete.id)
    assert node.runner.purge(older_than=0) == []


def test_a_delete_purges_what_has_been_in_the_trash_for_long_enough(node: Node) -> None:
    from virtflow import Runner

    node.spawn("web1")
    node.spawn("web2")
    first = node.delete("web1")
    with Runner(node.another(**{"instances.trash_retention": "0"})) as runner:
        second = runner.run(DeleteRequest(name="web2"))
    assert not trash_of(node, first).exists()
    assert not trash_of(node, second).exists()


def test_a_purge_that_fails_goes_forward_the_next_time_and_is_never_undone(node: Node) -> None:
    node.spawn("web1")
    delete = node.delete("web1")
    with faults.injected("DropBaseReferences:before:raise"), pytest.raises(OperationFailed):
        node.runner.purge(older_than=0)
    stopped = node.last()
    assert (stopped.kind, stopped.outcome) == ("purge", "FAILED_FORWARD")
    assert "injected fault before DropBaseReferences" in (stopped.error or "")
    for verb in (node.runner.undo, node.runner.cancel):
        with pytest.raises(Conflict, match="past the point of no return"):
            verb(stopped.id)
    assert node.rows("base_references") != []
    node.runner.purge(older_than=0)
    assert node.runner.operations.get(stopped.id).outcome == "SUCCESS"
    assert node.rows("base_references") == []
    assert not trash_of(node, delete).exists()


def test_a_delete_whose_purge_has_begun_is_not_undone(node: Node) -> None:
    """Otherwise the purge, gone on with, would take from the living what belonged to the dead."""
    node.spawn("web1")
    delete = node.delete("web1")
    with faults.injected("PurgeTrash:before:raise"), pytest.raises(OperationFailed):
        node.runner.purge(older_than=0)
    assert trash_of(node, delete).exists()
    with pytest.raises(Conflict, match="purge"):
        node.runner.undo(delete.id)
    node.runner.purge(older_than=0)
    assert not trash_of(node, delete).exists()


def test_a_purge_that_was_killed_is_gone_on_with_by_the_next_one(command_line: CommandLine) -> None:
    before = command_line.residue()
    assert command_line.spawn("web1").code == 0
    assert command_line("delete", "web1").code == 0
    for fault in ("PurgeTrash:before:kill", "PurgeTrash:after:kill"):
        assert command_line("trash", "purge", "--older-than", "0", fault=fault).code == -9
        undo = command_line("operation", "undo", "2")
        assert (undo.code, undo.err.count("\n")) in ((4, 1), (7, 1)), undo
    assert command_line("trash", "purge", "--older-than", "0").code == 0
    assert [row["outcome"] for row in command_line.rows("operations", kind="purge")] == ["SUCCESS"]
    assert [line for line in command_line.left_since(before) if not line.startswith("left: row instances")] == []


# -- undoing a spawn --------------------------------------------------------------------------------------------------


def test_undoing_a_spawn_leaves_nothing(node: Node) -> None:
    before = node.residue()
    spawn = node.spawn("web1", user_data=b"data", admin_password="hunter22")
    undone = node.runner.undo(spawn.id)
    assert (undone.outcome, undone.state, undone.error) == ("UNDONE", "FINISHED", None)
    assert node.left_since(before) == []
    assert {task.state for task in undone.tasks} == {"REVERTED"}
    assert {row["state"] for row in node.rows("ledger")} == {"CLEARED"}
    with pytest.raises(Conflict, match="it is UNDONE"):
        node.runner.undo(spawn.id)


def test_a_spawn_is_not_undone_when_its_instance_was_deleted(node: Node) -> None:
    spawn = node.spawn("web1")
    delete = node.delete("web1")
    with pytest.raises(Conflict, match=r"instance:web1 has moved on: operation 2 \(delete\) came after it"):
        node.runner.undo(spawn.id)
    node.runner.undo(delete.id)
    assert node.runner.undo(spawn.id).outcome == "UNDONE", "the delete was taken back: the spawn is the last again"


def test_a_spawn_that_failed_is_not_undone(node: Node) -> None:
    with faults.injected("ClaimHost:after:raise"), pytest.raises(OperationFailed) as caught:
        node.spawn("web1")
    with pytest.raises(Conflict, match="it is REVERTED"):
        node.runner.undo(caught.value.operation.id)


def test_an_undo_that_was_killed_is_gone_on_with_and_nothing_else_comes_in_between(command_line: CommandLine) -> None:
    before = command_line.residue()
    assert command_line.spawn("web1").code == 0
    for fault in ("StartDomainPaused.revert:after:kill", "PlugVifs.revert:before:kill"):
        verb = "undo" if command_line.operation()["state"] == "FINISHED" else "resume"
        assert command_line("operation", verb, "1", fault=fault).code == -9
        assert command_line.operation()["state"] == "UNDOING"
    assert command_line("delete", "web1").code == 7
    assert command_line("operation", "resume", "1").code == 0
    operation = command_line.operation("1")
    assert (operation["state"], operation["outcome"]) == ("FINISHED", "UNDONE")
    assert command_line.left_since(before) == []
