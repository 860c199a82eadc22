"""TaskFlow's persistence interface over our tables.

``FlowBackend(writer, recorder)`` belongs to one run of one operation: updates are recorded and the engine flushes them
at its barriers. Without a recorder every call commits on its own, which is what other users of the interface expect
(``taskflow.persistence.backends.fetch({"connection": "virtflow", "url": ...})``).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from functools import cache
from typing import Any

import sqlalchemy as sa
from taskflow import exceptions as exc
from taskflow.persistence import base
from taskflow.persistence import models as details

from virtflow.errors import DatabaseError, StaleEpoch
from virtflow.persistence.database import Database
from virtflow.persistence.models.base import metadata, now
from virtflow.persistence.models.engine import atoms, flows, journal, logbooks
from virtflow.persistence.recorder import Recorder, Statements
from virtflow.persistence.rows import atom_from_row
from virtflow.persistence.writer import Writer


class FlowBackend(base.Backend):
    """One backend, one connection object: there is nothing to open or to compile per write."""

    def __init__(self, writer: Writer, recorder: Recorder | None = None, *, owns_database: bool = False) -> None:
        super().__init__({})
        self.writer = writer
        self.autocommit = recorder is None
        self.recorder = recorder or Recorder(writer, Statements(writer), None)
        self._owns_database = owns_database
        self._connection = FlowConnection(self)

    def get_connection(self) -> FlowConnection:
        return self._connection

    def close(self) -> None:
        self.recorder.flush()
        if self._owns_database:
            self.writer.close()
            self.writer.database.close()


class FlowConnection(base.Connection):
    """The whole ``Connection`` interface. Reads flush first, so that they see what was recorded."""

    def __init__(self, backend: FlowBackend) -> None:
        self._backend = backend
        self._recorder = backend.recorder
        self._database = backend.writer.database

    @property
    def backend(self) -> FlowBackend:
        return self._backend

    def close(self) -> None:
        """Nothing to close: connections belong to the database's pool."""

    def upgrade(self) -> None:
        """Make the tables of TaskFlow when they are missing (virtflow itself migrates with ``virtflow db upgrade``)."""
        metadata.create_all(self._database.engine, tables=[logbooks, flows, atoms, journal])

    def clear_all(self) -> None:
        self._flush()
        with self._database.transaction() as connection:
            connection.execute(sa.delete(logbooks))

    def validate(self) -> None:
        with self._reading() as connection:
            connection.execute(sa.select(sa.literal(1)).select_from(logbooks).limit(1))

    # -- writing

    def update_atom_details(self, atom_detail: details.AtomDetail) -> details.AtomDetail:
        if not self._recorder.knows_atom(atom_detail.uuid):
            self.get_atom_details(atom_detail.uuid)
        self._recorder.set_atom(atom_detail)
        self._settle()
        return atom_detail

    def update_flow_details(self, flow_detail: details.FlowDetail) -> details.FlowDetail:
        if not self._recorder.knows_flow(flow_detail.uuid):
            self.get_flow_details(flow_detail.uuid)
        self._recorder.set_flow(flow_detail)
        self._record_atoms(flow_detail)
        self._settle()
        return flow_detail

    def set_flow_state(self, flow_detail: details.FlowDetail) -> None:
        """Record the flow's own row only: what the engine changes most, without looking at every atom."""
        self._recorder.set_flow(flow_detail)

    def add_flow(self, logbook: str, flow_detail: details.FlowDetail) -> None:
        """Record a new flow of an existing logbook."""
        self._recorder.add_flow(logbook, flow_detail)
        self._record_atoms(flow_detail)
        self._settle()

    def save_logbook(self, book: details.LogBook) -> details.LogBook:
        self._flush()
        with self._database.transaction() as connection:
            known = connection.execute(sa.select(logbooks.c.uuid).where(logbooks.c.uuid == book.uuid)).first()
            if known is None:
                row = {"uuid": book.uuid, "name": book.name, "meta": book.meta, "created_at": _stamp(book.created_at)}
                connection.execute(sa.insert(logbooks).values(**row, updated_at=None))
            else:
                values = {"meta": book.meta, "updated_at": _stamp(book.updated_at)}
                connection.execute(sa.update(logbooks).where(logbooks.c.uuid == book.uuid).values(**values))
        for flow_detail in book:
            if not self._recorder.knows_flow(flow_detail.uuid):
                try:
                    self.get_flow_details(flow_detail.uuid)
                except exc.NotFound:
                    self._recorder.add_flow(book.uuid, flow_detail)
            self._recorder.set_flow(flow_detail)
            self._record_atoms(flow_detail)
        self._flush()
        return book

    def destroy_logbook(self, book_uuid: str) -> None:
        self._flush()
        with self._database.transaction() as connection:
            if connection.execute(sa.delete(logbooks).where(logbooks.c.uuid == book_uuid)).rowcount == 0:
                raise exc.NotFound(f"No logbook found with id: {book_uuid}")

    # -- reading

    def get_logbook(self, book_uuid: str, lazy: bool = False) -> details.LogBook:
        query = sa.select(logbooks).where(logbooks.c.uuid == sa.bindparam("its_id"))
        row = self._one(query, "logbook", book_uuid)
        return self._logbook(row, lazy)

    def get_logbooks(self, lazy: bool = False) -> Iterator[details.LogBook]:
        for row in self._all(sa.select(logbooks).order_by(logbooks.c.created_at)):
            yield self._logbook(row, lazy)

    def get_flows_for_book(self, book_uuid: str, lazy: bool = False) -> Iterator[details.FlowDetail]:
        query = sa.select(flows).where(flows.c.logbook == book_uuid).order_by(flows.c.created_at)
        for row in self._all(query):
            yield self._flow(row, lazy)

    def get_flow_details(self, fd_uuid: str, lazy: bool = False) -> details.FlowDetail:
        row = self._one(_flow_of_id(), "flow details", fd_uuid)
        return self._flow(row, lazy)

    def get_atom_details(self, ad_uuid: str) -> details.AtomDetail:
        row = self._one(sa.select(atoms).where(atoms.c.uuid == sa.bindparam("its_id")), "atom details", ad_uuid)
        return self._atom(row)

    def get_atoms_for_flow(self, fd_uuid: str) -> Iterator[details.AtomDetail]:
        for row in self._all(_atoms_of_flow(), its_id=fd_uuid):
            yield self._atom(row)

    # -- inside

    def _record_atoms(self, flow_detail: details.FlowDetail) -> None:
        for position, atom in enumerate(flow_detail):
            if self._recorder.knows_atom(atom.uuid):
                self._recorder.set_atom(atom)
            else:
                self._recorder.add_atom(flow_detail.uuid, position, atom)

    def _settle(self) -> None:
        if self._backend.autocommit:
            self._flush()

    def _flush(self) -> None:
        try:
            self._recorder.flush()
        except (DatabaseError, StaleEpoch) as error:
            raise exc.StorageFailure(str(error)) from error

    def _reading(self) -> Any:
        self._flush()
        return self._database.connect()

    def _all(self, query: sa.Select[Any], **values: Any) -> list[Any]:
        with self._reading() as connection:
            return list(connection.execute(query, values))

    def _one(self, query: sa.Select[Any], kind: str, uuid: str) -> Any:
        """The row of that query for ``its_id``."""
        rows = self._all(query, its_id=uuid)
        if not rows:
            raise exc.NotFound(f"No {kind} found with uuid '{uuid}'")
        return rows[0]

    def _logbook(self, row: Any, lazy: bool) -> details.LogBook:
        book = details.LogBook(row.name, uuid=row.uuid)
        book.meta = row.meta or {}
        book.created_at = _moment(row.created_at)
        if not lazy:
            for flow_detail in self.get_flows_for_book(row.uuid):
                book.add(flow_detail)
        book.updated_at = _moment(row.updated_at)
        return book

    def _flow(self, row: Any, lazy: bool) -> details.FlowDetail:
        flow_detail = details.FlowDetail(row.name, row.uuid)
        flow_detail.state = row.state
        flow_detail.meta = row.meta or {}
        sequence = self._all(_last_of_flow(), its_id=row.uuid)[0][0]
        self._recorder.loaded_flow(row.uuid, 0 if sequence is None else sequence + 1)
        if not lazy:
            for atom in self.get_atoms_for_flow(row.uuid):
                flow_detail.add(atom)
        return flow_detail

    def _atom(self, row: Any) -> details.AtomDetail:
        atom = atom_from_row(row)
        self._recorder.loaded_atom(atom)
        return atom


@cache
def _flow_of_id() -> sa.Select[Any]:
    """This and what follows is put together once: every flow that is gone on with is read so."""
    return sa.select(flows).where(flows.c.uuid == sa.bindparam("its_id"))


@cache
def _atoms_of_flow() -> sa.Select[Any]:
    return sa.select(atoms).where(atoms.c.flow == sa.bindparam("its_id")).order_by(atoms.c.position)


@cache
def _last_of_flow() -> sa.Select[Any]:
    return sa.select(sa.func.max(journal.c.sequence)).where(journal.c.flow == sa.bindparam("its_id"))


def _stamp(moment: datetime.datetime | None) -> int:
    if moment is None:
        return now()
    return int(moment.replace(tzinfo=datetime.UTC).timestamp() * 1_000_000)


def _moment(stamp: int | None) -> datetime.datetime | None:
    if stamp is None:
        return None
    return datetime.datetime.fromtimestamp(stamp / 1_000_000, datetime.UTC).replace(tzinfo=None)


def backend_from_conf(conf: dict[str, Any]) -> FlowBackend:
    """The entry point's factory: ``conf`` has ``url`` (a database URL)."""
    database = Database(conf["url"])
    return FlowBackend(Writer(database), owns_database=True)
