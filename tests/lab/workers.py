"""A worker on each host of the lab, and a third place that submits: ``client`` is its configuration file.

Hosts and third place share an SQLite database and an image catalog below the lab's root: they are on one machine.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.lab.hosts import GUEST_BRIDGE, Lab, LabHost
from tests.lab.processes import start, stop, wait_until
from virtflow.config import Config, load
from virtflow.testing.fleet_check import problems

NETWORK = "lab"
IMAGE = "halt"
_SECONDS = 120


@dataclass(frozen=True)
class LabWorkers:
    """``client`` is the configuration file of the third place."""

    lab: Lab
    client: Path

    def file(self, host: LabHost) -> Path:
        """The configuration file of a host's worker."""
        return self.lab.root / f"{host.name}.conf"

    def config(self, host: LabHost) -> Config:
        return load([self.file(host)], env={})

    def start(self, host: LabHost, *, survive: bool = False, fault: str = "") -> int:
        """Start the host's worker in its network, and wait until it has registered; its pid.

        ``fault``: see virtflow/faults.py.
        """
        log = self.lab.root / f"{host.name}.worker.log"
        before = log.stat().st_size if log.exists() else 0
        environment = ["env", f"VIRTFLOW_FAULT={fault}"] if fault else []
        program = [sys.executable, "-P", "-m", "virtflow", "--config-file", str(self.file(host)), "worker"]
        pid = start(host.argv([*environment, *program]), log, survive=survive)
        if not wait_until(lambda: f"worker of host {host.name}:" in log.read_text()[before:], _SECONDS, 0.1):
            stop(pid)
            raise RuntimeError(f"the worker of {host.name} does not start: {log.read_text()[-2000:]}")
        return pid

    def problems(self) -> list[str]:
        """What of the invariants does not hold; see fleet_check."""
        hosts = self.lab.hosts
        return problems([self.config(host) for host in hosts], {host.name: host.network.path for host in hosts})

    def settle(self, seconds: float = 60) -> list[str]:
        """Wait until everything holds; what does not by then."""
        deadline = time.monotonic() + seconds
        while (left := self.problems()) and time.monotonic() < deadline:
            time.sleep(0.3)
        return left


def furnish(
    lab: Lab, settings: Mapping[str, str] | None = None, special: Mapping[str, Mapping[str, str]] | None = None
) -> LabWorkers:
    """Configurations, database, image and network; no worker runs yet. Hosts reach each other's libvirt over plain TCP.

    ``settings``: ``group.option``, for all. ``special``: those of single hosts, by name.
    """
    common = {
        "database.url": f"sqlite:///{lab.root}/virtflow.db",
        "engine.mode": "workers",
        "images.catalog": str(lab.root / "images"),
        "secrets.key_file": str(lab.root / "secret.key"),
        "libvirt.virt_type": "qemu",
        "jobboard.lease": "3",
        "worker.host_down_after": "6",
        "worker.debt_retry": "2",
        "live_migration.transport": "tcp",
        "live_migration.native_tls": "false",
        **(settings or {}),
    }
    for host in lab.hosts:
        own = {"state_dir": str(host.root / "virtflow"), "host": host.name, "libvirt.uri": host.local_uri}
        own |= {"live_migration.address": host.address, "resize.address": host.address}
        _write(lab.root / f"{host.name}.conf", common | own | dict((special or {}).get(host.name, {})))
    client = lab.root / "client.conf"
    _write(client, common | {"state_dir": str(lab.root / "third"), "host": "third"})
    _fill(load([client], env={}), lab.root)
    return LabWorkers(lab, client)


def _fill(config: Config, root: Path) -> None:
    from virtflow.images.catalog import LocalCatalog
    from virtflow.persistence import schema
    from virtflow.persistence.database import Database
    from virtflow.persistence.networks import Network, NetworkRepository
    from virtflow.testing.throwaway_host import HALT

    database = Database(config.database.url)
    schema.upgrade(database)
    pool = {"cidr": "10.99.0.0/24", "gateway": "10.99.0.254"}
    pool |= {"allocation_start": "10.99.0.100", "allocation_end": "10.99.0.199"}
    network = Network(id=str(uuid.uuid4()), name=NETWORK, bridge=GUEST_BRIDGE, managed_bridge=False, **pool)  # type: ignore[arg-type]
    NetworkRepository(database).create(network)
    database.close()
    sector = root / "halt.raw"
    sector.write_bytes(HALT.ljust(1 << 20, b"\0"))
    LocalCatalog(config.images.catalog).add(sector, IMAGE, "raw")


def _write(file: Path, settings: dict[str, str]) -> None:
    groups: dict[str, list[str]] = {}
    for key, value in settings.items():
        group, _, option = key.rpartition(".")
        groups.setdefault(group or "DEFAULT", []).append(f"{option} = {value}")
    file.write_text("\n".join(f"[{group}]\n" + "\n".join(lines) for group, lines in groups.items()) + "\n")
