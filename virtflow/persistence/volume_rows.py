"""What volumes and their snapshots have in common: a name that is taken while they live, and a state that is held."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, ClassVar, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from virtflow.errors import AlreadyExists, Conflict, NotFound
from virtflow.persistence.database import Database
from virtflow.persistence.inserts import insert_unless_taken
from virtflow.persistence.models.base import now

CREATING = "CREATING"
AVAILABLE = "AVAILABLE"
ERROR = "ERROR"
"""Its creation could not be taken back altogether."""
ATTACHING = "ATTACHING"
IN_USE = "IN_USE"
DETACHING = "DETACHING"
MOVING = "MOVING"
"""Its instance moves to another host."""
EXTENDING = "EXTENDING"
COPYING = "COPYING"
"""It is being read, for a snapshot or for another volume: nobody may write to it."""
DELETING = "DELETING"

R = TypeVar("R")


class HeldRows(Generic[R]):
    """Rows of one table, of the dataclass ``record``."""

    table: ClassVar[sa.Table]
    kind: ClassVar[str]
    record: type[R]

    def __init__(self, database: Database) -> None:
        self._database = database

    def insert(self, row: R) -> None:
        """Create the row, or find that the same operation created it. AlreadyExists if the name is taken."""
        values = asdict(row)  # type: ignore[call-overload]
        with self._database.transaction() as connection:
            if insert_unless_taken(connection, self.table, values | {"live_name": values["name"]}):
                return
            same = sa.select(self.table.c.id).where(
                self.table.c.id == values["id"], self.table.c.operation == values["operation"]
            )
            if connection.execute(same).first() is None:
                raise AlreadyExists(kind=self.kind, name=values["name"])

    def get(self, identity: str) -> R:
        """By id, deleted or not. NotFound."""
        with self._database.connect() as connection:
            row = connection.execute(sa.select(self.table).where(self.table.c.id == identity)).first()
        if row is None:
            raise NotFound(kind=self.kind, name=identity)
        return self._record(row)

    def find(self, name_or_id: str, project: str) -> R:
        """The live one of a project. NotFound."""
        columns = self.table.c
        query = sa.select(self.table).where(
            columns.project == project,
            sa.or_(sa.and_(columns.id == name_or_id, columns.deleted_at.is_(None)), columns.live_name == name_or_id),
        )
        with self._database.connect() as connection:
            found = list(connection.execute(query))
        if not found:
            raise NotFound(kind=self.kind, name=name_or_id)
        # One may bear the id of another as its name: the id wins.
        return self._record(max(found, key=lambda row: bool(row.id == name_or_id)))

    def list(self, project: str | None = None, **given: Any) -> Sequence[R]:
        """The live ones that match, oldest first."""
        query = sa.select(self.table).where(self.table.c.deleted_at.is_(None)).filter_by(**given)
        if project is not None:
            query = query.where(self.table.c.project == project)
        with self._database.connect() as connection:
            ordered = query.order_by(self.table.c.created_at, self.table.c.id)
            return [self._record(row) for row in connection.execute(ordered)]

    def ever(self, **given: Any) -> bool:
        """Whether there is one that matches, deleted or not."""
        with self._database.connect() as connection:
            return connection.execute(sa.select(self.table).filter_by(**given).limit(1)).first() is not None

    def hold(self, identity: str, expected: str | Sequence[str], state: str, operation: str) -> bool:
        """Bring it from a state of rest into ``state``, for this operation alone; say whether that was possible.

        Held by the same operation already, it is held.
        """
        allowed = [expected] if isinstance(expected, str) else list(expected)
        columns = self.table.c
        fresh = sa.and_(columns.state.in_(allowed), columns.held_by.is_(None), columns.deleted_at.is_(None))
        changes = {"resting": columns.state, "state": state, "held_by": operation}
        return self._update(identity, fresh, changes) or self.get(identity).held_by == operation  # type: ignore[attr-defined]

    def hold_again(self, identity: str, left: Sequence[str], state: str, operation: str, before: str | None) -> bool:
        """Take back ``let_go``, which left it in one of these states; ``before`` is what it was held in from."""
        columns = self.table.c
        free = sa.and_(columns.state.in_(list(left)), columns.held_by.is_(None), columns.deleted_at.is_(None))
        resting = columns.state if before is None else before
        changes = {"resting": resting, "state": state, "held_by": operation}
        return self._update(identity, free, changes) or self.get(identity).held_by == operation  # type: ignore[attr-defined]

    def let_go(self, identity: str, operation: str, state: str | None = None, **changes: Any) -> bool:
        """Bring what this operation holds into a state of rest, by default that from before; say whether it held it."""
        mine = self.table.c.held_by == operation
        rest = self.table.c.resting if state is None else state
        return self._update(identity, mine, {"state": rest, "held_by": None, "resting": None, **changes})

    def change(self, identity: str, expected: Mapping[str, Any], changes: Mapping[str, Any]) -> bool:
        """Write ``changes`` if every column in ``expected`` has that value; say whether."""
        same = [self.table.c[name].is_not_distinct_from(value) for name, value in expected.items()]
        return self._update(identity, sa.and_(sa.true(), *same), dict(changes))

    def mark_deleted(self, identity: str, operation: str) -> None:
        """Free the name and keep the row. Conflict if another operation deleted it."""
        live = self.table.c.deleted_at.is_(None)
        changes = {"live_name": None, "deleted_at": now(), "deleted_by": operation}
        if self._update(identity, live, changes):
            return
        owner = self.get(identity).deleted_by  # type: ignore[attr-defined]
        if owner != operation:
            reason = f"operation {owner} has deleted it"
            raise Conflict(action="delete", kind=self.kind, name=identity, reason=reason)

    def restore(self, identity: str) -> None:
        """Take a deletion back; one that lives is fine. AlreadyExists if its name was taken meanwhile."""
        changes = {"live_name": self.table.c.name, "deleted_at": None, "deleted_by": None}
        with self._name_taken(identity):
            self._update(identity, sa.true(), changes)

    def mark_purged(self, identity: str) -> None:
        """It takes no room any more."""
        purged = self.table.c.purged_at.is_(None)
        self._update(identity, sa.and_(purged, self.table.c.deleted_at.is_not(None)), {"purged_at": now()})

    def remove(self, identity: str, operation: str) -> bool:
        """Remove the row if ``operation`` created it; say whether it was there."""
        statement = self.table.delete().where(self.table.c.id == identity, self.table.c.operation == operation)
        with self._database.transaction() as connection:
            return bool(connection.execute(statement).rowcount)

    def _update(self, identity: str, condition: sa.ColumnElement[bool], changes: Mapping[str, Any]) -> bool:
        # In the order given: MariaDB lets an assignment see those before it.
        assignments = [(self.table.c[name], value) for name, value in changes.items()]
        statement = self.table.update().where(self.table.c.id == identity, condition).ordered_values(*assignments)
        with self._database.transaction() as connection:
            return connection.execute(statement).rowcount == 1

    def _record(self, row: sa.Row[Any]) -> R:
        values = dict(row._mapping)
        del values["live_name"]
        return self.record(**values)

    @contextmanager
    def _name_taken(self, identity: str) -> Iterator[None]:
        try:
            yield
        except IntegrityError as error:
            raise AlreadyExists(kind=self.kind, name=identity) from error
