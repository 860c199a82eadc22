"""Placement: what instances hold of each host.

A claim is a compare-and-swap on the host's generation: whoever changed the host since it was read makes the swap miss,
and the claim is computed again. So two claims can never share the same last free piece, on any database.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from virtflow.errors import Conflict, HostFull, NotFound
from virtflow.persistence.database import Database
from virtflow.persistence.models.base import now
from virtflow.persistence.models.inventory import allocations, hosts

_ATTEMPTS = 100
"""Each attempt that misses means that another claim won, so even many hosts' worth of rivals end well before this."""


@dataclass(frozen=True)
class Allocation:
    """``generation`` is the host's once it was claimed: it orders the claims on one host."""

    consumer: str
    host: str
    operation: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    generation: int
    created_at: int

    def amounts(self) -> tuple[int, int, int]:
        """vcpus, MiB, GiB."""
        return self.vcpus, self.memory_mib, self.disk_gib


class PlacementRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(
        self, host: str, consumer: str, operation: str, *, vcpus: int, memory_mib: int, disk_gib: int
    ) -> Allocation:
        """Hold a part of the host for the consumer; the same operation may claim again, and then that replaces it.

        HostFull names the first resource that does not fit; NotFound for an unknown host; Conflict if another
        operation's claim of this consumer on this host is in the way.
        """
        wanted = Allocation(consumer, host, operation, vcpus, memory_mib, disk_gib, 0, now())
        for _ in range(_ATTEMPTS):
            claimed = self._try_claim(wanted)
            if claimed is not None:
                return claimed
        raise Conflict(action="claim", kind="host", name=host, reason="too many others are claiming it")

    def _try_claim(self, wanted: Allocation) -> Allocation | None:
        """None if the host changed between reading it and writing."""
        with self._database.connect() as connection:
            host = connection.execute(sa.select(*_OF_HOST).where(hosts.c.name == wanted.host)).first()
            held = connection.execute(_of(sa.select(allocations), wanted.host, wanted.consumer)).first()
        if host is None:
            raise NotFound(kind="host", name=wanted.host)
        own = None if held is None else Allocation(**held._mapping)
        if own is not None:
            if own.operation != wanted.operation:
                reason = f"operation {own.operation} has claimed it for instance {own.consumer}"
                raise Conflict(action="claim", kind="host", name=host.name, reason=reason)
            if own.amounts() == wanted.amounts():
                return own
        before = (0, 0, 0) if own is None else own.amounts()
        more = tuple(new - old for new, old in zip(wanted.amounts(), before, strict=True))
        _check_room(host, wanted, before)
        # Among those on this host it keeps its place: who has come since is later, whatever it holds of it now.
        claimed = replace(wanted, generation=host.generation + 1 if own is None else own.generation)
        with self._database.transaction() as connection:
            swap = hosts.update().where(hosts.c.name == host.name, hosts.c.generation == host.generation)
            # This also locks the row until the transaction ends.
            if connection.execute(swap.values(generation=host.generation + 1, **_used(more))).rowcount != 1:
                return None
            if own is not None:
                connection.execute(_of(allocations.delete(), own.host, own.consumer))
            connection.execute(allocations.insert().values(**claimed.__dict__))
        return claimed

    def adjust(self, host: str, consumer: str, *, vcpus: int, memory_mib: int, disk_gib: int) -> None:
        """Let what the consumer holds of the host be of these amounts, whoever has claimed it.

        HostFull names the first resource that does not fit; NotFound when it holds nothing there.
        """
        for _ in range(_ATTEMPTS):
            held = next(iter(self.allocations(consumer=consumer, host=host)), None)
            if held is None:
                raise NotFound(kind="allocation", name=f"{host}/{consumer}")
            if self._try_claim(replace(held, vcpus=vcpus, memory_mib=memory_mib, disk_gib=disk_gib)) is not None:
                return
        raise Conflict(action="claim", kind="host", name=host, reason="too many others are claiming it")

    def release(self, host: str, consumer: str, operation: str | None = None) -> bool:
        """Give back what the consumer holds of the host, if ``operation`` (when given) claimed it; say whether."""
        statement = _of(sa.select(allocations), host, consumer)
        if operation is not None:
            statement = statement.where(allocations.c.operation == operation)
        with self._database.transaction() as connection:
            # The host's row first, as in a claim: the same order of locks, so the two cannot deadlock.
            raised = hosts.update().where(hosts.c.name == host)
            connection.execute(raised.values(generation=hosts.c.generation + 1))
            held = connection.execute(statement).first()
            if held is None:
                return False
            less = tuple(-amount for amount in Allocation(**held._mapping).amounts())
            connection.execute(_of(allocations.delete(), host, consumer))
            connection.execute(raised.values(_used(less)))
            return True

    def allocations(self, consumer: str | None = None, host: str | None = None) -> Sequence[Allocation]:
        """All that match what is given."""
        query = sa.select(allocations).order_by(allocations.c.host, allocations.c.consumer)
        if consumer is not None:
            query = query.where(allocations.c.consumer == consumer)
        if host is not None:
            query = query.where(allocations.c.host == host)
        with self._database.connect() as connection:
            return [Allocation(**row._mapping) for row in connection.execute(query)]


_OF_HOST = (
    *(hosts.c.name, hosts.c.generation, hosts.c.vcpus, hosts.c.memory_mib, hosts.c.disk_gib),
    *(hosts.c.cpu_ratio, hosts.c.memory_ratio, hosts.c.disk_ratio),
    *(hosts.c.vcpus_used, hosts.c.memory_mib_used, hosts.c.disk_gib_used),
)
"""What a claim has to know."""


def _check_room(host: Any, wanted: Allocation, own: tuple[int, ...]) -> None:
    rooms = (
        ("vcpus", int(host.vcpus * host.cpu_ratio) - host.vcpus_used),
        ("memory_mib", int(host.memory_mib * host.memory_ratio) - host.memory_mib_used),
        ("disk_gib", int(host.disk_gib * host.disk_ratio) - host.disk_gib_used),
    )
    for (resource, left), requested, mine in zip(rooms, wanted.amounts(), own, strict=True):
        free = max(left + mine, 0)
        if requested > free:
            raise HostFull(host=host.name, resource=resource, requested=requested, available=free)


def _used(more: tuple[int, ...]) -> dict[str, Any]:
    vcpus, memory_mib, disk_gib = more
    return {
        "vcpus_used": hosts.c.vcpus_used + vcpus,
        "memory_mib_used": hosts.c.memory_mib_used + memory_mib,
        "disk_gib_used": hosts.c.disk_gib_used + disk_gib,
    }


def _of(statement: Any, host: str, consumer: str) -> Any:
    return statement.where(allocations.c.host == host, allocations.c.consumer == consumer)
