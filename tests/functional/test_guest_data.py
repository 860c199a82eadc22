"""What a request carries reaches the guest of a real spawn: on a vfat config drive, or injected into its disk."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.functional.nodes import NETWORK, CommandLine, Console, booting, command_line_up, node_up, small
from virtflow.errors import InvalidRequest, OperationFailed
from virtflow.images.catalog import LocalCatalog
from virtflow.testing.guest import GuestImage

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(180), pytest.mark.usefixtures("_session_hypervisor")]

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO5QGJLjXBJYgh9J0dHbU2rmKp0NnYVbdBzZpbRSLVh0 me@here"
FILE = b"key = value\n\0binary\xff"
KILLED = -9
INJECTING = {"config_drive.force": "False", "injection.partition": "-1", "injection.admin_password": "True"}


@pytest.fixture(scope="module")
def linux_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog with ``linux``: nothing but a file system, as an image has that brings its kernel along."""
    if shutil.which("mke2fs") is None:
        pytest.skip("mke2fs is missing (apt install e2fsprogs)")
    work = tmp_path_factory.mktemp("linux")
    tree = work / "tree"
    for name in ("etc", "root"):
        (tree / name).mkdir(parents=True)
    (tree / "etc/shadow").write_text("root:*:1:0:99999:7:::\n")
    disk = work / "disk.raw"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-E", "root_owner=0:0", "-d", tree, disk, "32M"], check=True)
    LocalCatalog(work / "catalog").add(disk, "linux", "raw")
    LocalCatalog(work / "catalog").add(disk, "demanding", "raw", properties={"img_config_drive": "mandatory"})
    return work / "catalog"


class Inside:
    """The file system on an instance's disk, of which a guest may be running."""

    def __init__(self, directory: Path, disk_format: str = "qcow2") -> None:
        self.raw = directory / "inside.raw"
        command = ["qemu-img", "convert", "-U", "-f", disk_format, "-O", "raw", directory / "disk", self.raw]
        subprocess.run(command, check=True)

    def read(self, path: str) -> bytes:
        return subprocess.run(["debugfs", "-R", f"cat {path}", self.raw], check=True, capture_output=True).stdout


def request(name: str, **fields: Any) -> Any:
    wanted = {
        "image": "linux",
        "ssh_keys": [KEY],
        "files": [{"path": "/opt/app.conf", "content": FILE}],
        "admin_password": "canary-password",
        "meta": {"role": "web"},
    }
    return small(name, **{**wanted, **fields})


def test_a_guest_reads_its_vfat_config_drive(embed_root: Path, catalog: Path) -> None:
    with node_up(embed_root, catalog, **{"config_drive.format": "vfat"}) as node:
        files = [{"path": "/opt/app.conf", "content": FILE}]
        node.runner.run(booting("talker", user_data=b"#!/bin/sh\necho told\n", files=files, swap_mib=16))
        console = Console(node.directory("talker") / "console.log").wait_ready()
        assert console.line("CONFIG-DRIVE").startswith("/dev/vdc vfat ")
        text = console.text
        assert "echo told" in text
        assert f"CONTENT 0001 {hashlib.sha256(FILE).hexdigest()}" in text
        assert f"ADDRESS eth0 {node.port('talker').address} " in text
        assert (node.directory("talker") / "disk.config").stat().st_mode & 0o777 == 0o600


@pytest.fixture
def with_kernel(linux_catalog: Path, guest_image: GuestImage, tmp_path: Path) -> Path:
    """A catalog with ``linux`` that brings the test guest's kernel and ramdisk along."""
    catalog = LocalCatalog(tmp_path / "catalog")
    properties = {"os_command_line": "console=ttyS0 quiet no_timer_check"}
    for name, disk_format, path in (("kernel", "aki", guest_image.kernel), ("ramdisk", "ari", guest_image.initrd)):
        properties[f"{name}_id"] = catalog.add(path, name, disk_format).id
    catalog.add(linux_catalog.parent / "disk.raw", "linux", "raw", properties=properties)
    return tmp_path / "catalog"


def test_a_guest_confirms_its_kernel_its_disks_its_vfat_config_drive_and_what_was_injected(
    embed_root: Path, with_kernel: Path, tmp_path: Path
) -> None:
    """Two guests: with a config drive nothing is injected. All else they have both."""
    settings = INJECTING | {"config_drive.format": "vfat"}
    environment = {f"VIRTFLOW_{name.replace('.', '__').upper()}": value for name, value in settings.items()}
    (tmp_path / "id.pub").write_text(KEY)
    (tmp_path / "app.conf").write_bytes(FILE)
    (tmp_path / "user-data").write_text("#!/bin/sh\necho told\n")
    words = ("--image", "linux", "--vcpus", "1", "--memory", "128", "--disk", "1", "--network", NETWORK)
    words += ("--ephemeral", "1", "--ephemeral", "2:vfat", "--swap", "16")
    words += ("--ssh-key", str(tmp_path / "id.pub"), "--file", f"/opt/app.conf={tmp_path / 'app.conf'}")
    drive_words = ("--config-drive", "--user-data", str(tmp_path / "user-data"))
    disks = ["vda ext4 ", "vdb ext4 ephemeral0", "vdc vfat ephemeral1 ", "vdd swap swap"]
    file = hashlib.sha256(FILE).hexdigest()
    with command_line_up(embed_root, with_kernel, **environment) as up:
        for answer in (up("spawn", "injected", *words), up("spawn", "driven", *words, *drive_words)):
            assert answer.code == 0, answer.err
        injected, driven = (
            Console(up.config.instances.path / up.instance(name).uuid / "console.log").wait_ready()
            for name in ("injected", "driven")
        )
        for console in (injected, driven):
            assert re.findall("^DISK (.*)$", console.text, re.MULTILINE) == disks
        assert injected.line("CONFIG-DRIVE") == "none"
        keys = Inside(injected.path.parent).read("/root/.ssh/authorized_keys")
        assert KEY in keys.decode()
        for path, content in (("/opt/app.conf", FILE), ("/root/.ssh/authorized_keys", keys)):
            assert f"FILE vda {path} {hashlib.sha256(content).hexdigest()}\n" in injected.text
        assert driven.line("CONFIG-DRIVE").startswith("/dev/vde vfat ")
        assert driven.document("CONFIG-DRIVE")["public_keys"] == {"key-0": KEY}
        assert driven.block("USER-DATA").strip() == "#!/bin/sh\necho told"
        assert f"CONTENT 0001 {file}" in driven.text
        assert "/opt/app.conf" not in driven.text.partition("DISK ")[2]


@pytest.mark.parametrize("backend", ["qcow2", "raw"])
def test_without_a_config_drive_everything_is_injected(embed_root: Path, linux_catalog: Path, backend: str) -> None:
    with node_up(embed_root, linux_catalog, **INJECTING, **{"instances.disk_backend": backend}) as node:
        node.runner.run(request("web1"))
        directory = node.directory("web1")
        assert not (directory / "disk.config").exists()
        assert not [name for name in os.listdir(directory) if "inject" in name or "tmp" in name]
        guest = Inside(directory, backend)
        assert guest.read("/root/.ssh/authorized_keys").decode().splitlines()[-1] == KEY
        assert guest.read("/opt/app.conf") == FILE
        assert f"address {node.port('web1').address}\n" in guest.read("/etc/network/interfaces").decode()
        assert json.loads(guest.read("/meta.js")) == {"role": "web"}
        assert re.match(rb"root:\$6\$", guest.read("/etc/shadow"))


def test_with_a_config_drive_nothing_is_injected(embed_root: Path, linux_catalog: Path) -> None:
    with node_up(embed_root, linux_catalog, **INJECTING) as node:
        node.runner.run(request("web1", image="demanding"))
        directory = node.directory("web1")
        assert (directory / "disk.config").exists()
        assert Inside(directory).read("/etc/shadow") == b"root:*:1:0:99999:7:::\n"


def test_what_could_not_reach_the_guest_is_refused_before_anything_is_made(
    embed_root: Path, linux_catalog: Path
) -> None:
    with node_up(embed_root, linux_catalog, **{"config_drive.force": "False"}) as node:
        before = node.residue()
        with pytest.raises(InvalidRequest, match=r"^ssh_keys: would not reach the guest"):
            node.runner.run(request("web1"))
        with pytest.raises(InvalidRequest, match=r"^config_drive: image 'demanding' cannot do without one"):
            node.runner.run(request("web1", image="demanding", config_drive=False))
        assert node.left_since(before) == []


def test_a_file_that_must_arrive_and_cannot_fails_the_spawn_and_nothing_is_left(
    embed_root: Path, linux_catalog: Path
) -> None:
    with node_up(embed_root, linux_catalog, **INJECTING) as node:
        before = node.residue()
        files = [{"path": "/etc/shadow/x", "content": b"canary"}]
        with pytest.raises(OperationFailed, match=r"cannot inject into .*: files: /etc/shadow/x Not a directory"):
            node.runner.run(request("web1", files=files))
        assert node.left_since(before) == []


@pytest.fixture
def injecting(embed_root: Path, linux_catalog: Path) -> Iterator[CommandLine]:
    settings = {f"VIRTFLOW_{name.replace('.', '__').upper()}": value for name, value in INJECTING.items()}
    with command_line_up(embed_root, linux_catalog, **settings) as up:
        yield up


@pytest.mark.parametrize("damage", [False, True], ids=["finished", "half-way"])
def test_a_resumed_spawn_makes_a_half_injected_disk_anew(injecting: CommandLine, tmp_path: Path, damage: bool) -> None:
    fields = {"name": "web1", "image": "linux", "vcpus": 1, "memory_mib": 32, "disk_gib": 1, "ssh_keys": [KEY]}
    files = [{"path": "/opt/app.conf", "content": base64.b64encode(FILE).decode()}]
    (tmp_path / "request.json").write_text(json.dumps({**fields, "files": files, "networks": [{"network": NETWORK}]}))
    words = ("spawn", "-r", str(tmp_path / "request.json"))
    assert injecting(*words, fault="InjectFiles:after:kill").code == KILLED
    operation = injecting.operation()["id"]
    (disk,) = injecting.config.instances.path.glob("*-*/disk")
    if damage:
        disk.write_bytes(b"half an image")
        disk.with_name(f"disk.injecting.{operation}").mkdir()
    answer = injecting("operation", "resume", operation)
    assert answer.code == 0, answer.err
    guest = Inside(disk.parent)
    assert guest.read("/root/.ssh/authorized_keys").decode().count(KEY) == 1
    assert guest.read("/opt/app.conf") == FILE
    assert not list(disk.parent.glob("*inject*"))
