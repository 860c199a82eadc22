"""What one run of an operation has to write, collected until a barrier and then committed at once.

A barrier is the moment before a task's body starts, before the engine blocks, and the end. One commit carries the
atoms' rows, the journal events, the ledger rows and the check that this process still owns the operation. What is
recorded in between is not durable, and nobody outside has been told of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from taskflow.persistence import models

from virtflow.persistence.claim import Claim
from virtflow.persistence.models.base import encode, now
from virtflow.persistence.models.engine import atoms, flows, journal
from virtflow.persistence.rows import ATOM_COLUMNS, AtomRow, atom_kind, atom_row
from virtflow.persistence.writer import Batch, Statement, Writer, fence_statement


class Statements:
    """The statements of the hot path, compiled once per writer."""

    def __init__(self, writer: Writer) -> None:
        self.fence = fence_statement(writer)
        self.add_flow = writer.compile(sa.insert(flows))
        self.set_flow = writer.compile(
            sa.update(flows)
            .where(flows.c.uuid == sa.bindparam("flow_uuid"))
            .values(state=sa.bindparam("new_state"), meta=sa.bindparam("new_meta", type_=sa.Text))
        )
        self.add_atom = writer.compile(sa.insert(atoms))
        self.set_atom = writer.compile(
            sa.update(atoms)
            .where(atoms.c.uuid == sa.bindparam("atom_uuid"))
            .values({column: sa.bindparam(f"new_{column}", type_=sa.Text) for column in ATOM_COLUMNS})
        )
        self.set_meta = writer.compile(
            sa.update(atoms)
            .where(atoms.c.uuid == sa.bindparam("atom_uuid"))
            .values(meta=sa.bindparam("new_meta", type_=sa.Text))
        )
        self.add_event = writer.compile(sa.insert(journal))


class Recorder:
    """Collects the writes of one run. Thread-safe: tasks report progress while the engine schedules others."""

    def __init__(self, writer: Writer, statements: Statements, claim: Claim | None, host: str = "") -> None:
        self.writer = writer
        self.claim = claim
        self.host = host
        self._statements = statements
        self.lock = threading.RLock()
        """Held while details change that were recorded: a commit sees a change wholly or not at all."""
        self._atoms: dict[str, models.AtomDetail] = {}
        self._parents: dict[str, tuple[str, int]] = {}
        self._flows: dict[str, models.FlowDetail] = {}
        self._inserts: Batch = []
        self._events: list[Sequence[Any]] = []
        self._extra: Batch = []
        self._written: dict[str, AtomRow] = {}
        self._sequence: dict[str, int] = {}
        self._told: list[tuple[Callable[[Any], None], Any]] = []
        self._broken: BaseException | None = None
        self.flushed_at = float("-inf")
        """When it last committed (``time.monotonic()``), which is also a sign of life."""

    # -- what is known to be in the database already

    def loaded_flow(self, flow: str, next_sequence: int) -> None:
        """Tell that the flow's row exists and which number its next journal event gets."""
        self._sequence[flow] = next_sequence

    def loaded_atom(self, detail: models.AtomDetail) -> None:
        self._written[detail.uuid] = atom_row(detail)

    def knows_flow(self, flow: str) -> bool:
        return flow in self._sequence

    def knows_atom(self, uuid: str) -> bool:
        return uuid in self._written or uuid in self._parents

    # -- recording

    def add_flow(self, logbook: str, detail: models.FlowDetail) -> None:
        with self.lock:
            self._sequence[detail.uuid] = 0
            row = {"uuid": detail.uuid, "logbook": logbook, "created_at": now(), "name": detail.name}
            row |= {"state": detail.state, "meta": encode(detail.meta) if detail.meta else None}
            self._inserts.append((self._statements.add_flow, _ordered(self._statements.add_flow, row)))

    def add_atom(self, flow: str, position: int, detail: models.AtomDetail) -> None:
        with self.lock:
            self._parents[detail.uuid] = (flow, position)
            self._atoms[detail.uuid] = detail

    def set_flow(self, detail: models.FlowDetail) -> None:
        with self.lock:
            self._flows[detail.uuid] = detail

    def set_atom(self, detail: models.AtomDetail) -> None:
        with self.lock:
            self._atoms[detail.uuid] = detail

    def event(self, flow: str, atom: str | None, event: str, attempt: int, data: str | None = None) -> None:
        """Append to the journal. ``data`` is JSON text."""
        with self.lock:
            sequence = self._sequence.get(flow, 0)
            self._sequence[flow] = sequence + 1
            epoch = self.claim.epoch if self.claim else 0
            # In the order of the table's columns, which is the order of the compiled INSERT.
            self._events.append((flow, sequence, atom, event, attempt, now(), epoch, self.host, data))

    def also(self, statement: Statement, values: Sequence[Any]) -> None:
        """Any other statement that belongs into the next commit (ledger rows, the operation's outcome)."""
        with self.lock:
            self._extra.append((statement, values))

    def progress(self, atom: str, meta: Mapping[str, Any]) -> None:
        """How far a running task is: kept in its row until the row is written for another reason."""
        self.also(self._statements.set_meta, (encode(dict(meta)), atom))

    def after_commit(self, listener: Callable[[Any], None], event: Any) -> None:
        """Call ``listener(event)`` when what was recorded so far is durable."""
        with self.lock:
            self._told.append((listener, event))

    # -- the barrier

    def flush(self) -> None:
        """Commit what was recorded. Nothing recorded: no commit.

        Raises StaleEpoch or DatabaseError; from then on every flush raises the same, so that a run whose state is
        not known to be stored cannot go on.
        """
        with self.lock:
            if self._broken is not None:
                raise self._broken
            batch = self._take()
            if batch:
                try:
                    self.writer.write(batch)
                    self.flushed_at = time.monotonic()
                except BaseException as error:
                    self._broken = error
                    raise
            told, self._told = self._told, []
        for listener, event in told:
            listener(event)

    def _take(self) -> Batch:
        if not (self._atoms or self._flows or self._events or self._extra or self._inserts):
            return []
        statements = self._statements
        batch: Batch = []
        if self.claim is not None:
            batch.append((statements.fence, (self.claim.epoch, self.writer.database.clock.now(), self.claim.subject)))
        batch += self._inserts
        for detail in self._flows.values():
            meta = encode(detail.meta) if detail.meta else None
            batch.append((statements.set_flow, (detail.state, meta, detail.uuid)))
        for uuid, atom in self._atoms.items():
            row = atom_row(atom)
            if self._written.get(uuid) == row:
                continue
            parent = self._parents.pop(uuid, None)
            if parent is None:
                batch.append((statements.set_atom, (*row, uuid)))
            else:
                batch.append((statements.add_atom, (uuid, *parent, atom_kind(atom), atom.name, *row)))
            self._written[uuid] = row
        batch += [(statements.add_event, event) for event in self._events]
        batch += self._extra
        self._inserts, self._atoms, self._flows, self._events, self._extra = [], {}, {}, [], []
        return batch


def _ordered(statement: Statement, row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[column] for column in statement.columns)
