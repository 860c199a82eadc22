"""Guests that move between hosts of the lab, with workers on all of them, and eyes on all of them all the while."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.hosts import Binds, Lab, LabHost, nothing
from tests.lab.processes import alive, stop, wait_until
from tests.lab.tgt import Tgt
from tests.lab.workers import IMAGE, NETWORK, LabWorkers, furnish
from tests.lab.writing import writing_disk
from virtflow import SpawnRequest
from virtflow.config import load
from virtflow.engine.runner import Runner
from virtflow.errors import NotFound
from virtflow.images.catalog import LocalCatalog
from virtflow.persistence.instances import Instance
from virtflow.persistence.operations import FINISHED, Operation
from virtflow.requests import DeleteRequest, LiveMigrateRequest, Request
from virtflow.testing.guest import GuestImage
from virtflow.worker.connecting import connect

STRESS, TICKING, WRITING, BOOTING = "stress", "ticking", "writing", "booting"
"""Images of guests that count the seconds. The first writes to 40 MiB of its memory all the while; the last two to the
last of their disks, once they have a second one. The last one boots from its disk."""
STRESS_MIB = 192
"""What that one needs: with half of it, it runs out of memory by itself, and panics."""
OFFSET = 600 << 20
"""Where the pattern is: far behind what any image has."""
PATIENCE = 120.0
_RUNNING = 1
_LOOK = 0.02
_HALF_WAY = 0.2
_BROKEN = re.compile(r"Kernel panic|Oops|BUG:|general protection|corruption")
_BUSY_GUESTS = 3


class GuestBroke(AssertionError):
    """The guest's kernel has found its memory to be wrong.

    QEMU without KVM marks a page as written to first and writes to it then; what is sent between the two lacks the
    write for ever. The busier guest and machine are, the likelier. Nothing that moves guests can do anything about it.
    """


@dataclass
class Movers:
    """Hosts with workers, and another place that submits. The first host may have volumes, which ``tgt`` serves."""

    workers: LabWorkers
    client: Runner
    tgt: Tgt | None = None
    pids: dict[str, int] = field(default_factory=dict)
    marks: dict[str, int] = field(default_factory=dict)

    @property
    def hosts(self) -> dict[str, LabHost]:
        return {host.name: host for host in self.workers.lab.hosts}

    def start(self, name: str, fault: str = "") -> None:
        """Start the worker of a host, unless it runs."""
        if not alive(self.pids.get(name, 0)):
            self.pids[name] = self.workers.start(self.hosts[name], fault=fault)

    def stop(self, name: str) -> None:
        stop(self.pids[name], patience=20)

    def instance(self, name: str) -> Instance:
        found: Instance = self.client.services["instances"].find(name, self.client.config.project)
        return found

    def has(self, name: str) -> bool:
        """Whether there is an instance of that name."""
        try:
            return bool(self.instance(name))
        except NotFound:
            return False

    def directory(self, host: str, name: str) -> Path:
        return self.workers.config(self.hosts[host]).instances.path / self.instance(name).uuid

    def spawn(self, name: str, host: str, image: str = IMAGE, **fields: Any) -> None:
        size = {"vcpus": 1, "memory_mib": 32, "disk_gib": 1, "networks": [{"network": NETWORK}]}
        request = SpawnRequest(**{"name": name, "image": image, "host": host, **size, **fields})  # type: ignore[arg-type]
        self.ended(self.client.submit(request))

    def run(self, request: Request) -> Operation:
        return self.ended(self.client.submit(request))

    def migrate(self, name: str, **fields: Any) -> Operation:
        return self.client.submit(LiveMigrateRequest(name=name, **fields))

    def ended(self, operation: Operation, outcome: str = "SUCCESS", seconds: float = PATIENCE) -> Operation:
        """Wait for its end, which has to be this one."""
        assert wait_until(lambda: self.is_over(operation), seconds, 0.1), self.told(operation)
        found = self.client.operations.get(operation.id)
        assert found.outcome == outcome, self.told(operation)
        return found

    def is_over(self, operation: Operation) -> bool:
        found = self.client.operations.get(operation.id, tasks=False)
        return found.state == FINISHED and not found.running

    def progress(self, operation: Operation) -> float:
        """How much of the guest need not be sent any more, from 0 to 1."""
        tasks = self.client.operations.get(operation.id).tasks
        return max((task.progress or 0.0 for task in tasks if task.name == "Migrate"), default=0.0)

    def told(self, operation: Operation) -> str:
        """All that can be known of it, for a test that fails."""
        found = self.client.operations.get(operation.id)
        tasks = ", ".join(f"{task.name} {task.state}" for task in found.tasks if task.state not in ("SUCCESS", None))
        logs = "\n".join(f"{name}: {self.log(host)[-3000:]}" for name, host in self.hosts.items())
        return f"{found.kind} is {found.state} {found.outcome} ({found.error}); {tasks}\n{logs}"

    def log(self, host: LabHost) -> str:
        return (self.workers.lab.root / f"{host.name}.worker.log").read_text()

    def problems(self) -> list[str]:
        """What of the invariants does not hold, and guests that are somewhere they should not be."""
        return self.workers.problems()

    def settled(self, seconds: float = 60) -> list[str]:
        """Wait until everything holds; what does not by then."""
        return self.workers.settle(seconds)

    def virsh(self, host: str, *words: str) -> str:
        command = ["virsh", "-q", "-c", self.hosts[host].local_uri, *words]
        done = subprocess.run(command, capture_output=True, check=False, text=True)
        return done.stdout.strip()

    def qemu_pid(self, host: str, name: str) -> int | None:
        """Of the domain's QEMU on that host, be it one that waits for its guest."""
        file = self.hosts[host].root / "run/libvirt/qemu" / f"{name}.pid"
        with contextlib.suppress(OSError, ValueError):
            pid = int(file.read_text())
            return pid if alive(pid) else None
        return None

    def mark(self, host: str, name: str, mib: int = 1) -> None:
        """A pattern in the middle of the disk, of that size; the guest is stopped for the time."""
        self.virsh(host, "destroy", name)
        assert f"wrote {mib << 20}" in qemu_io(self.directory(host, name) / "disk", f"write -P 0x5a {OFFSET} {mib}M")
        self.virsh(host, "start", name)
        self.marks[name] = mib

    def is_marked(self, host: str, name: str) -> bool:
        size = self.marks[name] << 20
        out = qemu_io(self.directory(host, name) / "disk", f"read -P 0x5a {OFFSET} {size}", "-r")
        return f"read {size}/{size}" in out and "failed" not in out

    def ticks(self, host: str, name: str) -> list[int]:
        """The seconds that the guest has counted on the console that it has on this host."""
        with contextlib.suppress(OSError):
            text = (self.directory(host, name) / "console.log").read_text(errors="replace")
            return [int(tick) for tick in re.findall(r"^TICK (\d+)\r?$", text, re.MULTILINE)]
        return []

    def wait_ticks(self, host: str, name: str, tick: int) -> None:
        """Until the guest has counted so far on its console of this host."""
        console = self.directory(host, name) / "console.log"

        def counted() -> bool:
            if console.exists() and (broken := _BROKEN.search(console.read_text(errors="replace"))):
                raise GuestBroke(console.read_text(errors="replace")[broken.start() :])
            return max(self.ticks(host, name), default=0) >= tick

        assert wait_until(counted, PATIENCE, 0.2), console.read_text()

    def wait_half_way(self, operation: Operation) -> None:
        """Until the guest's disk is on its way, and is not there yet."""
        assert wait_until(lambda: self.progress(operation) > _HALF_WAY, PATIENCE, 0.1), self.told(operation)

    def kill(self, name: str) -> None:
        """The worker of a host is gone at once."""
        os.kill(self.pids[name], signal.SIGKILL)
        assert wait_until(lambda: not alive(self.pids[name]), PATIENCE)

    @contextmanager
    def slowed(self, host: str, rate: str) -> Iterator[None]:
        """What is sent to this host comes no faster than that, as tc(8) writes it."""
        switch, port = self.workers.lab.switch, f"h{self.hosts[host].number}"
        bucket = ["root", "tbf", "rate", rate, "burst", "64kb", "latency", "400ms"]
        subprocess.run(switch.argv(["tc", "qdisc", "add", "dev", port, *bucket]), check=True)
        try:
            yield
        finally:
            subprocess.run(switch.argv(["tc", "qdisc", "del", "dev", port, "root"]), check=True)

    def went(self, operation: Operation) -> dict[str, Any]:
        """How libvirt has done it: see ``Migration.carry``."""
        found: dict[str, Any] = self.client.operations.results(operation.id)["LeaveSource"]["migrated"]
        return found

    def outcome(self, operation: Operation) -> str | None:
        return self.client.operations.get(operation.id, tasks=False).outcome

    def furnish_guests(self, guest: GuestImage) -> None:
        """Images of guests that count the seconds; one of them changes its memory all the time."""
        catalog = LocalCatalog(self.client.config.images.catalog)
        parts = (("kernel", "aki", guest.kernel), ("ramdisk", "ari", guest.initrd))
        boot = {f"{name}_id": catalog.add(path, name, disk_format).id for name, disk_format, path in parts}
        words = "console=ttyS0 quiet no_timer_check"
        for name, more in ((STRESS, " labstress"), (TICKING, ""), (WRITING, " labwrite")):
            properties = boot | {"os_command_line": words + more}
            catalog.add(self.workers.lab.root / "halt.raw", name, "raw", properties=properties)
        catalog.add(writing_disk(guest, self.workers.lab.root / "booting.raw"), BOOTING, "raw")

    def runs_on(self, name: str) -> list[str]:
        """The hosts on which the guest runs at this moment."""
        return [host for host in self.hosts if self.virsh(host, "domstate", name) == "running"]


@contextmanager
def movers_up(
    root: Path, binds: Binds = nothing, *, hosts: int = 2, volumes: bool = False, nbd: bool = False, **settings: str
) -> Iterator[Movers]:
    """Hosts whose libvirts let guests come over plain TCP, with workers. ``volumes``: the first one has a backend,
    served by tgtd; ``nbd``: served by NBD."""
    with (
        Lab.up(root, hosts=hosts, binds=binds) as lab,
        _serving(lab.hosts[0], root) if volumes else nullcontext() as tgt,
    ):
        special = {}
        if tgt is not None or nbd:
            first = lab.hosts[0]
            by_nbd = {"volumes.export": "nbd", "volumes.export_address": first.address}
            special = {host.name: {"volumes.backends": ""} for host in lab.hosts}
            special[first.name] = by_nbd if tgt is None else tgt.settings
        workers = furnish(lab, settings, special)
        with connect(load([workers.client], env={}))[0] as client:
            movers = Movers(workers, client, tgt)
            for name in movers.hosts:
                movers.start(name)
            yield movers


@contextmanager
def _serving(host: LabHost, directory: Path) -> Iterator[Tgt]:
    tgt = Tgt(directory, host.address, within=host.argv)
    tgt.start()
    try:
        yield tgt
    finally:
        tgt.kill()


def with_busy_guest(name: str) -> Callable[[Callable[[Movers], None]], Callable[[Movers], None]]:
    """A test that has a guest which writes to its memory all the while, on the first host if it is not there yet. With
    another one it begins anew when that guest broke: three never do by chance."""

    def decorate(test: Callable[[Movers], None]) -> Callable[[Movers], None]:
        @functools.wraps(test)
        def attempt(movers: Movers) -> None:
            for left in reversed(range(_BUSY_GUESTS)):
                try:
                    if not movers.has(name):
                        first = next(iter(movers.hosts))
                        movers.spawn(name, first, STRESS, memory_mib=STRESS_MIB)
                        movers.wait_ticks(first, name, 3)
                    test(movers)
                    break
                except GuestBroke:
                    if not left:
                        raise
                    movers.settled()
                    movers.ended(movers.client.submit(DeleteRequest(name=name)))

        return attempt

    return decorate


class Watched:
    """Looks at both hosts as long as the block runs: how often was the guest seen running twice?"""

    def __init__(self, movers: Movers, *names: str) -> None:
        self._movers = movers
        self._uuids = [movers.instance(name).uuid for name in names]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch-guest", daemon=True)
        self.looks = 0
        self.twice = 0

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()
        assert self.looks
        assert self.twice == 0, "the guest ran on two hosts"

    def _look(self) -> None:
        hosts = [host.local_uri for host in self._movers.workers.lab.hosts]
        while not self._stop.wait(_LOOK):
            for uuid in self._uuids:
                self.looks += 1
                # Between two questions a guest may arrive: only who is there in both rounds runs twice.
                if all(_runs(host, uuid) for host in hosts) and all(_runs(host, uuid) for host in hosts):
                    self.twice += 1


class Wire:
    """Listens to what the hosts send each other as long as the block runs: was any of a marked disk seen?"""

    _PATTERN = b"\x5a" * 256
    _PACKET = 1 << 17

    def __init__(self, movers: Movers) -> None:
        self._socket = movers.workers.lab.switch.call(self._listen)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch-wire", daemon=True)
        self.packets = 0
        self.in_the_clear = 0

    def __enter__(self) -> Wire:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()
        assert self.packets

    @staticmethod
    def _listen() -> socket.socket:
        everything = 3
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(everything))
        opened.bind(("h1", 0))
        opened.settimeout(0.2)
        return opened

    def _look(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                packet = self._socket.recv(self._PACKET)
                self.packets += 1
                self.in_the_clear += self._PATTERN in packet


_connections: dict[str, Any] = {}


def _runs(uri: str, domain: str) -> bool:
    import libvirt

    from virtflow.hypervisor.connection import open_connection

    try:
        connection = _connections.get(uri)
        if connection is None or not connection.isAlive():
            connection = _connections[uri] = open_connection(uri)
        return bool(connection.lookupByUUIDString(domain).state()[0] == _RUNNING)
    except Exception as error:  # noqa: BLE001 - a libvirt that is away runs nothing that could be seen
        if not isinstance(error, libvirt.libvirtError):
            _connections.pop(uri, None)
        return False


def qemu_io(disk: Path, command: str, *options: str) -> str:
    image = f"driver=qcow2,file.driver=file,file.filename={disk},file.locking=off"
    done = subprocess.run(["qemu-io", "--image-opts", *options, "-c", command, image], check=False, capture_output=True)
    return (done.stdout + done.stderr).decode()
