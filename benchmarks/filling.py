"""A database with a past: finished operations with everything that is recorded of them."""

from __future__ import annotations

import itertools
import json
import random
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from virtflow.persistence.database import Database
from virtflow.persistence.models.base import now
from virtflow.persistence.models.decisions import decisions
from virtflow.persistence.models.engine import atoms, claims, flows, journal, ledger, logbooks, operations
from virtflow.persistence.models.inventory import instances
from virtflow.persistence.models.segments import segments

_DAY = 86_400_000_000
_BATCH = 5000
EVENTS = 10
"""Rows of the journal per operation."""
_ATOMS = 4
_THINGS = 5

Row = tuple[Any, ...]


def fill(database: Database, count: int, *, days: float = 30.0, owing: int = 0) -> None:
    """``count`` operations (a third each: spawn, delete, purge) that ended in the last ``days``; one in ``owing`` owes
    something, where that is not 0."""
    chance = random.Random(1)
    moment = now()
    ids = [str(uuid.UUID(int=chance.getrandbits(128), version=4)) for _ in range(count)]
    times = [moment - int(days * _DAY * (count - number) / count) for number in range(count)]
    _load(database, operations, (_operation(n, ids, at, owing) for n, at in enumerate(times)))
    _load(database, logbooks, ((i, None, None, at, None) for i, at in zip(ids, times, strict=True)))
    _load(database, flows, ((i, i, at, "spawn", "SUCCESS", "{}") for i, at in zip(ids, times, strict=True)))
    atom = (None, "SUCCESS", "EXECUTE", "{}", "null", None, None, None)
    _load(
        database,
        atoms,
        (
            (str(uuid.UUID(int=chance.getrandbits(128))), i, n, "TASK", f"Task{n}", *atom)
            for i in ids
            for n in range(_ATOMS)
        ),
    )
    _load(
        database,
        journal,
        (
            (i, n, f"Task{n // 2}", "SUCCESS" if n % 2 else "RUNNING", 1, at + n, 1, "host-0001", None)
            for i, at in zip(ids, times, strict=True)
            for n in range(EVENTS)
        ),
    )
    things = itertools.count(1)
    _load(
        database,
        ledger,
        (
            (
                next(things),
                i,
                i,
                f"Task{n}",
                "file",
                f"{i}/{n}",
                "host-0001",
                _thing(number, n, owing),
                None,
                None,
                1,
                at,
                at,
            )
            for number, (i, at) in enumerate(zip(ids, times, strict=True))
            for n in range(_THINGS)
        ),
    )
    segment = ("spawn.host", "host-0001", "RUN", "DONE", "{}", "{}", None, True, 0)
    _load(
        database,
        segments,
        ((_second(i), i, *segment, at, at) for i, at in zip(ids, times, strict=True)),
    )
    _load(database, claims, ((s, 1, None, at) for i, at in zip(ids, times, strict=True) for s in (i, _second(i))))
    document = json.dumps({"chosen": "host-0001", "alternates": [], "passed": {"host-0001": 1.0}, "refused": {}})
    _load(
        database,
        decisions,
        ((n + 1, i, 1, at, "host-0001", document) for n, (i, at) in enumerate(zip(ids, times, strict=True))),
    )
    _load(database, instances, (_instance(n, i, at) for n, (i, at) in enumerate(zip(ids, times, strict=True))))
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(
            "ANALYZE" if database.dialect != "mysql" else "ANALYZE TABLE operations, ledger, claims"
        )


def accept(database: Database, count: int, first_number: int) -> None:
    """``count`` operations that were accepted a minute ago, and that nobody has begun: a backlog."""
    at = now() - 60_000_000
    ids = [str(uuid.uuid4()) for _ in range(count)]
    rows = (_row("spawn", "ACCEPTED", None, first_number + n, i, at, None) for n, i in enumerate(ids))
    _load(database, operations, rows)
    _load(database, claims, ((i, 1, None, at) for i in ids))


def _operation(number: int, ids: Sequence[str], at: int, owing: int) -> Row:
    kind = ("spawn", "delete", "purge")[number % 3]
    outcome = "REVERTED_WITH_DEBT" if _owes(number, owing) else "SUCCESS"
    parent = ids[number - 1] if kind == "purge" else None
    return _row(kind, "FINISHED", outcome, number + 1, ids[number], at, at + 1_000_000, parent)


def _row(
    kind: str,
    state: str,
    outcome: str | None,
    number: int,
    identity: str,
    at: int,
    ended: int | None,
    parent: str | None = None,
) -> Row:
    values = {"id": identity, "number": number, "kind": kind, "version": 1, "target": f"instance:vm{number}"}
    values |= {"request": "{}", "project": "p", "state": state, "outcome": outcome, "cancel_requested": 0}
    values |= {"created_at": at, "started_at": at, "finished_at": ended, "parent": parent}
    return tuple(values.get(column.name) for column in operations.columns)


def _thing(number: int, which: int, owing: int) -> str:
    return "DEBT" if _owes(number, owing) and not which else "PRESENT"


def _owes(number: int, owing: int) -> bool:
    return owing > 0 and number % owing == owing - 1


def _instance(number: int, operation: str, at: int) -> Row:
    dead = number % 2 != 0
    values = {"uuid": _second(operation), "name": f"vm{number}", "live_name": None if dead else f"vm{number}"}
    values |= {"project": "p", "host": "host-0001", "vm_state": "ACTIVE", "vcpus": 1, "memory_mib": 1, "disk_gib": 1}
    values |= {"meta": "{}", "operation": operation, "created_at": at, "deleted_at": at if dead else None}
    return tuple(values.get(column.name) for column in instances.columns)


def _second(identity: str) -> str:
    """Another id that follows from one."""
    return identity[::-1].replace("-", "")[:32].ljust(36, "0")


def _load(database: Database, table: sa.Table, rows: Iterator[Row]) -> None:
    names = ", ".join(
        f'"{column.name}"' if database.dialect != "mysql" else f"`{column.name}`" for column in table.columns
    )
    connection: Any = database.engine.raw_connection()
    try:
        cursor = connection.cursor()
        if database.dialect == "postgresql":
            with cursor.copy(f"COPY {table.name} ({names}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
            _count_on(cursor, table)
        else:
            mark = "?" if database.dialect == "sqlite" else "%s"
            if database.dialect == "sqlite":
                cursor.execute("BEGIN")
            marks = ", ".join(mark for _ in table.columns)
            for batch in _batches(rows):
                cursor.executemany(f"INSERT INTO {table.name} ({names}) VALUES ({marks})", batch)
        connection.commit()
    finally:
        connection.close()


def _count_on(cursor: Any, table: sa.Table) -> None:
    """PostgreSQL does not notice that a number was taken which it has not given."""
    column = table.autoincrement_column
    if column is not None:
        highest = f"SELECT coalesce(max({column.name}), 1) FROM {table.name}"
        cursor.execute(f"SELECT setval(pg_get_serial_sequence('{table.name}', '{column.name}'), ({highest}))")


def _batches(rows: Iterator[Row]) -> Iterator[Sequence[Row]]:
    while batch := list(itertools.islice(rows, _BATCH)):
        yield batch
