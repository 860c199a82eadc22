"""The tasks that make disks, driven as the engine drives them: executed, executed again, reverted, reverted again."""

from __future__ import annotations

import hashlib
import inspect
import os
import subprocess
import threading
import uuid
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from taskflow.types.failure import Failure

from virtflow.activity import IDLE
from virtflow.errors import InvalidRequest
from virtflow.files.lock import hold
from virtflow.flows.spawn.disks import DiskShape, disk_tasks
from virtflow.images import names
from virtflow.images.blank_bases import BlankBases
from virtflow.images.cache import ImageCache
from virtflow.images.catalog import LocalCatalog
from virtflow.images.deltas import DeltaCache
from virtflow.images.qemu_img import QemuImg
from virtflow.images.records import ImageRecord
from virtflow.tasks.base import RevertPolicy, Task, run_execute, run_revert
from virtflow.tasks.blank_disks import CreateEphemerals, CreateSwap
from virtflow.tasks.images import FetchBase, FetchKernel, FetchRamdisk, FetchSnapshotBase, SizeBase
from virtflow.tasks.root_disks import CreateFlatDisk, CreateSnapshotDisk, FetchDelta
from virtflow.tasks.settings import HostSettings

MIB = 1 << 20
GIB = 1 << 30


class References:
    """Who uses which base."""

    def __init__(self) -> None:
        self.held: set[tuple[str, str]] = set()
        self.lock = threading.Lock()

    def add_reference(self, base_path: str, image_id: str, host: str, consumer: str, operation: str) -> None:
        self.held.add((base_path, consumer))

    def drop_reference(self, base_path: str, host: str, consumer: str) -> None:
        self.held.discard((base_path, consumer))


class Host:
    """One instance being made on a host; ``run`` keeps what tasks provide, as the engine's store does."""

    def __init__(self, path: Path) -> None:
        self.settings = HostSettings("host", path)
        self.source = LocalCatalog(path / "catalog")
        content = path / "content"
        content.write_bytes(os.urandom(MIB))
        self.image = self.source.add(content, "image", "raw")
        directory = path / "instance"
        directory.mkdir()
        cached = (path / "_base", path / "locks")
        self.references = References()
        self.directory = directory
        self.spec: dict[str, Any] = {
            "image": self.image.to_dict(), "disk_gib": 1, "disk_backend": "qcow2", "ephemerals": [], "swap_mib": 0,
            "snapshot_base": None, "kernel": None, "ramdisk": None,
        }  # fmt: skip
        self.store: dict[str, Any] = {
            "spec": self.spec, "instance_uuid": str(uuid.uuid4()), "operation": str(uuid.uuid4()),
            "instance_dir": str(directory), "settings": self.settings, "base_references": self.references,
            "image_source": self.source, "qemu_img": QemuImg(), "image_cache": ImageCache(*cached, QemuImg()),
            "blank_bases": BlankBases(*cached), "delta_cache": DeltaCache(*cached, QemuImg()),
        }  # fmt: skip

    def arguments(self, function: Any) -> dict[str, Any]:
        return {name: self.store[name] for name in inspect.signature(function).parameters if name in self.store}

    def run(self, task: Task) -> Any:
        arguments = self.arguments(task.execute)
        result = run_execute(task, arguments, IDLE)
        if isinstance(result, Failure):
            result.reraise()
        for name in task.provides:
            self.store[name] = result
        return result

    def revert(self, task: Task, result: Any) -> None:
        policy = RevertPolicy(attempts=1)
        assert run_revert(task, self.arguments(task.execute), result, {}, IDLE, policy) is None

    def held(self) -> set[str]:
        return {Path(path).name for path, _consumer in self.references.held}

    def files(self) -> set[str]:
        return {path.name for path in self.directory.iterdir()}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def label_of(path: str, file_format: str, directory: Path) -> Mapping[str, str]:
    raw = directory / "raw"
    subprocess.run(["qemu-img", "convert", "-f", file_format, "-O", "raw", path, str(raw)], check=True)
    out = subprocess.run(["blkid", "-p", "-o", "export", raw], check=True, capture_output=True, text=True).stdout
    return dict(line.split("=", 1) for line in out.splitlines())


def ephemeral(number: int, size: int, filesystem: str) -> dict[str, Any]:
    return {"size_gib": size, "filesystem": filesystem, "label": f"ephemeral{number}"}


@pytest.mark.parametrize("backend", ["qcow2", "qcow2-flat", "raw"])
def test_ephemeral_disks_and_swap_are_formatted_labelled_and_of_their_size(
    backend: str, host: Host, tmp_path: Path
) -> None:
    host.spec |= {"disk_backend": backend, "swap_mib": 64}
    host.spec["ephemerals"] = [ephemeral(0, 1, "ext4"), ephemeral(1, 2, "vfat"), ephemeral(2, 1, "ext3")]
    disks = [*host.run(CreateEphemerals()), host.run(CreateSwap())]
    assert host.files() == {"disk.local", "disk.eph0", "disk.eph1", "disk.swap"}
    names = ["disk.local", "disk.eph0", "disk.eph1", "disk.swap"]
    assert [Path(disk["path"]).name for disk in disks] == names
    assert [disk["size"] for disk in disks] == [GIB, 2 * GIB, GIB, 64 * MIB]
    assert {disk["format"] for disk in disks} == {"raw" if backend == "raw" else "qcow2"}
    found = [label_of(disk["path"], disk["format"], tmp_path) for disk in disks]
    assert [(each["TYPE"], each["LABEL"]) for each in found] == [
        ("ext4", "ephemeral0"),
        ("vfat", "ephemeral1"),
        ("ext3", "ephemeral2"),
        ("swap", "swap"),
    ]
    bases = {"ephemeral_1_ext4_ephemeral0", "ephemeral_2_vfat_ephemeral1", "ephemeral_1_ext3_ephemeral2", "swap_64"}
    assert host.held() == bases


@pytest.mark.parametrize("task", [CreateEphemerals, CreateSwap])
def test_making_empty_disks_twice_makes_them_once_and_reverting_leaves_only_the_shared_bases(
    task: type[Task], host: Host
) -> None:
    host.spec |= {"swap_mib": 8, "ephemerals": [ephemeral(0, 1, "ext4"), ephemeral(1, 1, "ext4")]}
    first = host.run(task())
    before = {path: path.stat().st_ino for path in host.directory.iterdir()}
    assert host.run(task()) == first
    assert {path: path.stat().st_ino for path in host.directory.iterdir()} == before
    for path in before:
        path.with_name(f"{path.name}.tmp.{host.store['operation']}").write_bytes(b"half")
    for _ in range(2):
        host.revert(task(), first)
    assert (host.files(), host.held()) == (set(), set())
    assert len(list(host.settings.base_path.iterdir())) == len(before)


def test_intents_name_every_disk_and_every_reference_before_they_are_made(host: Host) -> None:
    host.spec |= {"swap_mib": 8, "ephemerals": [ephemeral(0, 1, "ext4"), ephemeral(1, 1, "vfat")]}
    consumer, directory = host.store["instance_uuid"], host.store["instance_dir"]
    tasks = (CreateEphemerals(), CreateSwap(), CreateFlatDisk(), CreateSnapshotDisk(), FetchDelta())
    intents = [(each.kind, each.identity) for task in tasks for each in task.intents(**host.store)]
    sha1 = hashlib.sha1(host.image.id.encode()).hexdigest()
    assert intents == [
        ("base_reference", f"ephemeral_1_ext4_ephemeral0/{consumer}"),
        ("file", f"{directory}/disk.local"),
        ("base_reference", f"ephemeral_1_vfat_ephemeral1/{consumer}"),
        ("file", f"{directory}/disk.eph0"),
        ("base_reference", f"swap_8/{consumer}"),
        ("file", f"{directory}/disk.swap"),
        ("file", f"{directory}/disk"),
        ("file", f"{directory}/disk"),
        ("base_reference", f"{sha1}.delta/{consumer}"),
    ]


@pytest.mark.parametrize("backend", ["raw", "qcow2-flat"])
def test_a_whole_root_disk_needs_no_sized_base_and_is_gone_after_the_revert(backend: str, host: Host) -> None:
    host.spec["disk_backend"] = backend
    base = host.run(FetchBase())
    assert host.run(SizeBase())["path"] == base["path"]
    disk = host.run(CreateFlatDisk())
    assert host.run(CreateFlatDisk()) == disk
    assert (disk["size"], disk["format"]) == (GIB, "raw" if backend == "raw" else "qcow2")
    assert QemuImg().info(disk["path"], disk["format"]).backing_file is None
    for _ in range(2):
        host.revert(CreateFlatDisk(), disk)
    assert host.files() == set()


def test_kernel_and_ramdisk_are_cached_raw_and_referred_to(host: Host, tmp_path: Path) -> None:
    for name, disk_format in (("kernel", "aki"), ("ramdisk", "ari")):
        (tmp_path / name).write_bytes(name.encode() * 1000)
        host.spec[name] = host.source.add(tmp_path / name, name, disk_format).to_dict()
    for task, name in ((FetchKernel(), "kernel"), (FetchRamdisk(), "ramdisk")):
        found = host.run(task)
        assert Path(found["path"]).read_bytes() == name.encode() * 1000
        assert Path(found["path"]).name == hashlib.sha1(host.spec[name]["id"].encode()).hexdigest()
        assert host.held() == {Path(found["path"]).name}
        assert host.store[name] == found
        host.revert(task, found)
        assert host.held() == set()
        assert Path(found["path"]).exists()


def snapshot_of(host: Host, tmp_path: Path, size: str = "64M") -> ImageRecord:
    sha1 = hashlib.sha1(host.image.id.encode()).hexdigest()
    path = tmp_path / "delta"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, size], check=True)
    write = ["qemu-io", "-f", "qcow2", "-c", "write -P 9 32M 64k", str(path)]
    subprocess.run(write, check=True, capture_output=True)
    subprocess.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", f"{sha1}_2", path], check=True)
    properties = {"image_type": "snapshot", "base_image_id_sha1": sha1}
    return host.source.add(path, "snapshot", "qcow2", properties=properties)


@pytest.mark.parametrize("backend", ["qcow2", "raw"])
def test_a_snapshot_of_changes_becomes_a_root_disk_over_its_base(backend: str, host: Host, tmp_path: Path) -> None:
    snapshot = snapshot_of(host, tmp_path)
    changes = {"image": snapshot.to_dict(), "snapshot_base": host.image.to_dict(), "disk_backend": backend}
    host.spec |= changes | {"disk_gib": 3}
    for task in disk_tasks(DiskShape(delta=True)):
        result = host.run(task)
        assert host.run(task) == result
    disk = host.store["root_disk"]
    sha1 = hashlib.sha1(host.image.id.encode()).hexdigest()
    assert (disk["size"], disk["path"]) == (3 * GIB, f"{host.directory}/disk")
    subprocess.run(
        ["qemu-img", "convert", "-f", disk["format"], "-O", "raw", disk["path"], tmp_path / "raw"], check=True
    )
    with (tmp_path / "raw").open("rb") as raw:
        assert raw.read(MIB) == (tmp_path / "content").read_bytes()
        raw.seek(32 * MIB)
        assert raw.read(65537) == b"\x09" * 65536 + b"\0"
    backing = QemuImg().info(disk["path"], disk["format"]).backing_file
    assert backing == (str(host.settings.base_path / f"{sha1}_3") if backend == "qcow2" else None)
    for task in reversed(disk_tasks(DiskShape(delta=True))):
        for _ in range(2):
            host.revert(task, None)
    assert (host.files(), host.held()) == (set(), set())


def test_a_disk_smaller_than_its_snapshot_is_refused_by_its_field(host: Host, tmp_path: Path) -> None:
    host.spec |= {"image": snapshot_of(host, tmp_path, "2G").to_dict(), "snapshot_base": host.image.to_dict()}
    with pytest.raises(InvalidRequest, match=r"^disk: 1 GiB is smaller than the image's virtual size"):
        host.run(FetchDelta())
    host.revert(FetchDelta(), None)
    assert host.held() == set()


@pytest.mark.parametrize("worked_on", [False, True])
@pytest.mark.parametrize(
    ("task", "left"),
    [
        (CreateEphemerals, ["ephemeral_1_ext4_ephemeral0.part"]),
        (CreateSwap, ["swap_8.part"]),
        (FetchBase, ["{sha1}.part", "{sha1}.converted", "{sha1}.json.part", "{sha1}_1.part"]),
        (FetchDelta, ["{sha1}.delta.part", "{sha1}.delta.converted", "{sha1}.delta.json.part"]),
    ],
)
def test_what_a_killed_one_left_in_the_cache_goes_with_the_revert_unless_somebody_works_on_it(
    task: type[Task], left: list[str], worked_on: bool, host: Host
) -> None:
    host.spec |= {"swap_mib": 8, "ephemerals": [ephemeral(0, 1, "ext4")]}
    sha1 = names.base_name(host.image.id)
    host.settings.base_path.mkdir()
    paths = [host.settings.base_path / name.format(sha1=sha1) for name in left]
    for path in paths:
        path.write_bytes(b"half")
    lock = host.settings.locks_path / f"base-{sha1 if '{' in left[0] else left[0].removesuffix('.part')}"
    with hold(lock) if worked_on else nullcontext():
        host.revert(task(), None)
    assert [path for path in paths if path.exists()] == (paths if worked_on else [])


@pytest.mark.parametrize(
    "task", [CreateEphemerals, CreateSwap, CreateFlatDisk, CreateSnapshotDisk, FetchDelta, FetchSnapshotBase]
)
def test_reverting_what_never_happened_is_fine(task: type[Task], host: Host) -> None:
    host.spec |= {"swap_mib": 8, "ephemerals": [ephemeral(0, 1, "ext4")], "snapshot_base": host.image.to_dict()}
    for missing in ("sized_base", "delta", "base"):
        host.store.setdefault(missing, None)
    host.revert(task(), None)
    assert (host.files(), host.held()) == (set(), set())
