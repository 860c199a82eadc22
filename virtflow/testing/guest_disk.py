"""A disk image that boots the test guest from its BIOS: one FAT partition with SYSLINUX, the kernel and the initramfs.

Made without mounts and without root.
"""

from __future__ import annotations

import os
import random
import struct
import tempfile
from pathlib import Path

from virtflow.activity import IDLE, Activity
from virtflow.processes import run

MIB = 1024 * 1024
_SECTOR = 512
_FIRST_SECTOR = 2048
_OFFSET = _FIRST_SECTOR * _SECTOR
_MBR_CODE = 440
"""Bytes of a master boot record that are code; the disk's signature and the partitions follow."""

_SYSLINUX_CFG = b"""\
DEFAULT guest
PROMPT 0
SERIAL 0 115200
LABEL guest
 KERNEL /vmlinuz
 INITRD /initrd.gz
 APPEND console=ttyS0 quiet no_timer_check
"""
"""no_timer_check: an emulated timer on a busy host may be late, and the kernel's check of it ends in a panic."""


def build_disk(
    target: Path, *, kernel: Path, initrd: Path, boot_code: Path, size: int, padding: int, activity: Activity = IDLE
) -> None:
    """Write a compressed qcow2 to ``target``: ``size`` bytes that boot, then ``padding`` bytes that do not compress.

    The padding makes an image of a wanted weight; it is the same on every build.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="disk.") as directory:
        raw = Path(directory, "disk.raw")
        _partition(raw, boot_code.read_bytes()[:_MBR_CODE], size)
        volume = f"{raw}@@{_OFFSET}"
        blocks = (size - _OFFSET) // 1024
        run(
            ["mkfs.vfat", "-F", "16", "--offset", str(_FIRST_SECTOR), "-n", "BOOT", raw, str(blocks)], activity=activity
        )
        run(["mcopy", "-i", volume, kernel, "::/vmlinuz"], activity=activity)
        run(["mcopy", "-i", volume, initrd, "::/initrd.gz"], activity=activity)
        run(["mcopy", "-i", volume, "-", "::/syslinux.cfg"], stdin=_SYSLINUX_CFG, activity=activity)
        run(["syslinux", "-t", str(_OFFSET), "-i", raw], activity=activity)
        _pad(raw, padding, activity)
        run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", raw, target], activity=activity)


def _partition(raw: Path, code: bytes, size: int) -> None:
    """One bootable FAT16 (LBA) partition from 1 MiB to the end of the first ``size`` bytes."""
    entry = struct.pack(
        "<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x0E, b"\xfe\xff\xff", _FIRST_SECTOR, (size - _OFFSET) // _SECTOR
    )
    with raw.open("wb") as disk:
        disk.write(code.ljust(_MBR_CODE, b"\0") + b"vfgt\0\0" + entry + b"\0" * 48 + b"\x55\xaa")
        os.ftruncate(disk.fileno(), size)


def _pad(raw: Path, padding: int, activity: Activity) -> None:
    noise = random.Random(0)
    with raw.open("ab") as disk:
        while padding > 0:
            activity.check()
            padding -= disk.write(noise.randbytes(min(padding, MIB)))
