"""Injection through libguestfs, where its binding is installed: for disks that the fast ways do not know."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from virtflow.injection import injector
from virtflow.injection.injector import Injector
from virtflow.injection.plan import GuestItems

pytestmark = pytest.mark.timeout(300)

ITEMS = GuestItems(
    keys=("ssh-ed25519 AAAAC3 me@home",),
    network=b"auto lo\n",
    metadata={"role": "web"},
    admin_password="canary-password",
    files={"/opt/some where/file": b"content\0\xff"},
)
_PROBE = "import guestfs, virtflow.injection.worker"


@pytest.fixture
def python(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that has the binding: ours, or the distribution's, for which it was built."""
    sources = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": sources}
    for each in (sys.executable, "/usr/bin/python3"):
        if subprocess.run([each, "-c", _PROBE], env=environment, capture_output=True, check=False).returncode == 0:
            monkeypatch.setenv("PYTHONPATH", sources)
            monkeypatch.setattr(injector.sys, "executable", each)
            return
    pytest.skip("libguestfs is missing (apt install python3-guestfs), or its Python is older than 3.11")


@pytest.mark.usefixtures("python")
def test_everything_arrives_through_libguestfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tmp_path / "tree"
    for name in ("etc", "root"):
        (tree / name).mkdir(parents=True)
    (tree / "etc/shadow").write_text("root:*:1:0:99999:7:::\n")
    raw, disk = tmp_path / "raw", tmp_path / "disk"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-E", "root_owner=0:0", "-d", tree, raw, "32M"], check=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", raw, disk], check=True)
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("LIBGUESTFS_CACHEDIR", str(tmp_path / "cache"))
    done = Injector("libguestfs", guestfs_emulated=True).inject(disk, "qcow2", 0, ITEMS, "op1")
    assert done.failed == {}
    assert done.injected == ITEMS.wanted()
    assert done.method == "libguestfs"
    inside = tmp_path / "inside"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", disk, inside], check=True)
    read = subprocess.run(["debugfs", "-R", 'cat "/opt/some where/file"', inside], check=True, capture_output=True)
    assert read.stdout == b"content\0\xff"
    assert sorted(path.name for path in tmp_path.glob("disk*")) == ["disk"]
