"""Resizing and moving between two hosts, each with a worker, a libvirt and directories of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from virtflow.activity import Activity
from virtflow.errors import CommandFailed
from virtflow.persistence.operations import Operation
from virtflow.requests import ConfirmRequest, MigrateRequest, ResizeRequest
from virtflow.testing.fleet import Fleet, await_
from virtflow.transfer.push import push
from virtflow.transfer.receiver import Receiver, Receivers

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(240)]

OFFSET = 600 << 20
SETTINGS = {"resize.address": "127.0.0.1", "resize.shutdown_timeout": "0"}


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet.up(special={"h2": {"resize.copy": "merged"}}, **SETTINGS) as up:
        up.start()
        yield up


def qemu_io(disk: Path, command: str, *options: str) -> str:
    """The halted guest reads and writes nothing, so its disk may be written to beside it."""
    image = f"driver=qcow2,file.driver=file,file.filename={disk},file.locking=off"
    done = subprocess.run(["qemu-io", "--image-opts", *options, "-c", command, image], check=False, capture_output=True)
    return (done.stdout + done.stderr).decode()


def mark(disk: Path) -> None:
    assert "wrote 65536" in qemu_io(disk, f"write -P 0x5a {OFFSET} 64k")


def is_marked(disk: Path) -> bool:
    out = qemu_io(disk, f"read -P 0x5a {OFFSET} 64k", "-r")
    return "read 65536/65536" in out and "failed" not in out


def info(disk: Path) -> dict[str, Any]:
    done = subprocess.run(
        ["qemu-img", "info", "-U", "--output=json", "-f", "qcow2", disk], check=True, capture_output=True
    )
    return json.loads(done.stdout)


def directory(fleet: Fleet, host: str, name: str) -> Path:
    return fleet.hosts[host].config.instances.path / instance(fleet, name).uuid


def instance(fleet: Fleet, name: str) -> Any:
    return fleet.client.services["instances"].find(name, fleet.client.config.project)


def spawned(fleet: Fleet, name: str, **fields: Any) -> None:
    done = fleet.wait(fleet.client.submit(fleet.small(name, host="h1", **fields)))
    assert done.outcome == "SUCCESS", done.error


def ended(fleet: Fleet, operation: Operation, outcome: str = "SUCCESS") -> Operation:
    done = fleet.wait(operation)
    assert done.outcome == outcome, done.error
    return done


def test_a_guest_is_resized_to_another_host_and_back(fleet: Fleet) -> None:
    spawned(fleet, "web1", ephemeral_gib=[{"size": 1}], swap_mib=4)
    old, new = directory(fleet, "h1", "web1"), directory(fleet, "h2", "web1")
    for name in ("disk", "disk.local"):
        mark(old / name)
    resize = ended(fleet, fleet.client.submit(ResizeRequest(name="web1", disk_gib=2, vcpus=2, host="h2")))
    found = instance(fleet, "web1")
    assert (found.host, found.vm_state, found.disk_gib) == ("h2", "VERIFY_RESIZE", 2)
    assert "web1" in fleet.hosts["h2"].guests()
    assert "web1" not in fleet.hosts["h1"].guests()
    disk = info(new / "disk")
    assert disk["virtual-size"] == 2 << 30
    bases = fleet.hosts["h2"].config.instances.path / "_base"
    assert Path(disk["backing-filename"]).parent == bases
    assert disk["backing-filename"].endswith("_2")
    assert disk["actual-size"] < 2 << 20, "only the changes were sent"
    assert is_marked(new / "disk")
    assert is_marked(new / "disk.local")
    assert Path(info(new / "disk.swap")["backing-filename"]).parent == bases
    assert is_marked(old / "disk"), "the source is as it was"
    assert not list((bases.parent / "_receivers").iterdir()), "nobody listens any more"
    assert fleet.settle() == []
    fleet.client.request_undo(resize.id)
    ended(fleet, resize, "UNDONE")
    assert "web1" in fleet.hosts["h1"].guests()
    assert "web1" not in fleet.hosts["h2"].guests()
    assert is_marked(old / "disk")
    assert is_marked(old / "disk.local")
    assert not new.exists()
    assert (instance(fleet, "web1").host, instance(fleet, "web1").disk_gib) == ("h1", 1)
    assert fleet.settle() == []


def test_a_migration_that_is_confirmed_leaves_nothing_on_the_host_it_left(fleet: Fleet) -> None:
    spawned(fleet, "web2")
    old, new = directory(fleet, "h1", "web2"), directory(fleet, "h2", "web2")
    mark(old / "disk")
    ended(fleet, fleet.client.submit(MigrateRequest(name="web2")))
    assert instance(fleet, "web2").host == "h2", "the host where it is will not do"
    ended(fleet, fleet.client.submit(ConfirmRequest(name="web2")))
    assert instance(fleet, "web2").vm_state == "ACTIVE"
    assert not old.exists()
    assert is_marked(new / "disk")
    held = fleet.client.services["placement"].allocations(consumer=instance(fleet, "web2").uuid)
    assert [each.host for each in held] == ["h2"]
    references = fleet.client.services["base_references"].references(consumer=instance(fleet, "web2").uuid)
    assert {each.host for each in references} == {"h2"}
    assert fleet.settle() == []


def test_a_disk_can_be_sent_put_together_with_its_base(fleet: Fleet) -> None:
    """Which way it goes is what the host says that it leaves."""
    done = fleet.wait(fleet.client.submit(fleet.small("web5", host="h2")))
    assert done.outcome == "SUCCESS", done.error
    mark(directory(fleet, "h2", "web5") / "disk")
    ended(fleet, fleet.client.submit(ResizeRequest(name="web5", disk_gib=2, host="h1")))
    disk = directory(fleet, "h1", "web5") / "disk"
    assert "backing-filename" not in info(disk)
    assert info(disk)["virtual-size"] == 2 << 30
    assert is_marked(disk)
    assert "web5" in fleet.hosts["h1"].guests()
    assert fleet.settle() == []


def test_a_directory_that_is_not_ours_survives_and_the_guest_goes_on(fleet: Fleet) -> None:
    spawned(fleet, "web3")
    new = directory(fleet, "h2", "web3")
    new.mkdir()
    (new / "precious").write_text("somebody else's")
    failed = ended(fleet, fleet.client.submit(MigrateRequest(name="web3", host="h2")), "REVERTED")
    assert "something of that name is there" in str(failed.error)
    assert (new / "precious").read_text() == "somebody else's"
    assert "web3" in fleet.hosts["h1"].guests()
    (new / "precious").unlink()
    new.rmdir()
    assert fleet.settle() == []


@pytest.mark.parametrize(
    ("host", "fault"),
    [
        ("h1", "PushDisks:after:kill"),
        ("h1", "PushDisks:after:raise"),
        ("h2", "StartReceiver:after:kill"),
        ("h2", "FitDisks:after:kill"),
        ("h2", "WaitRunning:after:raise"),
    ],
)
def test_a_migration_ends_well_or_leaves_the_guest_where_it_was(fleet: Fleet, host: str, fault: str) -> None:
    name = "web-" + fault.replace(":", "-").lower()
    spawned(fleet, name)
    old, new = directory(fleet, "h1", name), directory(fleet, "h2", name)
    mark(old / "disk")
    fleet.hosts[host].stop()
    fleet.start({host: fault})
    operation = fleet.client.submit(MigrateRequest(name=name, host="h2"))
    killed = fault.endswith("kill")
    if killed:
        await_(lambda: not fleet.hosts[host].alive, "the worker's death")
        fleet.start()
    done = ended(fleet, operation, "SUCCESS" if killed else "REVERTED")
    where, disk = ("h2", new / "disk") if killed else ("h1", old / "disk")
    assert (instance(fleet, name).host, fleet.running()[instance(fleet, name).uuid]) == (where, 1)
    assert name in fleet.hosts[where].guests()
    assert is_marked(disk)
    assert new.exists() == killed
    assert fleet.settle() == []
    if not killed:  # the next one is to meet no fault
        fleet.hosts[host].stop()
        fleet.start()
    assert done.debts == 0


def test_a_secret_that_is_wrong_and_a_daemon_that_is_gone_are_errors_and_what_was_sent_is_not_sent_again(
    tmp_path: Path,
) -> None:
    source, target = tmp_path / "disk", tmp_path / "incoming"
    source.write_bytes(bytes(1 << 20) + os.urandom(3 << 20))
    target.mkdir()
    receivers = Receivers(tmp_path / "control", "127.0.0.1", (49500, 49599))
    found = receivers.start("operation-1", target, "sesame")
    try:
        with pytest.raises(CommandFailed, match="auth"):
            push([source], found, "wrong")
        assert not (target / "disk").exists()
        told = Told()
        push([source], found, "sesame", told)
        assert told.seen[-1] == (4 << 20, 4 << 20)
        assert (target / "disk").read_bytes() == source.read_bytes()
        (target / "disk").write_bytes(source.read_bytes()[: 2 << 20])  # as an interrupted run leaves it
        push([source], found, "sesame")
        assert (target / "disk").read_bytes() == source.read_bytes()
        again = receivers.start("operation-1", target, "other")
        with pytest.raises(CommandFailed):
            push([source], again, "sesame")
        read = [
            "rsync",
            "--password-file=-",
            f"rsync://virtflow@127.0.0.1:{again.port}/incoming/disk",
            str(tmp_path / "x"),
        ]
        assert subprocess.run(read, input=b"other", check=False, capture_output=True).returncode != 0
        assert not (tmp_path / "x").exists(), "nothing can be read through it"
    finally:
        receivers.stop("operation-1")
    assert receivers.running("operation-1") is None
    assert not receivers.directory("operation-1").exists()
    with pytest.raises(CommandFailed):
        push([source], again, "other")


def test_files_go_through_ssh_where_that_is_configured(tmp_path: Path) -> None:
    """In place of ssh a program that runs the same command on this host."""
    source, target, shell = tmp_path / "disk", tmp_path / "in coming", tmp_path / "shell"
    source.write_bytes(os.urandom(1 << 20))
    target.mkdir()
    shell.write_text('#!/bin/sh\nshift\nexec sh -c "$*"\n')
    shell.chmod(0o755)
    push([source], Receiver("ssh", "elsewhere", 0, str(target)), "", ssh_command=str(shell))
    assert (target / "disk").read_bytes() == source.read_bytes()


class Told(Activity):
    def __init__(self) -> None:
        super().__init__("push")
        self.seen: list[tuple[int, int | None]] = []

    def report(self, done: int, total: int | None) -> None:
        self.seen.append((done, total))
