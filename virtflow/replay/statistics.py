"""How the tasks of a kind of operation have done: how often, how often they failed, and how long they took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from virtflow.errors import NotFound
from virtflow.persistence.database import Database
from virtflow.persistence.models.engine import flows, journal, operations

_ENDS = ("SUCCESS", "FAILURE")


@dataclass(frozen=True)
class TaskStatistics:
    """``count`` are the executes that came to an end; times in milliseconds, None where there was none."""

    flow: str
    task: str
    count: int
    failures: int
    reverts: int
    p50_ms: float | None
    p95_ms: float | None


@dataclass
class _Tally:
    failures: int = 0
    reverts: int = 0
    spent: list[int] = field(default_factory=list)


def statistics(database: Database, kind: str) -> list[TaskStatistics]:
    """Of all operations of a kind, in the order in which their tasks first started. NotFound where there is none.

    An execute that was interrupted and begun again counts once, from its last start.
    """
    query = (
        sa.select(journal.c.flow, flows.c.name, journal.c.atom, journal.c.event, journal.c.at)
        .join(flows, flows.c.uuid == journal.c.flow)
        .join(operations, operations.c.id == flows.c.logbook)
        .where(operations.c.kind == kind, journal.c.atom.is_not(None))
        .order_by(operations.c.number, journal.c.flow, journal.c.sequence)
    )
    tallies: dict[tuple[str, str], _Tally] = {}
    begun: dict[tuple[str, str], int] = {}
    first: dict[tuple[str, str], int] = {}
    with database.connect() as connection:
        for row in connection.execute(query):
            tally = tallies.setdefault((row.name, row.atom), _Tally())
            if row.event == "RUNNING":
                begun[row.flow, row.atom] = row.at
                first.setdefault((row.name, row.atom), row.at)
            elif row.event in _ENDS and (since := begun.pop((row.flow, row.atom), None)) is not None:
                tally.spent.append(max(0, row.at - since))
                tally.failures += row.event == "FAILURE"
            tally.reverts += row.event == "REVERTED"
    if not tallies:
        raise NotFound(kind="operation of kind", name=kind)
    order = sorted(tallies, key=lambda key: first.get(key, 1 << 62))
    return [_statistics(flow, task, tallies[flow, task]) for flow, task in order]


def _statistics(flow: str, task: str, tally: _Tally) -> TaskStatistics:
    spent = sorted(tally.spent)
    times = _percentile(spent, 50), _percentile(spent, 95)
    return TaskStatistics(flow, task, len(spent), tally.failures, tally.reverts, *times)


def _percentile(ordered: Sequence[int], percent: int) -> float | None:
    """The nearest rank: a time that was really taken."""
    if not ordered:
        return None
    return round(ordered[max(0, -(-len(ordered) * percent // 100) - 1)] / 1000, 3)
