"""Config drives as programs that are not ours write and read them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from virtflow.activity import Activity
from virtflow.errors import ConfigDriveError, ConfigurationError, TaskTimeout
from virtflow.metadata.config_drive import ConfigDriveWriter
from virtflow.metadata.drive_contents import DriveContents
from virtflow.metadata.instance_metadata import InjectedFile, InstanceMetadata, tree

MD = InstanceMetadata(
    uuid="b7c1",
    name="web1",
    hostname="web1",
    project="demo",
    random_seed=bytes(512),
    meta={"role": "wéb"},
    user_data=b"#!/bin/sh\necho hello\n",
    files=(InjectedFile("/etc/motd", bytes(range(256)) * 40),),
    admin_password="s3cret-word",
)

WRITERS = [None, "genisoimage", "xorriso -as mkisofs"]


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing (apt install genisoimage xorriso)")


def writer(command: str | None) -> ConfigDriveWriter:
    if command:
        need(command.split(maxsplit=1)[0])
    return ConfigDriveWriter(command)


def output(*argv: str | Path) -> bytes:
    return subprocess.run(argv, check=True, capture_output=True).stdout


@pytest.mark.must_run
@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize("names", ["-R", "-J"], ids=["rock-ridge", "joliet"])
def test_isoinfo_reads_every_file_under_its_own_name(tmp_path: Path, command: str | None, names: str) -> None:
    need("isoinfo")
    drive = tmp_path / "disk.config"
    writer(command).write(tree(MD), drive, "op1")
    listed = output("isoinfo", names, "-i", drive, "-f").decode().split()
    for path, content in tree(MD).items():
        assert f"/{path}" in listed
        assert output("isoinfo", names, "-i", drive, "-x", f"/{path}") == content
    assert json.loads(output("isoinfo", names, "-i", drive, "-x", "/openstack/latest/meta_data.json"))["name"] == "web1"


@pytest.mark.must_run
@pytest.mark.parametrize("command", WRITERS)
def test_a_guests_agent_finds_its_label(tmp_path: Path, command: str | None) -> None:
    need("isoinfo", "blkid")
    drive = tmp_path / "disk.config"
    writer(command).write(tree(MD), drive, "op1")
    assert "Volume id: config-2\n" in output("isoinfo", "-d", "-i", drive).decode()
    assert output("blkid", "-p", "-o", "value", "-s", "LABEL", drive).decode().strip() == "config-2"
    assert output("blkid", "-p", "-o", "value", "-s", "TYPE", drive).decode().strip() == "iso9660"


@pytest.mark.parametrize("command", WRITERS)
def test_xorriso_extracts_the_whole_tree(tmp_path: Path, command: str | None) -> None:
    need("xorriso")
    drive, out = tmp_path / "disk.config", tmp_path / "out"
    writer(command).write(tree(MD), drive, "op1")
    output("xorriso", "-osirrox", "on", "-indev", drive, "-extract", "/", out)
    found = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert found == tree(MD)


@pytest.mark.parametrize("command", WRITERS)
def test_only_the_owner_may_read_it_and_nothing_lies_beside_it(tmp_path: Path, command: str | None) -> None:
    before = os.umask(0)
    try:
        writer(command).write(tree(MD), tmp_path / "disk.config", "op1")
    finally:
        os.umask(before)
    assert (tmp_path / "disk.config").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["disk.config"]


@pytest.mark.parametrize(
    ("command", "reason"),
    [("false", "exit status 1"), ("/nonexistent/mkisofs", "mkisofs"), ("sh -c 'echo broken >&2; exit 3'", "broken")],
)
def test_a_command_that_fails_leaves_the_old_drive_and_tells_no_secret(
    tmp_path: Path, command: str, reason: str
) -> None:
    (tmp_path / "disk.config").write_bytes(b"old drive")
    with pytest.raises(ConfigDriveError, match=reason) as caught:
        ConfigDriveWriter(command).write(tree(MD), tmp_path / "disk.config", "op1")
    assert "s3cret-word" not in str(caught.value)
    assert (tmp_path / "disk.config").read_bytes() == b"old drive"
    assert os.listdir(tmp_path) == ["disk.config"]


def test_an_unknown_format_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"\[config_drive\] format: 'ntfs' is neither iso9660 nor vfat"):
        ConfigDriveWriter().write(tree(MD), tmp_path / "disk.config", "op1", drive_format="ntfs")
    assert os.listdir(tmp_path) == []


def write_vfat(drive: Path, content: dict[str, bytes]) -> None:
    need("mkfs.vfat", "mcopy")
    ConfigDriveWriter().write(content, drive, "op1", drive_format="vfat")


@pytest.mark.must_run
def test_mtools_read_every_file_of_a_vfat_drive_under_its_own_name(tmp_path: Path) -> None:
    drive, out = tmp_path / "disk.config", tmp_path / "out"
    content = DriveContents().tree(MD)
    write_vfat(drive, content)
    out.mkdir()
    output("mcopy", "-s", "-i", drive, "::/openstack", "::/ec2", out)
    found = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert found == content


@pytest.mark.must_run
def test_a_vfat_drive_is_a_whole_disk_of_64_mib_with_the_label_that_agents_look_for(tmp_path: Path) -> None:
    need("blkid")
    drive = tmp_path / "disk.config"
    before = os.umask(0)
    try:
        write_vfat(drive, tree(MD))
    finally:
        os.umask(before)
    status = drive.stat()
    assert status.st_size == 64 << 20
    assert status.st_blocks * 512 < 2 << 20
    assert status.st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["disk.config"]
    assert output("blkid", "-p", "-o", "value", "-s", "LABEL", drive).decode().strip() == "config-2"
    assert output("blkid", "-p", "-o", "value", "-s", "TYPE", drive).decode().strip() == "vfat"


def test_a_vfat_drive_that_overflows_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "disk.config").write_bytes(b"old drive")
    with pytest.raises(ConfigDriveError, match="mcopy failed"):
        write_vfat(tmp_path / "disk.config", {"openstack/content/0000": bytes(65 << 20)})
    assert (tmp_path / "disk.config").read_bytes() == b"old drive"
    assert os.listdir(tmp_path) == ["disk.config"]


def test_a_command_that_hangs_is_stopped_by_the_deadline(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(TaskTimeout):
        ConfigDriveWriter("sh -c 'sleep 60'").write(
            tree(MD), tmp_path / "disk.config", "op1", Activity("BuildConfigDrive", time.monotonic() + 0.3)
        )
    assert time.monotonic() - started < 10
    assert os.listdir(tmp_path) == []


KILLED = """
import os, pathlib, signal, sys
from virtflow.metadata import config_drive
drive, command, call = sys.argv[1:]
def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(config_drive.os if call in ("fsync", "replace") else config_drive, call, die)
config_drive.ConfigDriveWriter(command or None).write({"openstack/x": b"secret"}, pathlib.Path(drive), "op1")
"""


@pytest.mark.parametrize(
    ("command", "call", "left"),
    [
        ("", "fsync", {"disk.config.tmp.op1"}),
        ("", "replace", {"disk.config.tmp.op1"}),
        ("genisoimage", "run", {"disk.config.tmp.op1", "disk.config.tmp.op1.tree"}),
    ],
)
def test_a_kill_leaves_only_what_is_staged_closed_to_others_and_the_next_write_clears_it(
    tmp_path: Path, command: str, call: str, left: set[str]
) -> None:
    drive = tmp_path / "disk.config"
    killed = subprocess.run([sys.executable, "-c", KILLED, drive, command, call], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert set(os.listdir(tmp_path)) == left
    assert all((tmp_path / name).stat().st_mode & 0o077 == 0 for name in left)
    ConfigDriveWriter().write(tree(MD), drive, "op1")
    assert os.listdir(tmp_path) == ["disk.config"]
