"""A host on which everything is in order: a guest that runs, one in the trash, operations under way and waiting.

``SettledHost`` writes real rows and files; libvirt and the kernel's links are lists.
"""

from __future__ import annotations

import uuid as uuids
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa

from virtflow.config import Config
from virtflow.engine.audit import Finding, audit_with
from virtflow.engine.services import Services
from virtflow.network.addressing import tap_name
from virtflow.persistence.claim import owner_here
from virtflow.persistence.database import Database
from virtflow.persistence.models import metadata

DEAD_PID = 2**22 + 1
"""Beyond the kernel's largest pid (PID_MAX_LIMIT of linux/threads.h)."""


def named(name: str) -> str:
    """A uuid that stays the same."""
    return str(uuids.uuid5(uuids.NAMESPACE_DNS, name))


NETWORK = named("network")
BRIDGE = "br-settled"
LIVE, TRASHED, COMING = named("live"), named("trashed"), named("coming")
SPAWNED, DELETED, RUNNING, WAITING, FAILED = (named(f"op-{n}") for n in ("spawn", "delete", "run", "wait", "fail"))
OLD_SPAWN = named("op-old-spawn")


@dataclass
class FakeHypervisor:
    records: list[Any] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def domains(self) -> list[Any]:
        return self.records

    def filters(self) -> list[str]:
        return self.names


@dataclass
class FakeLibvirtSecrets:
    known: list[str] = field(default_factory=list)
    opening: list[str] = field(default_factory=list)

    def usages(self) -> list[str]:
        return self.known

    def keys(self) -> list[str]:
        return self.opening


@dataclass
class FakeTaps:
    taps: list[Any] = field(default_factory=list)
    made: dict[str, str | None] = field(default_factory=dict)

    def list(self) -> Any:
        return self.taps

    def bridges(self) -> dict[str, str | None]:
        return self.made

    def bridge_ports(self, name: str) -> tuple[str, ...]:
        return tuple(tap.name for tap in self.taps if tap.bridge == name)


class SettledHost:
    def __init__(self, config: Config, database: Database) -> None:
        self.config = config
        self.database = database
        self.hypervisor = FakeHypervisor()
        self.taps = FakeTaps()
        self.libvirt_secrets = FakeLibvirtSecrets()
        self.instances = config.instances.path
        (self.instances / "_base").mkdir(parents=True)
        (self.instances / "locks").mkdir()
        self._numbers = 0
        self._settle()

    def audit(self) -> list[Finding]:
        doubles = {"hypervisor": self.hypervisor, "taps": self.taps, "libvirt_secrets": self.libvirt_secrets}
        services = Services(self.config, self.database, doubles)
        return audit_with(self.config, services, self.database)

    # -- making things

    def add(self, table: str, **values: Any) -> None:
        """A row; what it must have and is not given gets something harmless."""
        columns = metadata.tables[table].columns
        row = {c.name: _harmless(c) for c in columns if not c.nullable and c.autoincrement is not True}
        with self.database.transaction() as connection:
            connection.execute(sa.insert(metadata.tables[table]).values(**{**row, **values}))

    def change(self, table: str, where: Mapping[str, Any], **values: Any) -> None:
        its = metadata.tables[table]
        with self.database.transaction() as connection:
            statement = sa.update(its).where(*(its.c[name] == value for name, value in where.items()))
            assert connection.execute(statement.values(**values)).rowcount

    def remove(self, table: str, **where: Any) -> None:
        its = metadata.tables[table]
        with self.database.transaction() as connection:
            statement = sa.delete(its).where(*(its.c[name] == value for name, value in where.items()))
            assert connection.execute(statement).rowcount

    def operation(
        self, uuid: str, kind: str, target: str, state: str, outcome: str | None = None, owner: str | None = None
    ) -> None:
        self._numbers += 1
        number = {"number": self._numbers}
        values = {"kind": kind, "version": 1, "target": target, "state": state, "outcome": outcome}
        self.add("operations", id=uuid, request={}, project="default", **number, **values)
        self.add("claims", subject=uuid, epoch=1, owner=owner)
        if state != "FINISHED":
            self.add("targets", target=target, operation=uuid)

    def file(self, *parts: str, text: str = "") -> Path:
        path = self.instances.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def directory(self, instance: str, operation: str) -> None:
        self.file(instance, ".virtflow-owner", text=operation)
        self.file(instance, "disk")

    def port(self, instance: str, operation: str, number: int) -> str:
        identity = named(f"{instance}/{number}")
        values = {"address": f"10.0.0.{number}", "mac": f"52:54:00:00:00:{number:02x}", "host": self.config.host}
        tap = tap_name(identity)
        self.add("ports", id=identity, network_id=NETWORK, instance=instance, operation=operation, tap=tap, **values)
        return identity

    def tap(self, port: str, operation: str) -> None:
        self.taps.taps.append(SimpleNamespace(name=tap_name(port), bridge=BRIDGE, owner=f"virtflow:{operation}:{port}"))

    def domain(self, instance: str, operation: str | None) -> None:
        record = SimpleNamespace(uuid=instance, name=instance[:8], state="running", operation=operation)
        self.hypervisor.records.append(record)

    def charge(self, instance: str, operation: str, state: str) -> None:
        values = {"resource": "vcpus", "project": "default", "amount": 1, "state": state}
        self.add("quota_charges", consumer=instance, operation=operation, **values)

    def reference(self, instance: str, operation: str) -> None:
        values = {"base_path": "/x/_base/abc", "host": self.config.host, "image_id": "i"}
        self.add("base_references", consumer=instance, operation=operation, **values)

    def intent(self, operation: str, kind: str, identity: str, state: str) -> None:
        values = {"flow": operation, "task": f"Make{kind.title()}", "host": self.config.host, "attempts": 0}
        self.add("ledger", operation=operation, kind=kind, identity=identity, state=state, **values)

    def allocation(self, instance: str, operation: str) -> None:
        self.add("allocations", consumer=instance, host=self.config.host, operation=operation)

    def instance(self, instance: str, operation: str, **values: Any) -> None:
        name = {"name": f"i-{instance[:8]}", "live_name": f"i-{instance[:8]}", "project": "default", "meta": {}}
        state = {"vm_state": "ACTIVE", "host": self.config.host}
        self.add("instances", uuid=instance, operation=operation, **{**name, **state, **values})

    def everything_of(self, instance: str, operation: str, number: int, quota: str) -> None:
        """What an instance with a guest has on this host and in the database."""
        self.directory(instance, operation)
        port = self.port(instance, operation, number)
        self.tap(port, operation)
        self.domain(instance, operation)
        self.charge(instance, operation, quota)
        self.reference(instance, operation)
        self.allocation(instance, operation)
        self.hypervisor.names.append(f"virtflow-{tap_name(port)}")

    def _settle(self) -> None:
        here = owner_here(self.config.host)
        self.add("hosts", name=self.config.host, capabilities={})
        self.add("networks", id=NETWORK, name="net", cidr="10.0.0.0/24", dns=[], bridge=BRIDGE, managed_bridge=True)
        self.taps.made[BRIDGE] = f"virtflow:network:{NETWORK}"
        # A guest that runs.
        self.operation(SPAWNED, "spawn", "instance:live", "FINISHED", "SUCCESS")
        self.instance(LIVE, SPAWNED)
        self.everything_of(LIVE, SPAWNED, 1, "COMMITTED")
        self.intent(SPAWNED, "domain", LIVE, "PRESENT")
        # One that was deleted, and can be brought back.
        self.operation(OLD_SPAWN, "spawn", "instance:trashed", "FINISHED", "SUCCESS")
        self.operation(DELETED, "delete", "instance:trashed", "FINISHED", "SUCCESS")
        self.instance(TRASHED, OLD_SPAWN, live_name=None, deleted_at=1, deleted_by=DELETED)
        self.file("_trash", DELETED, "disk")
        self.charge(TRASHED, OLD_SPAWN, "RELEASED")
        self.reference(TRASHED, OLD_SPAWN)
        self.add("server_groups", id=named("group"), name="group", project="default", policy="affinity")
        self.add("server_group_members", instance=TRASHED, group_id=named("group"), operation=OLD_SPAWN)
        # One that is being made by this process, half done everywhere.
        self.operation(RUNNING, "spawn", "instance:coming", "RUNNING", owner=here)
        self.instance(COMING, RUNNING, vm_state="BUILDING", task_state="SCHEDULING", name="coming", live_name="coming")
        self.everything_of(COMING, RUNNING, 2, "RESERVED")
        self.file(COMING, f"disk.tmp.{RUNNING}")
        self.file(f"{COMING}.tmp.{RUNNING}", "x")
        self.intent(RUNNING, "domain", COMING, "INTENDED")
        self.add("secrets", ref="secret:running", owner=RUNNING, name="user_data", ciphertext=b"x")
        # One that waits for somebody to do it, and one that failed and was taken back.
        self.operation(WAITING, "spawn", "instance:waiting", "ACCEPTED")
        self.charge(named("waiting"), WAITING, "RESERVED")
        self.operation(FAILED, "spawn", "instance:failed", "FINISHED", "REVERTED")
        self.intent(FAILED, "domain", named("failed"), "CLEARED")
        # Nobody else's business: a stranger's guest, another virtflow's tap, a lock.
        self.domain(named("stranger"), None)
        self.taps.taps.append(SimpleNamespace(name="vf00000000000", bridge="other", owner=f"virtflow:{named('x')}:p"))
        self.taps.made["br-other"] = f"virtflow:network:{named('other network')}"
        self.file("locks", "base-abc")
        self.file("_base", "a" * 40)
        self.file("_base", "a" * 40 + ".json", text="{}")
        self.file("lost+found")


def _harmless(column: sa.Column[Any]) -> Any:
    kind = column.type.python_type if not isinstance(column.type, sa.types.TypeDecorator) else dict
    return {int: 0, float: 1.0, str: "", bool: False, bytes: b"", dict: {}}[kind]
