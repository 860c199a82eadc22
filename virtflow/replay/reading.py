"""Reads an operation from the database as a recording. Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import sqlalchemy as sa

import virtflow
from virtflow.persistence.database import Database
from virtflow.persistence.models.base import now
from virtflow.persistence.models.engine import atoms, claims, flows, journal, ledger, operations
from virtflow.persistence.operations import Operation, OperationRepository
from virtflow.replay.recording import (
    FORMAT,
    Event,
    GraphNode,
    LedgerEntry,
    RecordedAtom,
    RecordedClaim,
    RecordedFlow,
    RecordedGraph,
    RecordedOperation,
    Recording,
    RelatedOperation,
)

_OPERATION = (
    *("id", "number", "kind", "version", "target", "project", "state", "outcome", "error", "request"),
    *("created_at", "started_at", "finished_at", "parent", "group"),
)
_RELATIVES = 1000
"""Of each relation at most so many are listed."""


def read(database: Database, reference: str) -> Recording:
    """The operation by number, id, unique beginning of an id, or ``--last``. Raises NotFound."""
    operation = OperationRepository(database).get(reference, tasks=False)
    with database.connect() as connection:
        found = _flows(connection, operation.id)
        subjects = [operation.id, *(flow.uuid for flow in found)]
        held = connection.execute(sa.select(claims).where(claims.c.subject.in_(subjects)).order_by(claims.c.subject))
        announced = connection.execute(
            sa.select(ledger).where(ledger.c.operation == operation.id).order_by(ledger.c.id)
        )
        return Recording(
            format=FORMAT,
            virtflow_version=virtflow.__version__,
            exported_at=now(),
            operation=_operation(operation),
            flows=tuple(found),
            ledger=tuple(_entry(row) for row in announced),
            claims=tuple(RecordedClaim(row.subject, row.epoch, row.owner, row.touched_at) for row in held),
            related=tuple(_related(connection, operation)),
        )


def beginning_with(database: Database, reference: str, limit: int) -> list[tuple[int, str, str]]:
    """Operations whose id begins so: number, kind, id."""
    its = operations.c
    query = sa.select(its.number, its.kind, its.id).where(its.id.startswith(reference, autoescape=True))
    with database.connect() as connection:
        return [(row.number, row.kind, row.id) for row in connection.execute(query.order_by(its.number).limit(limit))]


def read_new_events(database: Database, operation: str, seen: Mapping[str, int]) -> list[Event]:
    """The events of an operation (by its full id) after those seen: the last sequence seen, by flow."""
    with database.connect() as connection:
        uuids = connection.execute(sa.select(flows.c.uuid).where(flows.c.logbook == operation)).scalars().all()
        if not uuids:
            return []
        later = sa.or_(*(sa.and_(journal.c.flow == uuid, journal.c.sequence > seen.get(uuid, -1)) for uuid in uuids))
        rows = connection.execute(sa.select(journal).where(later).order_by(journal.c.at, journal.c.sequence))
        return [_event(row) for row in rows]


def _operation(operation: Operation) -> RecordedOperation:
    values = {name: getattr(operation, name) for name in _OPERATION}
    return RecordedOperation(**values, cancel_requested=bool(operation.cancel_requested))


def _flows(connection: sa.Connection, operation: str) -> list[RecordedFlow]:
    own = sa.select(flows).where(flows.c.logbook == operation).order_by(flows.c.created_at)
    rows = connection.execute(own).all()
    uuids = [row.uuid for row in rows]
    by_flow: dict[str, list[RecordedAtom]] = {uuid: [] for uuid in uuids}
    for row in connection.execute(sa.select(atoms).where(atoms.c.flow.in_(uuids)).order_by(atoms.c.position)):
        by_flow[row.flow].append(_atom(row))
    events: dict[str, list[Event]] = {uuid: [] for uuid in uuids}
    for row in connection.execute(sa.select(journal).where(journal.c.flow.in_(uuids)).order_by(journal.c.sequence)):
        events[row.flow].append(_event(row))
    return [_flow(row, by_flow[row.uuid], events[row.uuid]) for row in rows]


def _flow(row: Any, its_atoms: Sequence[RecordedAtom], events: Sequence[Event]) -> RecordedFlow:
    meta = row.meta or {}
    return RecordedFlow(
        uuid=row.uuid,
        kind=meta.get("kind", row.name or ""),
        version=meta.get("version", 0),
        host=meta.get("host"),
        state=row.state,
        created_at=row.created_at,
        inputs=meta.get("inputs", {}),
        graph=_graph(events, its_atoms),
        atoms=tuple(its_atoms),
        events=tuple(events),
    )


def _graph(events: Sequence[Event], its_atoms: Sequence[RecordedAtom]) -> RecordedGraph:
    """As it was recorded when the flow began; of a flow that was stored without one, the tasks that it has."""
    for event in events:
        if event.atom is None and isinstance(event.data, Mapping) and "graph" in event.data:
            plain = event.data["graph"]
            nodes = tuple(_node(node) for node in plain["nodes"])
            return RecordedGraph(nodes, tuple((before, after) for before, after in plain["edges"]))
    return RecordedGraph(tuple(GraphNode(atom.name, atom.kind, atom.version) for atom in its_atoms), (), recorded=False)


def _node(plain: Mapping[str, Any]) -> GraphNode:
    sources = {argument: tuple(providers) for argument, providers in plain["sources"].items()}
    return GraphNode(**{**plain, "sources": sources})


def _atom(row: Any) -> RecordedAtom:
    kind: Literal["task", "retry"] = "task" if row.kind == "TASK_DETAIL" else "retry"
    return RecordedAtom(
        name=row.name,
        kind=kind,
        version=row.version,
        state=row.state or "PENDING",
        intention=row.intention,
        results=row.results,
        failure=row.failure,
        revert_results=row.revert_results,
        revert_failure=row.revert_failure,
        meta=row.meta,
    )


def _event(row: Any) -> Event:
    return Event(row.at, row.flow, row.sequence, row.atom, row.event, row.attempt, row.epoch, row.host, row.data)


def _entry(row: Any) -> LedgerEntry:
    names = ("flow", "task", "kind", "identity", "host", "state", "detail", "error", "attempts")
    return LedgerEntry(**{name: getattr(row, name) for name in (*names, "created_at", "updated_at")})


def _related(connection: sa.Connection, operation: Operation) -> list[RelatedOperation]:
    of = operations.c
    relations: list[tuple[Literal["parent", "child", "group", "later"], Any]] = [
        ("parent", of.id == operation.parent),
        ("child", of.parent == operation.id),
        ("later", sa.and_(of.target == operation.target, of.number > operation.number)),
    ]
    if operation.group is not None:
        relations.append(("group", of.group == operation.group))
    found = []
    for relation, condition in relations:
        query = sa.select(of.id, of.number, of.kind, of.target, of.state, of.outcome)
        query = query.where(condition, of.id != operation.id).order_by(of.number).limit(_RELATIVES)
        found += [RelatedOperation(relation, **row._mapping) for row in connection.execute(query)]
    return found
