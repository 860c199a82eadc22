"""Resizing on one host: the guest's new shape, its data, and the way back."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.functional.nodes import CommandLine, Console, Node, booting, node_up
from tests.functional.test_delete_and_undo import marker_is_there, write_marker
from virtflow import faults
from virtflow.engine.confirming import confirm_due
from virtflow.errors import Conflict, InvalidRequest, NoValidHost, OperationFailed
from virtflow.persistence.models.engine import operations
from virtflow.persistence.operations import Operation
from virtflow.requests import ConfirmRequest, DeleteRequest, MigrateRequest, ResizeRequest

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(180)]


def resize(node: Node, name: str, **fields: Any) -> Operation:
    return node.runner.run(ResizeRequest(name=name, **fields))


def stop_and_mark(node: Node, name: str) -> None:
    """A pattern in the middle of the disk; the guest is stopped for the time, since QEMU holds its disks."""
    uuid = node.instance(name).uuid
    node.hypervisor.destroy(uuid)
    write_marker(node.directory(name) / "disk")
    node.hypervisor.start(uuid)


def virtual_size(disk: Path, form: str = "qcow2") -> int:
    done = subprocess.run(
        ["qemu-img", "info", "-U", "--output=json", "-f", form, disk], check=True, capture_output=True
    )
    return json.loads(done.stdout)["virtual-size"]


def marked(node: Node, name: str) -> bool:
    uuid = node.instance(name).uuid
    node.hypervisor.destroy(uuid)
    found = marker_is_there(node.directory(name) / "disk")
    node.hypervisor.start(uuid)
    return found


@pytest.fixture
def quick(node: Node) -> Node:
    """The guest that halts at once heeds no power button."""
    object.__setattr__(node.config.resize, "shutdown_timeout", 0.0)
    return node


def test_a_resized_guest_has_its_new_size_and_its_data_and_can_go_back(quick: Node) -> None:
    node = quick
    node.spawn("web1")
    stop_and_mark(node, "web1")
    before = node.residue()
    operation = resize(node, "web1", vcpus=2, memory_mib=64, disk_gib=2)
    instance = node.instance("web1")
    assert (instance.vm_state, instance.task_state) == ("VERIFY_RESIZE", None)
    assert (instance.vcpus, instance.memory_mib, instance.disk_gib) == (2, 64, 2)
    assert node.state_of("web1") == "running"
    assert virtual_size(node.directory("web1") / "disk") == 2 << 30
    assert marked(node, "web1")
    undone = node.runner.undo(operation.id)
    assert undone.outcome == "UNDONE"
    assert node.left_since(before) == []
    assert node.state_of("web1") == "running"
    assert virtual_size(node.directory("web1") / "disk") == 1 << 30
    assert marked(node, "web1")


def test_a_confirmed_resize_stays_and_its_old_disks_go(quick: Node) -> None:
    node = quick
    node.spawn("web1")
    stop_and_mark(node, "web1")
    resize(node, "web1", disk_gib=2)
    with pytest.raises(Conflict, match="VERIFY_RESIZE"):
        node.runner.run(DeleteRequest(name="web1"))
    confirm = node.runner.run(ConfirmRequest(name="web1"))
    assert node.instance("web1").vm_state == "ACTIVE"
    assert node.rows("quota_charges", resource="disk_gib")[0]["amount"] == 2
    assert node.rows("allocations")[0]["disk_gib"] == 2
    assert (node.config.instances.path / "_trash" / confirm.id / "disk").exists()
    node.runner.purge(older_than=0)
    assert not (node.config.instances.path / "_trash" / confirm.id).exists()
    assert node.rows("base_references"), "the instance lives, and its disk stands on them"
    assert marked(node, "web1")
    resize(node, "web1", memory_mib=48)
    assert node.instance("web1").disk_gib == 2


def test_what_cannot_be_resized_is_refused_and_nothing_has_changed(quick: Node) -> None:
    node = quick
    node.spawn("web1", disk_gib=2)
    before = node.residue()
    with pytest.raises(InvalidRequest, match="never shrink"):
        resize(node, "web1", disk_gib=1)
    with pytest.raises(InvalidRequest, match="has this size already"):
        resize(node, "web1", vcpus=1)
    with pytest.raises(NoValidHost, match="there already"):
        node.runner.run(MigrateRequest(name="web1"))
    with pytest.raises(Conflict, match="ACTIVE"):
        node.runner.run(ConfirmRequest(name="web1"))
    assert node.left_since(before) == []


@pytest.mark.parametrize("task", ["PushDisks", "SwitchOwner"])
def test_a_resize_that_fails_leaves_the_guest_running_as_it_was(quick: Node, task: str) -> None:
    node = quick
    node.spawn("web1")
    before = node.residue()
    with faults.injected(f"{task}:after:raise"), pytest.raises(OperationFailed):
        resize(node, "web1", disk_gib=2)
    assert node.left_since(before) == []
    assert node.state_of("web1") == "running"


@pytest.mark.parametrize("backend", ["raw", "qcow2-flat"])
def test_disks_without_a_base_are_grown_and_brought_back(
    embed_root: Path, hypervisor: object, catalog: Path, backend: str
) -> None:
    settings = {"instances.disk_backend": backend, "resize.shutdown_timeout": "0"}
    form = "raw" if backend == "raw" else "qcow2"
    with node_up(embed_root, catalog, **settings) as node:
        node.spawn("web1")
        before = node.residue()
        operation = resize(node, "web1", disk_gib=2)
        assert virtual_size(node.directory("web1") / "disk", form) == 2 << 30
        node.runner.undo(operation.id)
        assert virtual_size(node.directory("web1") / "disk", form) == 1 << 30
        assert node.left_since(before) == []


def test_a_guest_that_was_resized_finds_all_its_disks(node: Node) -> None:
    node.runner.run(booting("web1", ephemeral_gib=[{"size": 1}], swap_mib=8))
    Console(node.directory("web1") / "console.log").wait_ready()
    resize(node, "web1", disk_gib=2)
    console = Console(node.directory("web1") / "console.log").wait_ready()
    assert f"vda={2 << 20}" in console.line("PARTS")
    assert f"vdb={1 << 20}" in console.line("PARTS")
    assert "\nDISK vdb ext4 ephemeral0" in console.text
    assert "\nDISK vdc swap" in console.text
    assert console.line("CONFIG-DRIVE").startswith("/dev/sr0")
    assert console.line("ADDRESS").split()[1] == node.port("web1").address


def test_resizing_by_command(command_line: CommandLine) -> None:
    quick = {"VIRTFLOW_RESIZE__SHUTDOWN_TIMEOUT": "0"}
    assert command_line.spawn("web1").code == 0
    assert command_line("resize", "web1", "--disk", "2", **quick).code == 0
    assert command_line.instance("web1").vm_state == "VERIFY_RESIZE"
    assert command_line("resize-revert", "web1", **quick).code == 0
    assert command_line.instance("web1").disk_gib == 1
    refused = command_line("resize-revert", "web1")
    assert (refused.code, "no resize to go back from" in refused.err) == (4, True), refused.err
    assert command_line("resize", "web1", "--memory", "48", **quick).code == 0
    assert command_line("resize-confirm", "web1").code == 0
    assert (command_line.instance("web1").vm_state, command_line.instance("web1").memory_mib) == ("ACTIVE", 48)
    shown = command_line("resize", "web1", "--disk", "3", "--plan")
    assert shown.code == 0, shown.err


def test_what_nobody_reverts_in_time_is_confirmed_once(embed_root: Path, hypervisor: object, catalog: Path) -> None:
    settings = {"resize.confirm_after": "3600", "resize.shutdown_timeout": "0"}
    with node_up(embed_root, catalog, **settings) as node:
        node.spawn("web1")
        operation = resize(node, "web1", memory_mib=48)
        assert confirm_due(node.runner) == []
        with node.runner.database.transaction() as connection:
            long_ago = sa.update(operations).where(operations.c.id == operation.id).values(finished_at=1)
            connection.execute(long_ago)
        (confirm,) = confirm_due(node.runner)
        assert confirm_due(node.runner) == []
        assert node.runner.resume(confirm.id).outcome == "SUCCESS"
        assert node.instance("web1").vm_state == "ACTIVE"
        assert confirm_due(node.runner) == []
