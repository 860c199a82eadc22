"""Networks, and the ports that instances have on them.

An address is picked from those that are free at the moment; the unique constraint on (network, address) decides
between two that picked the same, and the loser picks again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from virtflow.errors import AlreadyExists, Conflict, NotFound
from virtflow.persistence.database import Database
from virtflow.persistence.inserts import insert_unless_taken
from virtflow.persistence.models.base import now
from virtflow.persistence.models.inventory import networks, ports

_ATTEMPTS = 100


@dataclass(frozen=True, kw_only=True)
class Network:
    """``mtu`` in bytes. ``managed_bridge``: virtflow makes the bridge when needed and removes it when empty."""

    id: str
    name: str
    cidr: str
    gateway: str | None = None
    dns: tuple[str, ...] = ()
    bridge: str
    mtu: int = 1500
    managed_bridge: bool = False
    allocation_start: str | None = None
    allocation_end: str | None = None
    created_at: int = field(default_factory=now)


@dataclass(frozen=True)
class Port:
    """``created_at`` in microseconds since the epoch. Plain values only: ``Port(**asdict(port))`` is the same port."""

    id: str
    network_id: str
    instance: str
    operation: str
    address: str
    mac: str
    tap: str
    host: str | None
    created_at: int


class NetworkRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    # -- networks -----------------------------------------------------------------------------------------------------

    def create(self, network: Network) -> None:
        """AlreadyExists if the name is taken."""
        values = asdict(network) | {"dns": list(network.dns)}
        with self._database.transaction() as connection:
            if not insert_unless_taken(connection, networks, values):
                raise AlreadyExists(kind="network", name=network.name)

    def get(self, name_or_id: str) -> Network:
        """NotFound."""
        with self._database.connect() as connection:
            return _network(connection, name_or_id)

    def list(self) -> Sequence[Network]:
        """All, by name."""
        with self._database.connect() as connection:
            return [_row_to_network(row) for row in connection.execute(sa.select(networks).order_by(networks.c.name))]

    def delete(self, name_or_id: str) -> None:
        """NotFound; Conflict while it has ports (the foreign key guards against one that comes meanwhile)."""
        with self._database.transaction() as connection:
            network = _network(connection, name_or_id)
            try:
                connection.execute(networks.delete().where(networks.c.id == network.id))
            except IntegrityError as error:
                reason = "it has ports"
                raise Conflict(action="delete", kind="network", name=network.name, reason=reason) from error

    # -- ports --------------------------------------------------------------------------------------------------------

    def allocate_port(
        self,
        port_id: str,
        network: Network,
        *,
        instance: str,
        operation: str,
        host: str | None,
        requested_address: str | None,
        pick: Callable[[set[str]], str],
        mac: str,
        tap: str,
    ) -> Port:
        """The port with this id, made if it is not there yet; one that another host has left is this host's now.

        ``pick`` gets the used addresses and returns a free one (or raises NoFreeAddress). Conflict: the requested
        address or the MAC address is in use.
        """
        for _ in range(_ATTEMPTS):
            existing = self._port(port_id)
            if existing is not None:
                return self._on_host(existing, host)
            used = self.used_addresses(network.id)
            if requested_address in used:
                raise _address_taken(network.name, requested_address)
            address = requested_address or pick(used)
            port = Port(port_id, network.id, instance, operation, address, mac, tap, host, now())
            if self._insert_port(port, network.name):
                return port
        raise Conflict(action="allocate an address on", kind="network", name=network.name, reason="too much contention")

    def release_port(self, port_id: str, operation: str | None = None, host: str | None = None) -> bool:
        """Remove the port, if ``operation`` and ``host`` (when given) have it; say whether it was there."""
        statement = ports.delete().where(ports.c.id == port_id)
        if operation is not None:
            statement = statement.where(ports.c.operation == operation)
        if host is not None:
            statement = statement.where(ports.c.host == host)
        with self._database.transaction() as connection:
            return bool(connection.execute(statement).rowcount)

    def restore_port(self, port: Port) -> None:
        """Bring a released port back; one that is there is fine. Conflict if its address or MAC is in use by now."""
        with self._database.connect() as connection:
            query = sa.select(networks.c.name).where(networks.c.id == port.network_id)
            name = connection.execute(query).scalar()
        if name is None:
            raise NotFound(kind="network", name=port.network_id)
        if self._port(port.id) is None and not self._insert_port(port, name) and self._port(port.id) is None:
            raise _address_taken(name, port.address)

    def move_ports(self, instance: str, host: str) -> None:
        """The instance is on another host now, and its ports with it."""
        with self._database.transaction() as connection:
            connection.execute(ports.update().where(ports.c.instance == instance).values(host=host))

    def ports(self, instance: str | None = None, network: str | None = None) -> Sequence[Port]:
        """All that match what is given (``network``: its id), in the order they were made."""
        query = sa.select(ports).order_by(ports.c.created_at, ports.c.id)
        if instance is not None:
            query = query.where(ports.c.instance == instance)
        if network is not None:
            query = query.where(ports.c.network_id == network)
        with self._database.connect() as connection:
            return [Port(**row._mapping) for row in connection.execute(query)]

    def used_addresses(self, network_id: str) -> set[str]:
        """The addresses of the network's ports."""
        query = sa.select(ports.c.address).where(ports.c.network_id == network_id)
        with self._database.connect() as connection:
            return set(connection.execute(query).scalars())

    def _port(self, port_id: str) -> Port | None:
        with self._database.connect() as connection:
            row = connection.execute(sa.select(ports).where(ports.c.id == port_id)).first()
        return None if row is None else Port(**row._mapping)

    def _on_host(self, port: Port, host: str | None) -> Port:
        if port.host != host:
            with self._database.transaction() as connection:
                connection.execute(ports.update().where(ports.c.id == port.id).values(host=host))
        return replace(port, host=host)

    def _insert_port(self, port: Port, network_name: str) -> bool:
        """False if the address (or the port itself) is there already; Conflict if the MAC address is."""
        with self._database.transaction() as connection:
            if insert_unless_taken(connection, ports, asdict(port)):
                return True
            query = sa.select(ports.c.id).where(ports.c.mac == port.mac, ports.c.id != port.id)
            if connection.execute(query).first() is not None:
                reason = f"MAC address {port.mac} is in use"
                raise Conflict(action="add a port to", kind="network", name=network_name, reason=reason)
            if connection.execute(sa.select(networks.c.id).where(networks.c.id == port.network_id)).first() is None:
                raise NotFound(kind="network", name=network_name)
        return False


def _address_taken(network: str, address: str | None) -> Conflict:
    return Conflict(action="add a port to", kind="network", name=network, reason=f"address {address} is in use")


def _network(connection: sa.Connection, name_or_id: str) -> Network:
    query = sa.select(networks).where(sa.or_(networks.c.id == name_or_id, networks.c.name == name_or_id))
    found = [_row_to_network(row) for row in connection.execute(query)]
    if not found:
        raise NotFound(kind="network", name=name_or_id)
    # A network may bear the id of another as its name: the id wins.
    return max(found, key=lambda network: network.id == name_or_id)


def _row_to_network(row: sa.Row[Any]) -> Network:
    values = dict(row._mapping)
    return Network(**values | {"dns": tuple(values["dns"])})
