"""Images of instances: made of a disk while its guest goes on, and what is left when that breaks."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.functional.nodes import CommandLine, Console, Node, booting, command_line_up, node_up
from tests.lab.processes import wait_until
from virtflow import faults
from virtflow.engine.audit import audit_of
from virtflow.errors import AlreadyExists, Conflict, OperationFailed
from virtflow.images.catalog import LocalCatalog
from virtflow.requests import ImageCreateRequest

if TYPE_CHECKING:
    from tests.lab.glance import Glance
    from virtflow.hypervisor.hypervisor import Hypervisor
    from virtflow.testing.guest import GuestImage

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(240)]

FAR, MUCH = "300M", "64M"
"""Where on the disk the guest's own system is not."""


@pytest.fixture(scope="module")
def own_catalog(tmp_path_factory: pytest.TempPathFactory, guest_image: GuestImage) -> Path:
    path = tmp_path_factory.mktemp("own-catalog")
    properties = {"hw_disk_bus": "virtio", "os_type": "linux", "hw_qemu_guest_agent": "yes"}
    LocalCatalog(path).add(guest_image.disk_qcow2, "tiny", "qcow2", min_ram=64, properties=properties)
    LocalCatalog(path).add(guest_image.disk_qcow2, "silent", "qcow2")
    return path


@pytest.fixture(scope="module")
def node(embed_root: Path, own_catalog: Path) -> Iterator[Node]:
    """A host with the running guest ``talker``, which has something on its disk."""
    with node_up(embed_root, own_catalog) as up:
        up.runner.run(booting("talker", networks=[]))
        with_something(up, "talker")
        yield up


def with_something(node: Node, name: str) -> None:
    """Write to the disk of a guest that is stopped meanwhile."""
    uuid, disk = node.instance(name).uuid, node.directory(name) / "disk"
    node.hypervisor.destroy(uuid)
    write(disk)
    node.hypervisor.start(uuid)
    Console(node.directory(name) / "console.log").wait_ready()


def write(disk: Path, much: str = MUCH) -> None:
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", f"write -P 7 {FAR} {much}", disk], check=True, capture_output=True)


def has_something(disk: Path, much: str = MUCH) -> bool:
    reading = ["qemu-io", "-r", "-U", "-f", "qcow2", "-c", f"read -P 7 {FAR} {much}", disk]
    done = subprocess.run(reading, check=False, capture_output=True, text=True)
    assert "read " in done.stdout, done.stderr
    return "verification failed" not in done.stdout


def ticks(console: Console) -> int:
    return int(re.findall(r"^TICK (\d+)$", console.text, re.MULTILINE)[-1])


def make_image(node: Node, name: str, instance: str = "talker", **fields: Any) -> Any:
    node.runner.run(ImageCreateRequest(name=name, instance=instance, **fields))
    return node.runner.services["image_source"].get(name)


def console_of(node: Node, name: str = "talker") -> Console:
    return Console(node.directory(name) / "console.log")


@contextmanager
def watching(node: Node, name: str) -> Iterator[set[tuple[Any, ...]]]:
    """What the domain is, seen again and again: (persistent, state)."""
    uuid, seen, over = node.instance(name).uuid, set(), threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            persistent = node.hypervisor.with_domain("look at", uuid, lambda domain: bool(domain.isPersistent()))
            seen.add((persistent, node.hypervisor.state(uuid)))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def test_a_guest_goes_on_while_an_image_is_made_of_it_and_another_one_boots_from_that(node: Node) -> None:
    console = console_of(node)
    before = ticks(console)
    with watching(node, "talker") as seen:
        image = make_image(node, "golden")
    assert seen == {(True, "running")}
    assert wait_until(lambda: ticks(console) > before, 30)
    assert console.text.count("GUEST-UP") == 1
    spec = node.rows("instances", name="talker")[0]
    assert (image.disk_format, image.virtual_size, image.min_disk, image.min_ram) == ("qcow2", 1 << 30, 1, 64)
    assert image.properties == {
        "hw_disk_bus": "virtio",
        "os_type": "linux",
        "hw_qemu_guest_agent": "yes",
        "image_type": "snapshot",
        "base_image_ref": spec["image_id"],
        "instance_uuid": spec["uuid"],
    }
    assert node.instance("talker").task_state is None
    node.runner.run(booting("second", image="golden", networks=[]))
    console_of(node, "second").wait_ready()
    assert has_something(node.directory("second") / "disk")
    assert audit_of(node.runner) == []
    node.delete("second")


def test_undoing_it_removes_the_image(node: Node) -> None:
    before = node.residue()
    operation = node.runner.run(ImageCreateRequest(name="undone", instance="talker"))
    assert before.difference(node.residue()) == [f"left: image {node.runner.services['image_source'].get('undone').id}"]
    node.runner.undo(operation.id)
    assert node.left_since(before) == []


def test_a_name_that_is_taken_is_refused_at_once(node: Node) -> None:
    before = node.residue()
    with pytest.raises(AlreadyExists, match="image 'silent' exists already"):
        make_image(node, "silent")
    assert node.left_since(before) == []


def test_an_instance_whose_image_is_being_made_takes_nothing_else(node: Node) -> None:
    uuid = node.instance("talker").uuid
    assert node.instances.compare_and_set(uuid, {"task_state": None}, {"task_state": "SOMETHING"})
    try:
        with pytest.raises(Conflict, match=r"cannot take a snapshot of instance 'talker': it is ACTIVE \(SOMETHING\)"):
            make_image(node, "never")
    finally:
        assert node.instances.compare_and_set(uuid, {"task_state": "SOMETHING"}, {"task_state": None})


def test_the_agent_in_the_guest_freezes_it_for_the_moment_at_which_the_copying_begins(node: Node) -> None:
    make_image(node, "quiet", quiesce=True)
    console = console_of(node)
    assert wait_until(lambda: "THAWED" in console.text.partition("FROZEN")[2], 30), console.text[-500:]
    assert console.text.rindex("THAWED") > console.text.rindex("FROZEN")


def test_without_an_agent_a_guest_cannot_be_frozen_and_nothing_is_left(node: Node) -> None:
    node.runner.run(booting("silent", image="silent", networks=[]))
    before = node.residue()
    with pytest.raises(OperationFailed, match=r"cannot freeze the file systems of domain .* agent is not configured"):
        make_image(node, "never", "silent", quiesce=True)
    assert node.left_since(before) == []
    assert node.state_of("silent") == "running"
    node.delete("silent")


def test_a_failure_at_the_end_takes_the_image_back_and_tells_of_it(node: Node) -> None:
    before = node.residue()
    with faults.injected("NotifySnapshotEnd:before:raise"), pytest.raises(OperationFailed):
        make_image(node, "late")
    assert node.left_since(before) == []
    assert node.state_of("talker") == "running"


class TooLate(Exception):
    """The copy that was begun had ended before it was looked for."""


def too_late() -> None:
    raise TooLate


def test_a_copy_that_somebody_has_begun_is_gone_on_with(node: Node) -> None:
    backups, uuid = node.runner.services["disk_backups"], node.instance("talker").uuid
    for attempt in range(10):
        path = node.directory("talker") / f"begun{attempt}"
        node.runner.services["qemu_img"].create(path, "qcow2", 1 << 30)
        backups._begin(uuid, "vda", path, quiesce=False)
        with suppress(TooLate):  # on a slow machine the little that there is may be copied by then
            assert backups.copy(uuid, "vda", path, too_late)
            assert has_something(path)
            path.unlink()
            return
    pytest.fail("each of them had ended before it was looked for")


@pytest.mark.parametrize("asked", [False, True], ids=["at once", "with a question of libvirt's unread"])
def test_a_guest_that_dies_while_it_is_copied_has_its_image_all_the_same(
    node: Node, monkeypatch: pytest.MonkeyPatch, qemus: Callable[[Path], list[int]], embed_root: Path, asked: bool
) -> None:
    if node.state_of("talker") == "shutoff":
        node.runner.services["hypervisor"].start(node.directory("talker").name)
    backups, directory = node.runner.services["disk_backups"], node.directory("talker")
    begin = backups._begin

    def begin_and_kill(*args: Any, **kwargs: Any) -> None:
        begin(*args, **kwargs)
        (pid,) = [each for each in qemus(embed_root) if runs_from(each, directory)]
        os.kill(pid, signal.SIGSTOP if asked else signal.SIGKILL)
        if asked:
            threading.Timer(1, os.kill, (pid, signal.SIGKILL)).start()

    monkeypatch.setattr(backups, "_begin", begin_and_kill)
    image = make_image(node, f"last-words-{asked}")
    assert has_something(node.config.images.catalog / image.id / "image")
    assert (node.state_of("talker"), list(directory.glob("snapshot.tmp.*"))) == ("shutoff", [])
    assert image.properties["image_type"] == "snapshot"
    monkeypatch.undo()
    stopped = make_image(node, f"stopped-{asked}")
    assert has_something(node.config.images.catalog / stopped.id / "image")
    assert audit_of(node.runner) == []


def runs_from(pid: int, directory: Path) -> bool:
    return os.fsencode(directory) in Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.fixture
def on_glance(
    embed_root: Path, _session_hypervisor: Hypervisor, glance_server: Glance, tmp_path: Path
) -> Iterator[Node]:
    settings = {"images.source": "glance", "glance.endpoint": glance_server.endpoint}
    with node_up(embed_root, tmp_path, **settings) as node:
        yield node


def test_an_image_goes_up_to_glance_and_comes_back(
    on_glance: Node, glance_server: Glance, guest_image: GuestImage
) -> None:
    base = glance_server.upload(guest_image.disk_qcow2, f"tiny {os.getpid()}", "qcow2", hw_disk_bus="virtio")
    on_glance.runner.run(booting("web1", image=base, networks=[]))
    with_something(on_glance, "web1")
    name = f"of web1 {os.getpid()}"
    record = make_image(on_glance, name, "web1")
    assert record.properties["hw_disk_bus"] == "virtio"
    assert (record.properties["base_image_ref"], record.properties["image_type"], record.min_disk) == (
        base,
        "snapshot",
        1,
    )
    on_glance.runner.run(booting("web2", image=record.id, networks=[]))
    console_of(on_glance, "web2").wait_ready()
    assert has_something(on_glance.directory("web2") / "disk")
    source = on_glance.runner.services["image_source"]
    with faults.injected("NotifySnapshotEnd:before:raise"), pytest.raises(OperationFailed):
        make_image(on_glance, f"{name}, again", "web1")
    assert not [each for each in source._client().images.list() if each["name"] == f"{name}, again"]


def test_what_glance_got_wrong_is_deleted(
    on_glance: Node, glance_server: Glance, guest_image: GuestImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from virtflow.images.upload import Upload

    base = glance_server.upload(guest_image.disk_qcow2, f"tiny too {os.getpid()}", "qcow2")
    on_glance.spawn("web1", image=base, networks=[])
    on_the_way, name = Upload.read, f"damaged {os.getpid()}"
    monkeypatch.setattr(Upload, "read", lambda self, size=-1: on_the_way(self, size)[::-1])
    with pytest.raises(OperationFailed, match="the checksums differ"):
        make_image(on_glance, name, "web1")
    assert not [e for e in on_glance.runner.services["image_source"]._client().images.list() if e["name"] == name]


@pytest.fixture
def copying(embed_root: Path, own_catalog: Path) -> Iterator[tuple[CommandLine, Path]]:
    """A host for commands, with a guest whose disk takes a while to copy; the file that the copy will be."""
    with command_line_up(embed_root, own_catalog) as command_line:
        size = ("--vcpus", "1", "--memory", "128", "--disk", "1")
        answer = command_line("spawn", "web1", "--image", "silent", *size)
        assert answer.code == 0, answer.err
        directory = command_line.config.instances.path / command_line.instance("web1").uuid
        yield command_line, directory


def has_begun(directory: Path) -> bool:
    """Whether more than an empty disk has been written: the job is under way, or over."""
    return any(path.stat().st_blocks * 512 > 1 << 20 for path in directory.glob("snapshot.tmp.*"))


def test_the_copy_goes_on_when_its_process_is_killed_and_is_found_by_the_next(
    copying: tuple[CommandLine, Path], own_catalog: Path
) -> None:
    command_line, directory = copying
    with command_line.running("image", "create", "survivor", "--from", "web1") as process:
        assert wait_until(lambda: has_begun(directory), 60, 0.005)
        process.kill()
    answer = command_line("operation", "resume", "--last")
    assert answer.code == 0, answer.err
    shown = command_line("image", "show", "survivor", "-f", "json").json
    assert shown["properties"]["image_type"] == "snapshot"
    assert not list(directory.glob("snapshot.tmp.*"))
    assert command_line("audit").code == 0


def test_a_cancel_ends_the_copy_and_leaves_the_guest(copying: tuple[CommandLine, Path]) -> None:
    command_line, directory = copying
    before = command_line.residue()
    with command_line.running("image", "create", "cancelled", "--from", "web1") as process:
        assert wait_until(lambda: has_begun(directory), 60, 0.005)
        process.kill()
    answer = command_line("operation", "cancel", "--last")
    assert answer.code == 0, answer.err
    assert command_line.operation()["outcome"] == "CANCELLED"
    assert command_line.left_since(before) == []
