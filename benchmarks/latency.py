"""How long after ``submit`` an idle worker begins: from the call to the body of the first task, in another process."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.databases import Databases, databases
from benchmarks.simulated import Simulated, configuration, registry
from benchmarks.table import Target, show, show_targets
from virtflow.persistence import schema
from virtflow.persistence.database import Database
from virtflow.persistence.models.base import now
from virtflow.persistence.models.engine import flows, journal
from virtflow.worker.connecting import connect

_ROOT = Path(__file__).resolve().parent.parent
_WARM_UP = 5
_OPERATIONS = 15
_PATIENCE = 20.0
_LIMIT = 20.0


def latency(rounds: int) -> list[Target]:
    """Operations one at a time, with a pause in between: the worker sleeps when each of them comes."""
    rows, targets = [], []
    with databases() as available:
        for kind in available.kinds:
            whole = _measure(available, kind, "noop", _OPERATIONS * rounds // 2)
            segment = _measure(available, kind, "remote", _OPERATIONS * rounds // 2)
            for what, (submitted, began) in (("first task", whole), ("first task of a segment", segment)):
                row = (f"{statistics.median(each):.1f}" for each in (submitted, began))
                rows.append((f"{kind}: {what}", *row, f"{sorted(began)[len(began) * 9 // 10]:.1f}"))
            if kind == "PostgreSQL":
                text = "submit to first task, PostgreSQL, ms"
                targets.append(Target(text, statistics.median(whole[1]), _LIMIT, most=True))
    show("Milliseconds since submit was called", ("", "submitted", "began", "9 of 10 began within"), rows)
    show_targets(targets)
    return targets


def _measure(available: Databases, database_kind: str, kind: str, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds from the call to its return, and to the beginning of the first task."""
    url = available.fresh(database_kind)
    submitted, began = [], []
    with tempfile.TemporaryDirectory(prefix="vfb-") as directory, _worker(url, directory):
        runner, _board = connect(configuration(url, directory, "client"), registry=registry())
        with runner:
            for _ in range(_WARM_UP + count):
                start = now()
                operation = runner.submit(Simulated(kind, uuid.uuid4().hex, "simulated"))  # type: ignore[arg-type]
                submitted.append((now() - start) / 1000)
                began.append((_begun(runner.database, operation.id) - start) / 1000)
                time.sleep(0.05)
    return submitted[_WARM_UP:], began[_WARM_UP:]


def _begun(database: Database, operation: str) -> int:
    """When the task First began, once the whole operation has ended."""
    its = flows.c.logbook == operation, journal.c.atom == "First", journal.c.event == "RUNNING"
    query: Any = sa.select(journal.c.at).join(flows, flows.c.uuid == journal.c.flow).where(*its)
    give_up = time.monotonic() + _PATIENCE
    while time.monotonic() < give_up:
        time.sleep(0.05)
        with database.connect() as connection:
            found: int | None = connection.execute(query).scalar()
        if found is not None:
            return found
    raise SystemExit(f"operation {operation} was not begun in {_PATIENCE:g} s")


@contextmanager
def _worker(url: str, directory: str) -> Iterator[None]:
    database = Database(url)
    schema.upgrade(database)
    database.close()
    command = [sys.executable, "-m", "benchmarks.latency_worker", url, f"{directory}/worker"]
    process = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise SystemExit("the worker does not start")
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=30)
