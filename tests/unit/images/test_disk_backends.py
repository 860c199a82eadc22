from __future__ import annotations

import json
import os
import stat
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from virtflow.errors import CommandFailed, HostStorageError
from virtflow.files import durable
from virtflow.images import disk_backends
from virtflow.images.disk_backends import BACKENDS, DiskPlan, make_disk
from virtflow.images.qemu_img import QemuImg

MIB = 1 << 20


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base"
    path.write_bytes(os.urandom(MIB) + bytes(2 * MIB) + os.urandom(MIB))
    return path


def plan_in(tmp_path: Path, backend: str, base: Path, size: int = 16 * MIB) -> DiskPlan:
    return DiskPlan(tmp_path / "disk", tmp_path / "disk.tmp.op", backend, base, size)


def info(path: Path, file_format: str) -> dict[str, Any]:
    argv = ["qemu-img", "info", "-f", file_format, "--output", "json", str(path)]
    found: dict[str, Any] = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    return found


def content(path: Path, file_format: str, target: Path) -> bytes:
    subprocess.run(["qemu-img", "convert", "-f", file_format, "-O", "raw", path, target], check=True)
    return target.read_bytes()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_disk_has_the_content_of_its_base_and_the_size_asked_for(backend: str, tmp_path: Path, base: Path) -> None:
    plan = plan_in(tmp_path, backend, base)
    make_disk(plan, QemuImg())
    assert content(plan.path, plan.format, tmp_path / "copy") == base.read_bytes().ljust(plan.size, b"\0")
    assert sorted(os.listdir(tmp_path)) == ["base", "copy", "disk"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_disk_is_its_owners_alone_while_it_is_built_and_afterwards(
    backend: str, tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[int] = []

    def publish(staged: Path, final: Path, mode: int) -> None:
        built.append(stat.S_IMODE(staged.stat().st_mode))
        durable.publish(staged, final, mode)

    monkeypatch.setattr(disk_backends, "publish", publish)
    base.chmod(0o644)
    before = os.umask(0)
    try:
        make_disk(plan_in(tmp_path, backend, base), QemuImg())
    finally:
        os.umask(before)
    assert (built, stat.S_IMODE((tmp_path / "disk").stat().st_mode)) == ([0o600], 0o600)


def test_each_backend_keeps_the_disk_in_its_own_way(tmp_path: Path, base: Path) -> None:
    found = {}
    for backend in BACKENDS:
        plan = replace(plan_in(tmp_path, backend, base), path=tmp_path / backend)
        make_disk(plan, QemuImg())
        read = info(plan.path, plan.format)
        found[backend] = (read["format"], read.get("backing-filename"), read.get("backing-filename-format"))
    assert found == {
        "qcow2": ("qcow2", str(base), "raw"),
        "qcow2-flat": ("qcow2", None, None),
        "raw": ("raw", None, None),
    }


def test_a_raw_disk_keeps_its_holes(tmp_path: Path, base: Path) -> None:
    plan = plan_in(tmp_path, "raw", base, 1 << 30)
    make_disk(plan, QemuImg())
    assert plan.path.stat().st_size == 1 << 30
    assert plan.path.stat().st_blocks * 512 <= 3 * MIB


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_disk_that_is_there_is_found_and_not_touched(backend: str, tmp_path: Path, base: Path) -> None:
    plan = plan_in(tmp_path, backend, base)
    make_disk(plan, QemuImg())
    before = plan.path.stat()
    make_disk(plan, QemuImg())
    after = plan.path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("other", ["size", "backend", "base", "garbage", "link"])
def test_another_disk_of_that_name_is_refused_and_left_alone(
    backend: str, other: str, tmp_path: Path, base: Path
) -> None:
    plan = plan_in(tmp_path, backend, base)
    if other == "garbage":
        plan.path.write_bytes(b"garbage")
    elif other == "link":
        os.symlink(base, plan.path)
    elif other == "base" and backend == "qcow2":
        copy = tmp_path / "other-base"
        copy.write_bytes(base.read_bytes())
        make_disk(replace(plan, base=copy), QemuImg())
    elif other == "backend":
        # Another qcow2 for the qcow2 ones; a raw disk of another size, since a raw disk says nothing of itself.
        different = {"qcow2": "qcow2-flat", "qcow2-flat": "qcow2", "raw": "qcow2"}[backend]
        make_disk(replace(plan, backend=different), QemuImg())
    else:
        make_disk(replace(plan, size=32 * MIB), QemuImg())
    before = plan.path.stat(follow_symlinks=False)
    with pytest.raises(HostStorageError, match="another disk of that name is there"):
        make_disk(plan, QemuImg())
    after = plan.path.stat(follow_symlinks=False)
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (before.st_ino, before.st_mtime_ns, before.st_size)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_killed_predecessor_staged_is_made_anew(backend: str, tmp_path: Path, base: Path) -> None:
    plan = plan_in(tmp_path, backend, base)
    plan.staged.write_bytes(b"half a disk")
    make_disk(plan, QemuImg())
    assert content(plan.path, plan.format, tmp_path / "copy")[:MIB] == base.read_bytes()[:MIB]
    assert not plan.staged.exists()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_disk_that_cannot_be_made_has_no_name(backend: str, tmp_path: Path, base: Path) -> None:
    plan = plan_in(tmp_path, backend, tmp_path / "no such base")
    with pytest.raises((CommandFailed, HostStorageError)):
        make_disk(plan, QemuImg())
    assert not plan.path.exists()


def test_a_raw_disk_on_which_the_guest_wrote_a_qcow2_header_is_still_raw(tmp_path: Path, base: Path) -> None:
    """CVE-2026-24708: nothing of the guest's is ever probed."""
    plan = plan_in(tmp_path, "raw", base)
    make_disk(plan, QemuImg())
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "evil", "1T"], check=True)
    with plan.path.open("r+b") as disk:
        disk.write((tmp_path / "evil").read_bytes())
        disk.truncate(plan.size)
    make_disk(plan, QemuImg("/nonexistent/qemu-img"))
