"""The builder of the test guest, as far as it goes without a kernel."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from virtflow.errors import HostLacks
from virtflow.testing import guest
from virtflow.testing.guest_initrd import Entry, build_initrd, cpio, load_order
from virtflow.testing.guest_kernel import GuestKernel, installed_kernel, version_key

MODULES_DEP = """\
kernel/fs/isofs/isofs.ko: kernel/drivers/cdrom/cdrom.ko
kernel/drivers/cdrom/cdrom.ko:
kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/block/virtio_blk.ko.xz: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio-rng.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
"""


def _kernel(root: Path, version: str) -> Path:
    (root / "boot").mkdir(parents=True, exist_ok=True)
    (root / "boot" / f"vmlinuz-{version}").write_bytes(b"kernel")
    modules = root / "lib/modules" / version
    modules.mkdir(parents=True)
    (modules / "modules.dep").write_text("")
    return modules


def test_a_module_is_loaded_after_everything_that_it_needs_and_only_once() -> None:
    order = [Path(path).name for path in load_order(MODULES_DEP, ["virtio_blk", "virtio_rng"])]
    assert order == ["virtio_ring.ko", "virtio.ko", "virtio_blk.ko.xz", "virtio-rng.ko"]


def test_a_module_that_is_built_into_the_kernel_is_left_out() -> None:
    assert load_order(MODULES_DEP, ["ext4", "isofs"]) == [
        "kernel/drivers/cdrom/cdrom.ko",
        "kernel/fs/isofs/isofs.ko",
    ]


@pytest.mark.skipif(shutil.which("cpio") is None, reason="needs cpio (package cpio)")
def test_the_archive_is_one_that_cpio_reads(tmp_path: Path) -> None:
    archive = cpio(
        [Entry("bin", 0o040755), Entry("bin/tool", 0o100755, b"odd"), Entry("init", 0o100755, b"#!/bin/tool\n")]
    )
    subprocess.run(["cpio", "-i", "--quiet", "--no-preserve-owner"], input=archive, cwd=tmp_path, check=True)
    assert (tmp_path / "bin/tool").read_bytes() == b"odd"
    assert os.access(tmp_path / "init", os.X_OK)


def test_the_newest_kernel_is_taken_by_number_not_by_letter(tmp_path: Path) -> None:
    for version in ("6.1.0-9-cloud-amd64", "6.1.0-10-cloud-amd64"):
        _kernel(tmp_path, version)
    found = installed_kernel(tmp_path)
    assert found is not None
    assert found.version == "6.1.0-10-cloud-amd64"
    assert version_key("6.1.0-9") < version_key("6.1.0-10")


def test_a_kernel_without_its_modules_is_not_taken(tmp_path: Path) -> None:
    (_kernel(tmp_path, "6.1.0-10-cloud-amd64") / "modules.dep").unlink()
    assert installed_kernel(tmp_path) is None


def test_an_initramfs_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"\x7fELF static")
    kernel = GuestKernel("6.1.0-1-cloud-amd64", tmp_path / "vmlinuz", _kernel(tmp_path, "6.1.0-1-cloud-amd64"))
    first = build_initrd(kernel, busybox)
    assert first == build_initrd(kernel, busybox)
    assert b"GUEST-READY" in gzip.decompress(first)


def test_a_busybox_that_needs_shared_libraries_is_refused_with_the_package_that_mends_it(tmp_path: Path) -> None:
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"\x7fELF /lib64/ld-linux-x86-64.so.2")
    kernel = GuestKernel("6.1.0-1-cloud-amd64", tmp_path / "vmlinuz", _kernel(tmp_path, "6.1.0-1-cloud-amd64"))
    with pytest.raises(HostLacks, match="busybox-static"):
        build_initrd(kernel, busybox)


def test_missing_programs_are_named_with_their_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest, "_SEARCH_PATH", str(tmp_path))
    monkeypatch.setattr(guest, "installed_kernel", lambda: None)
    with pytest.raises(HostLacks) as caught:
        guest.build_guest(tmp_path / "cache")
    assert "mcopy" in str(caught.value)
    assert "apt-get install" in str(caught.value)
    assert "mtools" in str(caught.value)
