"""What a guest is given: a config drive against the program that writes it, and files injected into its disk."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.table import Target, show, show_targets
from virtflow.injection.injector import Injector
from virtflow.injection.plan import GuestItems
from virtflow.metadata.config_drive import ConfigDriveWriter
from virtflow.metadata.instance_metadata import InjectedFile, InstanceMetadata, tree

_METADATA = InstanceMetadata(
    uuid="f5e1c1de-7b8e-4c52-9a5e-0d2f4f1f9f10",
    name="guest",
    hostname="guest",
    project="default",
    random_seed=bytes(512),
    user_data=b"#cloud-config\n" + b"# a line\n" * 1000,
    files=(InjectedFile("/etc/motd", bytes(range(256)) * 40),),
    admin_password="not-a-secret",
)
_ITEMS = GuestItems(
    keys=("ssh-ed25519 AAAAC3 me@home",),
    network=b"auto lo\n",
    metadata={"role": "web"},
    admin_password="not-a-secret",
    files={"/etc/motd": b"hello\n"},
)
_MKISOFS = "genisoimage"
_SCRIPT = f"{_MKISOFS} -quiet -ldots -allow-lowercase -allow-multidot -l -J -r -V config-2 -o DRIVE TREE && sync DRIVE"


def config_drive(rounds: int) -> list[Target]:
    """From metadata to a drive that is on the disk, against genisoimage (and a sync) on a tree that is there."""
    with tempfile.TemporaryDirectory(prefix="vfb-", dir="/var/tmp") as name:
        directory = Path(name)
        for path, content in tree(_METADATA).items():
            (directory / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / "tree" / path).write_bytes(content)
        script = _SCRIPT.replace("DRIVE", str(directory / "bare")).replace("TREE", str(directory / "tree"))
        ways: dict[str, Callable[[], object]] = {
            f"{_MKISOFS} alone": lambda: subprocess.run(["sh", "-c", script], check=True, capture_output=True),
            "virtflow, in process": lambda: _write_drive(None, directory / "ours"),
            f"virtflow, mkisofs_cmd = {_MKISOFS}": lambda: _write_drive(_MKISOFS, directory / "theirs"),
        }
        turns = [{way: _milliseconds(write) for way, write in ways.items()} for _ in range(4 * rounds)]
    alone, *ours = ways
    rows = [(way, f"{statistics.median(turn[way] for turn in turns):.1f}") for way in ways]
    show("A config drive", ("", "ms"), rows)
    targets = [
        Target(
            f"ms of a config drive beyond {alone}: {way}",
            statistics.median(turn[way] - turn[alone] for turn in turns),
            20,
            most=True,
        )
        for way in ours
    ]
    show_targets(targets)
    return targets


def injection(rounds: int) -> list[Target]:
    """A key, a password, a network file, metadata and a file, into a partition of an overlay on an ext4 image."""
    rows, targets = [], []
    with tempfile.TemporaryDirectory(prefix="vfb-", dir="/var/tmp") as name:
        directory = Path(name)
        base = _image(directory)
        for method in ("fuse", "debugfs"):
            seconds = [_inject(base, directory / f"{method}{number}", method) for number in range(2 * rounds)]
            rows.append((method, f"{statistics.median(seconds) * 1000:.0f}", f"{max(seconds) * 1000:.0f}"))
            if method == "fuse":
                text = "seconds of an injection through the fast path"
                targets.append(Target(text, statistics.median(seconds), 0.5, most=True))
    show("Injection into a disk of 2 GiB", ("method", "ms", "slowest"), rows)
    show_targets(targets)
    return targets


def _milliseconds(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return (time.perf_counter() - start) * 1000


def _write_drive(command: str | None, target: Path) -> None:
    ConfigDriveWriter(command).write(tree(_METADATA), target, "benchmark")


def _image(directory: Path) -> Path:
    """A Debian's skeleton in the one partition of a raw image of 2 GiB."""
    image, skeleton = directory / "image.raw", directory / "skeleton"
    for name in ("etc/network", "root"):
        (skeleton / name).mkdir(parents=True)
    (skeleton / "etc/shadow").write_text("root:*:1:0:99999:7:::\n")
    with image.open("wb") as file:
        file.truncate(2 << 30)
    subprocess.run(["sfdisk", "-q", image], input=b"label: gpt\nstart=2048\n", check=True)
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-d", skeleton, "-E", f"offset={2048 * 512},root_owner=0:0", image]
    subprocess.run([*command, f"{(2 << 20) - 4096}k"], check=True)
    return image


def _inject(base: Path, disk: Path, method: str) -> float:
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, disk]
    subprocess.run(command, check=True)
    start = time.perf_counter()
    result = Injector(method).inject(disk, "qcow2", -1, _ITEMS, "benchmark")
    seconds = time.perf_counter() - start
    assert not result.failed, result.failed
    return seconds
