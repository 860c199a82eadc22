"""Hosts with a worker each on one machine, to break: directories, libvirts and processes of their own.

The workers share a database, a board and an image catalog, as they would on several machines. A third place, which has
no worker, submits to them::

    with Fleet.up(database=url) as fleet:
        fleet.start()
        operation = fleet.wait(fleet.client.submit(fleet.small("vm1")))
        assert fleet.problems() == []
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa

from virtflow.config import Config, load
from virtflow.errors import DatabaseError
from virtflow.persistence.hosts import HostRecord
from virtflow.persistence.operations import FINISHED, Operation
from virtflow.requests import SpawnRequest
from virtflow.testing import known_qemus, networks
from virtflow.testing.fleet_check import problems, running
from virtflow.testing.throwaway_host import HALT, discard_below, quick_directory
from virtflow.testing.worker_forks import WorkerForks

if TYPE_CHECKING:
    from virtflow.engine.runner import Runner
    from virtflow.worker.boards.board import Board

IMAGE = "halt"
NETWORK = "net0"
LEASE = 2.0
DOWN_AFTER = 8.0
"""Longer than a worker takes to be back on a machine that is busy with other tests."""
PATIENCE = 90.0
"""Seconds that anything may take."""
_LOOK = 0.02


@dataclass
class FleetHost:
    """A host, and its worker if it runs."""

    config: Config
    file: Path
    forks: WorkerForks
    network: Path | None = None
    pid: int | None = None
    fault: str = ""
    """What its worker was started with."""

    @property
    def name(self) -> str:
        return self.config.host

    @property
    def log(self) -> Path:
        return self.config.state_dir / "worker.log"

    def start(self, fault: str = "", *arguments: str) -> None:
        """Start its worker, with faults; see virtflow/faults.py."""
        self.fault = fault
        environment = {"VIRTFLOW_FAULT": fault} if fault else {}
        words = ["--config-file", str(self.file), "--log-file", str(self.log), "worker", *arguments]
        self.pid = self.forks.start(words, environment, self.log.with_suffix(".out"), self.network)

    def signal(self, number: int) -> None:
        assert self.pid is not None
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Its worker is gone at once, wherever it was; its guests go on."""
        if self.alive:
            self.signal(signal.SIGKILL)
            await_(lambda: not self.alive, f"the end of {self.name}'s worker")

    def stop(self) -> None:
        """Its worker drains and ends."""
        if self.alive:
            self.signal(signal.SIGTERM)
            await_(lambda: not self.alive, f"the end of {self.name}'s worker", log=self.log)

    @property
    def alive(self) -> bool:
        return self.pid is not None and os.path.exists(f"/proc/{self.pid}")

    def guests(self) -> dict[str, int]:
        """The pids of its QEMU processes, by the names of their domains."""
        found = {}
        for file in (self.config.libvirt.embed_root or Path("/nonexistent")).glob("run/qemu/*.pid"):
            with contextlib.suppress(OSError, ValueError):
                if file.stem != "driver" and os.path.exists(f"/proc/{(pid := int(file.read_text()))}"):
                    found[file.stem] = pid
        return found


@dataclass
class Fleet:
    """``hosts`` by name: h1, h2 ... ``client`` is the third place."""

    root: Path
    hosts: dict[str, FleetHost]
    client: Runner
    board: Board
    forks: WorkerForks
    settings: Mapping[str, str]
    spawned: int = field(default=0)

    @classmethod
    @contextmanager
    def up(
        cls,
        *,
        database: str | None = None,
        hosts: int = 2,
        apart: bool = False,
        special: Mapping[str, Mapping[str, str]] | None = None,
        **settings: str,
    ) -> Iterator[Self]:
        """A fleet without workers yet, all gone at the end of the block. ``settings``: ``group.option``, for all.

        ``database`` (empty; PostgreSQL as a rule) is an SQLite file where none is given. ``apart``: each host in a
        network namespace of its own, from which it reaches nothing but UNIX sockets and files.
        ``special``: settings of single hosts.
        """
        from virtflow.persistence import schema
        from virtflow.persistence.database import Database
        from virtflow.worker.connecting import connect

        root = Path(tempfile.mkdtemp(prefix="vff-", dir=quick_directory()))
        forks = WorkerForks()
        try:
            common = _common(root, database or f"sqlite:///{root}/virtflow.db") | settings
            made = Database(common["database.url"])
            schema.upgrade(made)
            made.close()
            names = [f"h{number + 1}" for number in range(hosts)]
            members = {name: _host(root, name, {**common, **(special or {}).get(name, {})}, forks) for name in names}
            if apart:
                for member in members.values():
                    member.network = networks.create(f"{root.name}-{member.name}")
            client, board = connect(
                load(overrides=common | {"state_dir": str(root / "third"), "host": "third"}, env={})
            )
            fleet = cls(root, members, client, board, forks, common)
            with client:
                fleet._furnish()
                try:
                    yield fleet
                finally:
                    fleet._end()
        finally:
            forks.close()
            for name in [f"h{number + 1}" for number in range(hosts)] if apart else []:
                networks.remove(Path(f"/run/netns/{root.name}-{name}"))
            shutil.rmtree(root, ignore_errors=True)

    def start(self, faults: Mapping[str, str] | None = None) -> None:
        """Start every worker that does not run, each with its faults, and wait until they take work."""
        for host in self.hosts.values():
            if not host.alive:
                host.start((faults or {}).get(host.name, ""))
        for host in self.hosts.values():
            self.await_registered(host)

    def await_registered(self, host: FleetHost) -> None:
        """Until the host's worker has taken it on."""

        def registered() -> bool:
            if not host.alive:
                raise AssertionError(f"the worker of {host.name} has ended: {host.log.read_text()[-3000:]}")
            record = self.record(host.name)
            return record is not None and f", {host.pid}, " in (record.worker or "")

        await_(registered, f"the registration of {host.name}", log=host.log)

    @property
    def gate(self) -> Path:
        """While this file is there, whoever was started with the fault ``hold=GATE`` waits at that task."""
        return self.root / "gate"

    def record(self, host: str) -> HostRecord | None:
        found = self.client.core.hosts.list([host])
        return found[0] if found else None

    def small(self, name: str | None = None, **fields: Any) -> SpawnRequest:
        """A request for a guest that halts at once, under a new name unless one is given."""
        self.spawned += 1
        size = {"image": IMAGE, "vcpus": 1, "memory_mib": 32, "disk_gib": 1, "networks": [{"network": NETWORK}]}
        return SpawnRequest(**{"name": name or f"vm{self.spawned}", **size, **fields})

    def wait(self, operation: Operation, seconds: float = PATIENCE) -> Operation:
        """Until it is over, whatever its outcome."""
        await_(lambda: self.over(operation), lambda: self._where(operation.id), seconds)
        return self.client.operations.get(operation.id)

    def over(self, operation: Operation) -> bool:
        """Whether it is; a database that is away does not know."""
        try:
            found = self.client.operations.get(operation.id, tasks=False)
        except DatabaseError:
            return False
        return found.state == FINISHED and not found.running

    def wait_for_decision(self, operation: Operation) -> None:
        """Until a host is chosen."""
        from virtflow.persistence.decisions import DecisionRepository

        decisions = DecisionRepository(self.client.database)
        await_(lambda: bool(decisions.of_operation(operation.id)), lambda: self._where(operation.id))

    def wait_for_task(self, operation: Operation, task: str, state: str = "RUNNING", host: str | None = None) -> None:
        """Until the journal tells of it."""
        from virtflow.persistence.models.engine import flows, journal

        query = (
            sa.select(journal.c.sequence)
            .join(flows, flows.c.uuid == journal.c.flow)
            .where(flows.c.logbook == operation.id, journal.c.atom == task, journal.c.event == state)
        )
        if host is not None:
            query = query.where(journal.c.host == host)

        def told() -> bool:
            with self.client.database.connect() as connection:
                return connection.execute(query.limit(1)).first() is not None

        await_(told, lambda: f"{task} {state}: {self._where(operation.id)}")

    def works_on(self, host: FleetHost, operation: Operation) -> bool:
        """Whether the host's worker runs its segment, inline or handed over."""
        from virtflow.persistence.models.engine import flows, journal

        its = sa.select(flows.c.uuid).where(flows.c.logbook == operation.id, flows.c.uuid != operation.id)
        query = sa.select(journal.c.sequence).where(journal.c.flow.in_(its), journal.c.host == host.name).limit(1)
        with self.client.database.connect() as connection:
            return connection.execute(query).first() is not None

    def settle(self, seconds: float = PATIENCE) -> list[str]:
        """Wait until everything holds; what does not by then."""
        deadline = time.monotonic() + seconds
        while (left := self.problems()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return left

    def problems(self) -> list[str]:
        """What of the invariants does not hold; see fleet_check."""
        apart = {host.name: host.network for host in self.hosts.values() if host.network is not None}
        return problems([host.config for host in self.hosts.values()], apart)

    def running(self) -> Mapping[str, int]:
        """How many times each domain runs."""
        return running([host.config for host in self.hosts.values()])

    # -- inside

    def _where(self, operation: str) -> str:
        found = self.client.operations.get(operation)
        tasks = ", ".join(
            f"{task.name} {task.state}" for task in found.tasks if task.state not in ("SUCCESS", "PENDING")
        )
        asked = [segment.to_dict() for segment in self.client.core.segments.of_operation(operation)]
        logs = "\n".join(f"{host.name}: {_tail(host.log)}" for host in self.hosts.values())
        return f"{found.kind} {found.target} is {found.state} {found.outcome}; {tasks}; {asked}\n{logs}"

    def _furnish(self) -> None:
        from virtflow.images.catalog import LocalCatalog
        from virtflow.persistence.networks import Network

        sector = self.root / "halt.raw"
        sector.write_bytes(HALT.ljust(1 << 20, b"\0"))
        LocalCatalog(self.client.config.images.catalog).add(sector, IMAGE, "raw")
        bridge = f"vf{uuid.uuid4().hex[:8]}"
        net: dict[str, Any] = {"id": str(uuid.uuid4()), "name": NETWORK, "cidr": "10.78.0.0/20", "gateway": "10.78.0.1"}
        self.client.services["networks"].create(Network(**net, bridge=bridge, managed_bridge=True))
        self._bridge = bridge

    def _end(self) -> None:
        for host in self.hosts.values():
            host.kill()
        discard_below(self.root, self._bridge)


def await_(
    condition: Callable[[], bool], what: str | Callable[[], str], seconds: float = PATIENCE, log: Path | None = None
) -> None:
    """Until it holds. AssertionError when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            told = what if isinstance(what, str) else what()
            raise AssertionError(f"{told} does not come in {seconds:g} s {_tail(log) if log else ''}")
        time.sleep(_LOOK)


def _tail(log: Path) -> str:
    return log.read_text()[-3000:] if log.exists() else ""


def _common(root: Path, database: str) -> dict[str, str]:
    return {
        "database.url": database,
        "database.busy_timeout": "3",
        "engine.mode": "workers",
        "engine.revert_backoff": "0.05",
        "images.catalog": str(root / "images"),
        "secrets.key_file": str(root / "secret.key"),
        "libvirt.virt_type": "qemu",
        "jobboard.lease": str(LEASE),
        "worker.host_down_after": str(DOWN_AFTER),
        "worker.reconcile_interval": "0.2",
        "worker.debt_retry": "1",
        "quota.instances": "-1",
    }


def _host(root: Path, name: str, common: Mapping[str, str], forks: WorkerForks) -> FleetHost:
    state = root / name
    state.mkdir(mode=0o700)
    known_qemus.tell(state / "libvirt" / "cache")
    settings = dict(common) | {"state_dir": str(state), "host": name}
    groups: dict[str, list[str]] = {}
    for key, value in settings.items():
        group, _, option = key.rpartition(".")
        groups.setdefault(group or "DEFAULT", []).append(f"{option} = {value.replace('$', '$$')}")
    file = state / "virtflow.conf"
    file.write_text("\n".join(f"[{group}]\n" + "\n".join(lines) for group, lines in groups.items()) + "\n")
    return FleetHost(load([file], env={}), file, forks)


def main(arguments: list[str] | None = None) -> int:
    """The command: kill a worker at durable writes of spawns and deletes, restarted or not, and check after each."""
    import argparse

    from virtflow.testing.fleet_sweep import sweep

    parser = argparse.ArgumentParser(prog="python -m virtflow.testing.fleet", description=main.__doc__)
    parser.add_argument("--database", help="URL of an empty database; an SQLite file of its own by default")
    parser.add_argument("--every", type=int, default=8, metavar="N", help="every Nth write (default 8)")
    parser.add_argument("--last", type=int, default=43, metavar="N", help="up to the Nth write (default 43)")
    given = parser.parse_args(arguments)
    with Fleet.up(database=given.database, apart=given.database is None) as fleet:
        broken = sweep(fleet, range(3, given.last + 1, given.every))
    print("\n".join(broken) or "Nothing was lost.")
    return 5 if broken else 0


if __name__ == "__main__":
    import sys

    sys.exit(main())
