"""Server groups: instances that must, or must not, share a host.

A member whose instance was deleted does not count any more. Its row stays, so that undoing the delete makes it one
again.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from virtflow.errors import AlreadyExists, Conflict, NotFound, QuotaExceeded
from virtflow.persistence.database import Database
from virtflow.persistence.hosts import FENCED
from virtflow.persistence.inserts import insert_unless_taken
from virtflow.persistence.models.base import now
from virtflow.persistence.models.inventory import allocations, hosts, instances
from virtflow.persistence.models.inventory import server_group_members as members
from virtflow.persistence.models.inventory import server_groups as groups


@dataclass(frozen=True)
class ServerGroup:
    """``policy`` is one of ``virtflow.scheduler.policies``; ``created_at`` in microseconds since the epoch."""

    id: str
    name: str
    project: str
    policy: str
    created_at: int


@dataclass(frozen=True)
class GroupMember:
    """A live instance of a group, with its claim on a host; both None before it has one, and on a fenced host.

    Of an instance that is being moved, which has a claim on each of two hosts, there are two.
    """

    instance: str
    name: str
    host: str | None
    generation: int | None


class ServerGroupRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, name: str, project: str, policy: str) -> ServerGroup:
        """AlreadyExists if the project has a group of that name."""
        group = ServerGroup(str(uuid.uuid4()), name, project, policy, now())
        with self._database.transaction() as connection:
            if not insert_unless_taken(connection, groups, group.__dict__):
                raise AlreadyExists(kind="server group", name=name)
        return group

    def get(self, name_or_id: str, project: str) -> ServerGroup:
        """NotFound."""
        with self._database.connect() as connection:
            return _group(connection, name_or_id, project)

    def list(self, project: str | None = None) -> Sequence[ServerGroup]:
        """All, or those of a project, by name."""
        query = sa.select(groups).order_by(groups.c.project, groups.c.name)
        if project is not None:
            query = query.where(groups.c.project == project)
        with self._database.connect() as connection:
            return [ServerGroup(**row._mapping) for row in connection.execute(query)]

    def delete(self, name_or_id: str, project: str) -> None:
        """NotFound; Conflict while it has members (the foreign key guards against one that comes meanwhile)."""
        with self._database.transaction() as connection:
            group = _group(connection, name_or_id, project)
            found = list(connection.execute(_live_members(group.id)))
            if found:
                reason = f"instance {found[0].name} is in it"
                raise Conflict(action="delete", kind="server group", name=group.name, reason=reason)
            connection.execute(members.delete().where(members.c.group_id == group.id))
            try:
                connection.execute(groups.delete().where(groups.c.id == group.id))
            except IntegrityError as error:
                reason = "an instance is joining it"
                raise Conflict(action="delete", kind="server group", name=group.name, reason=reason) from error

    def join(self, group_id: str, instance: str, operation: str, *, limit: int) -> None:
        """Make an instance a member; it may be one already. ``limit`` -1 is unlimited.

        NotFound if the group is gone; QuotaExceeded if it is full.
        """
        with self._database.transaction() as connection:
            group = connection.execute(sa.select(groups).where(groups.c.id == group_id).with_for_update()).first()
            if group is None:
                raise NotFound(kind="server group", name=group_id)
            present = {row.uuid for row in connection.execute(_live_members(group_id))} - {instance}
            if limit != -1 and len(present) >= limit:
                fields = {"requested": 1, "available": max(limit - len(present), 0), "limit": limit}
                raise QuotaExceeded(resource="server_group_members", **fields)
            row = {"instance": instance, "group_id": group_id, "operation": operation, "created_at": now()}
            insert_unless_taken(connection, members, row)

    def leave(self, instance: str, operation: str) -> bool:
        """End the membership that ``operation`` began; say whether there was one."""
        statement = members.delete().where(members.c.instance == instance, members.c.operation == operation)
        with self._database.transaction() as connection:
            return bool(connection.execute(statement).rowcount)

    def members(self, group_id: str) -> Sequence[GroupMember]:
        """The live ones, by name."""
        query = (
            sa.select(instances.c.uuid, instances.c.name, hosts.c.name.label("host"), allocations.c.generation)
            .select_from(members)
            .join(instances, instances.c.uuid == members.c.instance)
            .outerjoin(allocations, allocations.c.consumer == members.c.instance)
            # Nothing runs on a fenced host: those who come from there are to be together, or apart, elsewhere.
            .outerjoin(hosts, sa.and_(hosts.c.name == allocations.c.host, hosts.c.state != FENCED))
            .where(members.c.group_id == group_id, instances.c.deleted_at.is_(None))
            .order_by(instances.c.name, allocations.c.host)
        )
        with self._database.connect() as connection:
            return [GroupMember(*row) for row in connection.execute(query)]

    def group_of(self, instance: str) -> ServerGroup | None:
        """The group that an instance is in, if it is in one."""
        query = sa.select(groups).join(members, members.c.group_id == groups.c.id)
        with self._database.connect() as connection:
            row = connection.execute(query.where(members.c.instance == instance)).first()
        return None if row is None else ServerGroup(**row._mapping)


def _live_members(group_id: str) -> sa.Select[Any]:
    return (
        sa.select(instances.c.uuid, instances.c.name)
        .join(members, members.c.instance == instances.c.uuid)
        .where(members.c.group_id == group_id, instances.c.deleted_at.is_(None))
    )


def _group(connection: sa.Connection, name_or_id: str, project: str) -> ServerGroup:
    query = sa.select(groups).where(
        groups.c.project == project, sa.or_(groups.c.id == name_or_id, groups.c.name == name_or_id)
    )
    found = [ServerGroup(**row._mapping) for row in connection.execute(query)]
    if not found:
        raise NotFound(kind="server group", name=name_or_id)
    # A group may bear the id of another as its name: the id wins.
    return max(found, key=lambda group: group.id == name_or_id)
