"""Guests with every kind of disk, booted: what they see, and what the host reads in the files."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.functional.nodes import Console
from virtflow.hypervisor.disk_mapping import map_disks
from virtflow.hypervisor.domain_xml import DiskSpec, DomainSpec, build
from virtflow.images import names
from virtflow.images.blank_bases import BlankBases
from virtflow.images.cache import ImageCache
from virtflow.images.catalog import LocalCatalog
from virtflow.images.deltas import DeltaCache
from virtflow.images.disk_backends import DiskPlan, make_disk, make_disk_from_delta
from virtflow.images.qemu_img import QemuImg
from virtflow.testing.guest import GuestImage

if TYPE_CHECKING:
    from virtflow.hypervisor.hypervisor import Hypervisor

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(240)]

GIB = 1 << 30
MIB = 1 << 20


class Host:
    """The cache of a host and the directory of one instance."""

    def __init__(self, path: Path, guest: GuestImage) -> None:
        cached = (path / "_base", path / "locks")
        self.directory = path / "instance"
        self.directory.mkdir()
        self.source = LocalCatalog(path / "catalog")
        self.image = self.source.add(guest.disk_qcow2, "tiny", "qcow2")
        self.cache = ImageCache(*cached, QemuImg())
        self.deltas = DeltaCache(*cached, QemuImg())
        self.blanks = BlankBases(*cached)
        self.path = path

    def disk(self, name: str, backend: str, base: str, size: int) -> DiskPlan:
        return DiskPlan(self.directory / name, self.directory / f"{name}.tmp.op", backend, Path(base), size)

    def empty_disks(self, backend: str) -> list[DiskPlan]:
        """Two ephemeral disks and swap."""
        bases = [
            ("disk.local", self.blanks.ephemeral(1, "ext4", "ephemeral0")),
            ("disk.eph0", self.blanks.ephemeral(2, "vfat", "ephemeral1")),
            ("disk.swap", self.blanks.swap(64)),
        ]
        plans = [self.disk(name, backend, base.path, base.size) for name, base in bases]
        for plan in plans:
            make_disk(plan, QemuImg())
        return plans

    def changes(self) -> Path:
        """An overlay of the image with something written on it, as an upload: its base is a name, not a path."""
        base = self.cache.fetch(self.image, self.source)
        path = self.path / "changes.qcow2"
        create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base.path, str(path), "64M"]
        subprocess.run(create, check=True)
        write = ["qemu-io", "-f", "qcow2", "-c", "write -P 9 48M 64k", str(path)]
        subprocess.run(write, check=True, capture_output=True)
        name = names.base_name(self.image.id)
        subprocess.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", name, str(path)], check=True)
        return path

    def forget_bases(self) -> None:
        shutil.rmtree(self.path / "_base")


@pytest.fixture
def host(guest_image: GuestImage) -> Iterator[Host]:
    # Not below pytest's directory, which only its owner may search: QEMU may run as another user.
    path = Path(tempfile.mkdtemp(prefix="vf-disks-"))
    yield Host(path, guest_image)
    shutil.rmtree(path)


def boot(
    host: Host, hypervisor: Hypervisor, disks: list[DiskPlan], kernel: str | None = None, initrd: str | None = None
) -> Console:
    mapping = map_disks(machine="q35", ephemeral=2, swap=True)
    slots = mapping.by_file()
    spec = DomainSpec(
        uuid=str(uuid.uuid4()),
        name="disks",
        operation=str(uuid.uuid4()),
        host="host",
        virt_type="qemu",
        machine="q35",
        vcpus=1,
        memory_mib=128,
        console_log=str(host.directory / "console.log"),
        kernel=kernel,
        initrd=initrd,
        cmdline="console=ttyS0 quiet no_timer_check" if kernel else None,
        tcg_cache_mib=32,
        disks=tuple(
            DiskSpec(str(plan.path), plan.format, slots[plan.path.name].bus, slots[plan.path.name].target,
                     cache="writeback")
            for plan in disks
        ),
    )  # fmt: skip
    hypervisor.define(build(spec))
    hypervisor.start(spec.uuid)
    return Console(host.directory / "console.log").wait_ready()


def parts(console: Console) -> dict[str, int]:
    """Disks and their sizes in KiB, as the guest sees them, in its order; partitions left out."""
    found = (word.split("=") for word in console.line("PARTS").split())
    return {name: int(size) for name, size in found if not name[-1].isdigit()}


def labels(disks: list[DiskPlan], scratch: Path) -> list[tuple[str, str]]:
    found = []
    for plan in disks:
        argv = ["qemu-img", "convert", "-U", "-f", plan.format, "-O", "raw", str(plan.path), str(scratch)]
        subprocess.run(argv, check=True)
        out = subprocess.run(
            ["blkid", "-p", "-o", "export", scratch], check=True, capture_output=True, text=True
        ).stdout
        read = dict(line.split("=", 1) for line in out.splitlines())
        found.append((read["TYPE"], read["LABEL"]))
    return found


EMPTY = {"vdb": 1 << 20, "vdc": 2 << 20, "vdd": 64 << 10}
LABELS = [("ext4", "ephemeral0"), ("vfat", "ephemeral1"), ("swap", "swap")]


def test_a_guest_on_overlays_boots_and_sees_root_ephemeral_and_swap_disks(host: Host, hypervisor: Hypervisor) -> None:
    base = host.cache.size_base(host.cache.fetch(host.image, host.source), GIB)
    root = host.disk("disk", "qcow2", base, GIB)
    make_disk(root, QemuImg())
    empty = host.empty_disks("qcow2")
    assert parts(boot(host, hypervisor, [root, *empty])) == {"vda": 1 << 20, **EMPTY}
    assert labels(empty, host.path / "scratch") == LABELS


def test_a_guest_on_whole_qcow2_disks_made_of_a_snapshot_of_changes_boots_without_any_base(
    host: Host, hypervisor: Hypervisor
) -> None:
    properties = {"image_type": "snapshot", "base_image_id_sha1": names.base_name(host.image.id)}
    record = host.source.add(host.changes(), "snapshot", "qcow2", properties=properties)
    host.forget_bases()
    delta = host.deltas.fetch(record, host.source)
    base = host.cache.fetch(host.source.find_by_sha1(delta.base), host.source)
    root = host.disk("disk", "qcow2-flat", base.path, GIB)
    make_disk_from_delta(root, delta, Path(base.path), QemuImg())
    empty = host.empty_disks("qcow2-flat")
    host.forget_bases()
    assert parts(boot(host, hypervisor, [root, *empty])) == {"vda": 1 << 20, **EMPTY}
    read = ["qemu-io", "-r", "-U", "-f", "qcow2", "-c", "read -P 9 48M 64k", str(root.path)]
    assert b"Pattern verification failed" not in subprocess.run(read, check=True, capture_output=True).stdout
    assert labels(empty, host.path / "scratch") == LABELS


def test_a_guest_on_an_overlay_made_of_a_snapshot_of_changes_boots(host: Host, hypervisor: Hypervisor) -> None:
    properties = {"image_type": "snapshot", "base_image_id_sha1": names.base_name(host.image.id)}
    record = host.source.add(host.changes(), "snapshot", "qcow2", properties=properties)
    delta = host.deltas.fetch(record, host.source)
    base = host.cache.fetch(host.source.find_by_sha1(delta.base), host.source)
    root = host.disk("disk", "qcow2", host.cache.size_base(base, GIB), GIB)
    make_disk_from_delta(root, delta, Path(base.path), QemuImg())
    empty = host.empty_disks("qcow2")
    assert parts(boot(host, hypervisor, [root, *empty])) == {"vda": 1 << 20, **EMPTY}


def test_a_guest_with_kernel_and_ramdisk_of_its_own_boots_on_raw_disks(
    host: Host, hypervisor: Hypervisor, guest_image: GuestImage
) -> None:
    boot_files = []
    for name, disk_format, path in (("kernel", "aki", guest_image.kernel), ("ramdisk", "ari", guest_image.initrd)):
        record = host.source.add(path, name, disk_format)
        boot_files.append(host.cache.fetch(record, host.source).path)
    root = host.disk("disk", "raw", host.cache.fetch(host.image, host.source).path, GIB)
    make_disk(root, QemuImg())
    empty = host.empty_disks("raw")
    console = boot(host, hypervisor, [root, *empty], *boot_files)
    assert parts(console) == {"vda": 1 << 20, **EMPTY}
    assert labels(empty, host.path / "scratch") == LABELS
    assert sum(os.stat(plan.path).st_blocks * 512 for plan in empty) < 64 * MIB
