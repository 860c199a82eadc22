"""What this machine has: the inventory against which instances are claimed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Inventory:
    """``memory_mib`` is all of the machine's memory, ``disk_gib`` the size of the instances' file system."""

    vcpus: int
    memory_mib: int
    disk_gib: int


def read_inventory(instances_path: Path) -> Inventory:
    """Read it from the kernel. The directory need not exist yet: its nearest parent counts."""
    existing = instances_path
    while not existing.exists():
        existing = existing.parent
    disk = os.statvfs(existing)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Inventory(os.cpu_count() or 1, pages >> 20, disk.f_blocks * disk.f_frsize >> 30)
