"""Volumes on one host of the lab, served by tgtd with CHAP or by NBD, and guests on another; each has a worker."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tests.lab.counting_guest import SECTOR, SECTORS, boots
from tests.lab.hosts import Lab, LabHost
from tests.lab.processes import alive, stop, wait_until
from tests.lab.tgt import Tgt
from tests.lab.workers import NETWORK, LabWorkers, furnish
from tests.lab.writing import differing, written
from virtflow.config import load
from virtflow.engine.runner import Runner
from virtflow.images.catalog import LocalCatalog
from virtflow.persistence.instances import Instance
from virtflow.persistence.models import metadata
from virtflow.persistence.operations import Operation
from virtflow.persistence.volumes import Volume
from virtflow.requests import Request, SpawnRequest
from virtflow.tasks.volume_encryption import key_of
from virtflow.testing.guest import GuestImage
from virtflow.worker.connecting import connect

SECONDS = 120.0
WRITER = "writer"
"""The image of a guest that writes to the last of its disks all the time, once it has a second one."""
EMPTY = "empty"
"""The image of a guest that never gets farther than its firmware."""
COUNTING = "counting"
"""The image of a guest that counts its boots on the disk that it boots from."""
_KEY = ("--object", "secret,id=key,file=/dev/stdin")


@dataclass
class Place:
    """``storage`` has the volumes, ``compute`` the guests, where nothing else is said."""

    workers: LabWorkers
    tgt: Tgt
    client: Runner
    pids: dict[str, int] = field(default_factory=dict)

    @property
    def storage(self) -> LabHost:
        return self.workers.lab.hosts[0]

    @property
    def compute(self) -> LabHost:
        return self.workers.lab.hosts[1]

    @property
    def hosts(self) -> dict[str, LabHost]:
        return {host.name: host for host in self.workers.lab.hosts}

    def start(self, host: LabHost, fault: str = "") -> None:
        """Start its worker, unless it runs."""
        if not alive(self.pids.get(host.name, 0)):
            self.pids[host.name] = self.workers.start(host, fault=fault)

    def restart(self, host: LabHost, fault: str = "") -> None:
        """Its worker ends what it is at, and another one comes."""
        stop(self.pids[host.name], patience=20)
        self.start(host, fault)

    def kill(self, host: LabHost) -> None:
        """Its worker is gone at once."""
        if alive(self.pids[host.name]):
            os.kill(self.pids[host.name], signal.SIGKILL)
        self.wait_dead(host)

    def wait_dead(self, host: LabHost) -> None:
        """Until its worker is, of its fault."""
        assert wait_until(lambda: not alive(self.pids[host.name]), SECONDS), f"the worker of {host.name} lives"

    # -- operations

    def ends(self, request: Request) -> Operation:
        """Submit it, and wait until it is over."""
        return self.ended(self.client.submit(request))

    def ended(self, asked: Operation) -> Operation:
        over = wait_until(lambda: self.client.operations.get(asked.id, tasks=False).state == "FINISHED", SECONDS, 0.1)
        found = self.client.operations.get(asked.id)
        assert over, self.told(asked)
        return found

    def run(self, request: Request) -> Operation:
        ended = self.ends(request)
        assert ended.outcome == "SUCCESS", ended.error
        return ended

    def undo(self, operation: Operation) -> None:
        """Take it back, and wait until that is done, and nothing is owed."""
        self.client.request_undo(operation.id)
        found = self.ended(operation)
        assert (found.outcome, found.debts) == ("UNDONE", 0), found.error

    def told(self, asked: Operation) -> str:
        """Its tasks that have not gone well, for a test that fails."""
        found = self.client.operations.get(asked.id)
        return f"{found.kind} is {found.state}: {[(t.name, t.state) for t in found.tasks if t.state != 'SUCCESS']}"

    def task(self, asked: Operation, name: str) -> str | None:
        """The state of a task of it; None when it has none of that name by now."""
        return next((each.state for each in self.client.operations.get(asked.id).tasks if each.name == name), None)

    # -- what is there

    def rows(self, table: str, **where: Any) -> list[dict[str, Any]]:
        query = sa.select(metadata.tables[table]).filter_by(**where)
        with self.client.database.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(query)]

    def uuid(self, instance: str) -> str:
        return str(self.instance(instance).uuid)

    def instance(self, name: str) -> Instance:
        found: Instance = self.client.services["instances"].find(name, "default")
        return found

    def volume(self, name: str) -> Volume:
        found: Volume = self.client.services["volumes"].find(name, "default")
        return found

    def state(self, volume: str) -> str:
        """The volume's, by the database."""
        return self.volume(volume).state

    def file(self, volume: str) -> Path:
        """What the backend keeps it in."""
        found = self.volume(volume)
        backend = str(found.backend).partition("@")[2]
        return self.workers.config(self.storage).volumes.path / backend / f"volume-{found.id}"

    def target(self, volume: str) -> str:
        """The name under which tgtd serves it."""
        found = self.volume(volume)
        return f"{self.workers.config(self.storage).volumes.iqn_prefix}volume-{found.id}"

    def virsh(self, *words: str, host: LabHost | None = None) -> str:
        """What libvirt says there."""
        command = ["virsh", "-q", "-c", (host or self.compute).local_uri, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def passwords(self, host: LabHost | None = None) -> list[str]:
        """The usages of those that libvirt keeps."""
        return [line.split()[-1] for line in self.virsh("secret-list", host=host).splitlines()]

    def runs_on(self, instance: str) -> list[str]:
        """The hosts on which it runs at this moment."""
        found = {name: self.virsh("list", "--uuid", host=host).split() for name, host in self.hosts.items()}
        return [name for name, running in found.items() if self.uuid(instance) in running]

    def sizes(self, instance: str, host: LabHost | None = None) -> dict[str, int]:
        """What QEMU says of each disk of a running guest, in bytes."""
        uuid = self.uuid(instance)
        devices = [line.split()[0] for line in self.virsh("domblklist", uuid, host=host).splitlines()]
        disks = [device for device in devices if device.startswith("vd")]
        return {disk: int(self.virsh("domblkinfo", uuid, disk, host=host).split()[1]) for disk in disks}

    def console(self, instance: str) -> str:
        """What the guest has said."""
        path = self.workers.config(self.compute).instances.path / self.uuid(instance) / "console.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def written(self, instance: str) -> list[int]:
        """The sectors that the guest has written, and read again."""
        return written(self.console(instance))

    def goes_on(self, instance: str, sectors: int = 5) -> None:
        """Wait until the guest has written that many more."""
        before = len(self.written(instance))
        more = wait_until(lambda: len(self.written(instance)) >= before + sectors, SECONDS, 0.1)
        assert more, f"the guest has stopped to write: {self.console(instance)[-1500:]}"

    def differing(self, instance: str, volume: str) -> list[int]:
        """The sectors that are not on the volume as the guest has written them."""
        return differing(self.file(volume), self.written(instance))

    # -- what is on a volume, whoever has it

    def boots(self, volume: str) -> int:
        """How often a guest (``COUNTING``) has counted that it has booted from it."""
        return boots(self.read(volume, SECTOR))

    def read(self, volume: str, offset: int) -> bytes:
        """One sector."""
        shown = self._qemu_io(volume, f"read -v {offset} {SECTOR}", "-r")
        return bytes.fromhex("".join(re.findall(r"^[0-9a-f]{8}:((?: {1,2}[0-9a-f]{2}){16})", shown, re.MULTILINE)))

    def write(self, volume: str, offset: int, byte: int) -> None:
        """One sector of this byte."""
        assert f"wrote {SECTOR}" in self._qemu_io(volume, f"write -P {byte} {offset} {SECTOR}")

    def _qemu_io(self, name: str, command: str, *options: str) -> str:
        volume, key = self.volume(name), b""
        image = f"file.driver=file,file.filename={self.file(name)},file.locking=off"
        if volume.encryption:
            key = key_of(self.client.services["secrets"], volume.id)
            image, options = f"driver=luks,key-secret=key,{image}", (*options, *_KEY)
        else:
            image = f"driver=raw,{image}"
        argv = ["qemu-io", *options, "--image-opts", "-c", command, image]
        return subprocess.run(argv, input=key, check=True, capture_output=True).stdout.decode()

    # -- invariants

    def problems(self) -> list[str]:
        return self.workers.problems()

    def settled(self) -> list[str]:
        """Wait until everything holds; what does not by then."""
        return self.workers.settle(SECONDS)

    def attached(self) -> tuple[int, int, int, int]:
        """How many passwords libvirt has, how many attachments and secrets the database, and how many targets tgtd."""
        kept = (self.passwords(), self.rows("volume_attachments"), self.rows("secrets"), self.tgt.targets())
        return (len(kept[0]), len(kept[1]), len(kept[2]), len(kept[3]))

    def furnish_guests(self, guest: GuestImage) -> None:
        """Images of guests of the lab's own: ``WRITER``, ``EMPTY``."""
        catalog = LocalCatalog(self.client.config.images.catalog)
        parts = (("kernel", "aki", guest.kernel), ("ramdisk", "ari", guest.initrd))
        boot = {f"{name}_id": catalog.add(path, name, disk_format).id for name, disk_format, path in parts}
        boot["os_command_line"] = "console=ttyS0 quiet no_timer_check labwrite"
        catalog.add(self.workers.lab.root / "halt.raw", WRITER, "raw", properties=boot)
        empty = self.workers.lab.root / "empty.raw"
        empty.write_bytes(bytes(1 << 20))
        catalog.add(empty, EMPTY, "raw")


def halting(name: str, **fields: object) -> SpawnRequest:
    size = {"vcpus": 1, "memory_mib": 32, "networks": [{"network": NETWORK}]}
    return SpawnRequest(**{"name": name, **size, **fields})  # type: ignore[arg-type]


@contextmanager
def place_up(
    root: Path, settings: Mapping[str, str] | None = None, hosts: int = 2, *, nbd: bool = False
) -> Iterator[Place]:
    """``settings``: see ``furnish``. The image ``COUNTING`` is there. With ``nbd`` no tgtd runs."""
    with Lab.up(root, hosts=hosts) as lab:
        storage, *others = lab.hosts
        server = Tgt(lab.root, storage.address, within=storage.argv)
        special = {host.name: {"resize.address": host.address} for host in lab.hosts}
        by_nbd = {"volumes.export": "nbd", "volumes.export_address": storage.address}
        special[storage.name] |= by_nbd if nbd else server.settings
        for host in others:
            special[host.name] |= {"volumes.backends": ""}
        workers = furnish(lab, settings, special)
        if not nbd:
            server.start()
        try:
            with connect(load([workers.client], env={}))[0] as client:
                place = Place(workers, server, client)
                counting = lab.root / "counting.raw"
                counting.write_bytes(SECTORS)
                LocalCatalog(client.config.images.catalog).add(counting, COUNTING, "raw")
                for host in lab.hosts:
                    place.start(host)
                yield place
        finally:
            server.kill()
