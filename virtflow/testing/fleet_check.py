"""What must hold over all hosts once nothing is under way, whatever was killed before: the invariants of a fleet.

``python -m virtflow.testing.fleet_check CONFIG [CONFIG ...]``, with the configuration file of every host's worker,
prints what does not hold; exit code 0 when there is nothing, 5 otherwise. It changes nothing.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import sqlalchemy as sa

from virtflow.engine.audit import Finding, audit_with
from virtflow.engine.services import Services
from virtflow.hypervisor.embedded_files import EmbeddedFiles
from virtflow.persistence import operations as ops
from virtflow.persistence.claim import holds
from virtflow.persistence.database import Database
from virtflow.persistence.models import engine, inventory, volumes
from virtflow.persistence.models.base import now
from virtflow.persistence.models.segments import segments
from virtflow.persistence.models.specs import instance_specs
from virtflow.persistence.segments import ENDED
from virtflow.testing.networks import call_in

if TYPE_CHECKING:
    from virtflow.config import Config

FOUND = 5


def problems(configs: Iterable[Config], networks: Mapping[str, Path] = MappingProxyType({})) -> list[str]:
    """What does not hold, a line each, for hosts that share a database; operations that are under way count too.

    ``networks``: by host, the network namespace of one that is not in this process's.
    """
    hosts = list(configs)
    database = Database(hosts[0].database.url)
    try:
        audited = [(config.host, finding) for config in hosts for finding in _audit(config, database, networks)]
        found = [f"{host}: {finding.kind} {finding.identity}: {finding.reason}" for host, finding in audited]
        with database.connect() as connection:
            found += _unfinished(connection, hosts[0].jobboard.lease)
            found += _books(connection)
    finally:
        database.close()
    return found + [f"instance {uuid} runs {count} times" for uuid, count in running(hosts).items() if count > 1]


def running(hosts: Iterable[Config]) -> Counter[str]:
    """How many QEMU processes each domain has, over all hosts with an embedded driver; read from its files."""
    roots = [config.libvirt.embed_root for config in hosts]
    return Counter(
        domain.uuid
        for root in roots
        if root is not None
        for domain in EmbeddedFiles(root).domains()
        if domain.state.is_active
    )


def _audit(config: Config, database: Database, networks: Mapping[str, Path]) -> list[Finding]:
    """An embedded driver's files are read in its place: a worker has it, and a process has room for one."""
    root = config.libvirt.embed_root
    services = Services(config, database, None if root is None else {"hypervisor": EmbeddedFiles(root)})
    try:
        return call_in(networks.get(config.host), lambda: audit_with(config, services, database))
    finally:
        services.close()


def _unfinished(connection: sa.Connection, lease: float) -> Iterator[str]:
    """Operations, segments and claims that are not over."""
    o = engine.operations.c
    for row in connection.execute(sa.select(o.number, o.kind, o.target, o.state).where(o.state != ops.FINISHED)):
        yield f"operation {row.number} ({row.kind} {row.target}) is {row.state}"
    s = segments.c
    for its in connection.execute(sa.select(s.id, s.kind, s.host, s.verb, s.state).where(s.state.not_in(ENDED))):
        yield f"segment {its.id} ({its.kind}) of host {its.host} is {its.state}, to {its.verb}"
    c = engine.claims.c
    both = sa.union(sa.select(o.id), sa.select(s.id)).subquery()
    held = sa.select(c.subject, c.owner, c.touched_at).where(c.owner.is_not(None), c.subject.in_(sa.select(both)))
    for claim in connection.execute(held):
        alive = "lives" if holds(claim.owner, claim.touched_at, lease, now()) else "is dead"
        yield f"the claim to {claim.subject} is held by {claim.owner}, which {alive}"


def _books(connection: sa.Connection) -> Iterator[str]:
    """Quota and claims of hosts are what lives, and what an unconfirmed move would go back to; no more and no less."""
    i, q, a = inventory.instances.c, inventory.quota_charges.c, inventory.allocations.c
    alive = {row.uuid: row.host for row in connection.execute(sa.select(i.uuid, i.host).where(i.deleted_at.is_(None)))}
    charged = set(connection.execute(sa.select(q.consumer).where(q.state != "RELEASED").distinct()).scalars())
    for table in (volumes.volumes, volumes.volume_snapshots):  # the audit looks at theirs
        charged -= set(connection.execute(sa.select(table.c.id)).scalars())
    for uuid in sorted(charged ^ alive.keys()):
        yield f"instance {uuid} " + ("lives, but no quota is charged" if uuid in alive else "is gone, but is charged")
    claimed = Counter((row.host, row.consumer) for row in connection.execute(sa.select(a.host, a.consumer)))
    wanted = Counter((host, uuid) for uuid, host in alive.items())
    moved = sa.select(instance_specs.c.previous_host, instance_specs.c.instance)
    for host, uuid in connection.execute(moved.where(instance_specs.c.previous_host.is_not(None))):
        wanted[host, uuid] = 1
    for host, uuid in (claimed - wanted) + (wanted - claimed):
        yield f"instance {uuid}: claims and life on host {host} do not agree"
    yield from _used(connection)


def _used(connection: sa.Connection) -> Iterator[str]:
    h, a = inventory.hosts.c, inventory.allocations.c
    amounts = {name: sa.func.coalesce(sa.func.sum(a[name]), 0) for name in ("vcpus", "memory_mib", "disk_gib")}
    sums = sa.select(a.host, *(value.label(name) for name, value in amounts.items())).group_by(a.host)
    by_host = {row.host: (int(row.vcpus), int(row.memory_mib), int(row.disk_gib)) for row in connection.execute(sums)}
    for row in connection.execute(sa.select(h.name, h.vcpus_used, h.memory_mib_used, h.disk_gib_used)):
        used = row.vcpus_used, row.memory_mib_used, row.disk_gib_used
        if used != by_host.get(row.name, (0, 0, 0)):
            yield f"host {row.name} has {used} in use, its claims say {by_host.get(row.name, (0, 0, 0))}"


def main(files: list[str]) -> int:
    """The command."""
    from virtflow.config import load

    if not files:
        sys.exit("usage: python -m virtflow.testing.fleet_check CONFIG [CONFIG ...]")
    found = problems([load([Path(file)]) for file in files])
    print("\n".join(found) or "Nothing is left, nothing runs twice, and every sum is right.")
    return FOUND if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
