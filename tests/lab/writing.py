"""What a guest writes with ``labwrite`` (see ``virtflow.testing.guest_init``): a sector after the other, each with its
number, on the last of its disks."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from virtflow.testing.guest import GuestImage
from virtflow.testing.guest_disk import MIB

SECTOR = 512
_WORDS = "console=ttyS0 quiet no_timer_check labwrite"


def written(console: str) -> list[int]:
    """The sectors that it has written, and read again."""
    return [int(number) for number in re.findall(r"^WROTE (\d+)\r?$", console, re.MULTILINE)]


def differing(disk: Path, sectors: Iterable[int]) -> list[int]:
    """Those that are not on the raw disk as the guest has written them."""
    with disk.open("rb") as file:
        found = {number: os.pread(file.fileno(), SECTOR, number * SECTOR) for number in sectors}
    return [number for number, content in found.items() if content != f"SECTOR {number}".encode().ljust(SECTOR)]


def writing_disk(guest: GuestImage, target: Path) -> Path:
    """The guest's disk, of which one boots that writes; raw."""
    subprocess.run(["qemu-img", "convert", "-O", "raw", guest.disk_qcow2, target], check=True)
    boot = f"DEFAULT guest\nPROMPT 0\nLABEL guest\n KERNEL /vmlinuz\n INITRD /initrd.gz\n APPEND {_WORDS}\n"
    command = ["mcopy", "-o", "-i", f"{target}@@{MIB}", "-", "::/syslinux.cfg"]
    subprocess.run(command, input=boot.encode(), check=True)
    return target
