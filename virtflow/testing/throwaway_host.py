"""A host to break things on: a state directory with an image, a network on its own bridge, and its own libvirt.

The image is one sector that halts the processor: a real guest for libvirt and QEMU that costs next to no time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from virtflow.config import load
from virtflow.testing import known_qemus

if TYPE_CHECKING:
    from virtflow.config import Config
    from virtflow.engine.runner import Runner

IMAGE = "halt"
NETWORK = "net0"
HALT = b"\xfa\xf4\xeb\xfd".ljust(510, b"\0") + b"\x55\xaa"
"""cli; hlt; jmp to the hlt; and the signature that makes it a boot sector."""
_migrated: list[bytes] = []
_ROOM = 1 << 30


@dataclass(frozen=True)
class ThrowawayHost:
    """Below ``root``, which is short because libvirt puts sockets below it."""

    root: Path

    @classmethod
    def make(cls) -> Self:
        """A new one."""
        host = cls(Path(tempfile.mkdtemp(prefix="vft-", dir=quick_directory())))
        known_qemus.tell(host.libvirt_cache)
        return host

    @property
    def libvirt_cache(self) -> Path:
        return self.root / "libvirt" / "cache"

    @property
    def bridge(self) -> str:
        return f"vf{self.root.name.removeprefix('vft-')}"

    def config(self, **settings: str) -> Config:
        """Reverts are tried again at once; guests are emulated. ``settings``: options as ``group.name``, and values."""
        usual = {"state_dir": str(self.root), "libvirt.virt_type": "qemu", "engine.revert_backoff": "0"}
        return load(overrides={**usual, **settings}, env={})

    def migrate(self) -> None:
        """Make the database, or copy the one that an earlier host of this process made: migrating takes a second."""
        database = self.root / "virtflow.db"
        if not _migrated:
            from virtflow.persistence import schema
            from virtflow.persistence.database import Database

            fresh = Database(self.config().database.url)
            schema.upgrade(fresh)
            fresh.close()
            _migrated.append(database.read_bytes())
        database.write_bytes(_migrated[0])
        database.chmod(0o600)

    def furnish(self, runner: Runner) -> None:
        """Add the image and the network."""
        from virtflow.images.catalog import LocalCatalog
        from virtflow.persistence.networks import Network

        sector = self.root / "halt.raw"
        sector.write_bytes(HALT.ljust(1 << 20, b"\0"))
        LocalCatalog(runner.config.images.catalog).add(sector, IMAGE, "raw")
        runner.services["networks"].create(
            Network(
                id=str(uuid.uuid4()),
                name=NETWORK,
                cidr="10.77.0.0/24",
                gateway="10.77.0.1",
                bridge=self.bridge,
                managed_bridge=True,
            )
        )

    def discard(self) -> None:
        """Take everything away, in whatever state it is: guests, links, files."""
        discard_below(self.root, self.bridge)


def discard_below(root: Path, bridge: str) -> None:
    """Take everything away that works below a directory, what is plugged into the bridge, and the directory."""
    from virtflow.network.taps import Taps

    for pid in _processes(root):
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while _processes(root) and time.monotonic() < deadline:
        time.sleep(0.02)
    taps = Taps()
    for tap in taps.list():
        if tap.bridge == bridge and tap.owner:
            taps.unplug(tap.name, tap.owner)
    alias = taps.bridges().get(bridge)
    if alias:
        taps.remove_bridge_if_empty(bridge, alias)
    shutil.rmtree(root, ignore_errors=True)


def _processes(root: Path) -> list[int]:
    """QEMU and its tools that work below the root."""
    needle = os.fsencode(root) + b"/"
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if needle in command and os.path.basename(command.partition(b"\0")[0]).startswith(b"qemu"):
            found.append(int(process.name))
    return found


def quick_directory() -> str:
    """In memory where there is room: what is killed here is a process, never the machine."""
    with contextlib.suppress(OSError):
        found = os.statvfs("/dev/shm")
        if found.f_bavail * found.f_frsize > _ROOM:
            return "/dev/shm"
    return "/tmp" if len(tempfile.gettempdir()) > 20 else tempfile.gettempdir()
