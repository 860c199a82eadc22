"""virtflow: the engine and its backend, with fence and journal as in production; and whole operations of a Runner."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.systems import RunFlows
from benchmarks.systems.taskflow_stock import linear
from virtflow.config import load
from virtflow.engine.flow_driver import FlowDriver, Templates
from virtflow.engine.run import OperationRun
from virtflow.engine.runner import Runner
from virtflow.flows.kind import FlowKind
from virtflow.flows.registry import Registry
from virtflow.persistence import schema
from virtflow.persistence.backend import FlowBackend
from virtflow.persistence.claim import owner_here
from virtflow.persistence.database import Database
from virtflow.persistence.ledger import LedgerStatements
from virtflow.persistence.operations import OperationRepository, new_operation
from virtflow.persistence.outcome import OutcomeStatements, record_outcome
from virtflow.persistence.recorder import Recorder, Statements
from virtflow.persistence.writer import Writer
from virtflow.tasks.base import Task


class Step(Task):
    def execute(self, x: int) -> int:
        return x


class LineRequest:
    """Asks for a line of steps. A target of its own each time, so that any number can run at once."""

    kind = "line"

    def target(self) -> str:
        return f"line:{uuid.uuid4()}"

    def to_plain(self) -> dict[str, Any]:
        return {"x": 1}

    def secrets(self) -> Mapping[str, str]:
        return {}


def kind_of_line(tasks: int) -> FlowKind:
    return FlowKind("line", 1, lambda _shape: linear(Step, tasks), inputs=lambda _operation: {"x": 1})


def prepare(url: str, tasks: int) -> RunFlows:
    """The engine on an operation that exists: claim and fence, journal, the operation's end; without its making."""
    database = Database(url)
    schema.upgrade(database)
    writer = Writer(database)
    statements, ledger, outcomes = Statements(writer), LedgerStatements(writer), OutcomeStatements(writer)
    kind = kind_of_line(tasks)
    templates = Templates(Registry((kind,)))
    operations = OperationRepository(database, writer)
    pool = ThreadPoolExecutor(8)
    owner = owner_here("host")

    def run_one(_number: int) -> None:
        operation = new_operation("line", 1, f"line:{uuid.uuid4()}", {}, "default")
        claim = operations.create(operation, owner)
        recorder = Recorder(writer, statements, claim, "host")
        backend = FlowBackend(writer, recorder)
        run = OperationRun(operation.id, claim, "host", recorder, ledger, backend, pool, {})
        FlowDriver.create(run, templates, kind, operation.id, {"x": 1}).run()
        record_outcome(recorder, outcomes, operation.id, "FINISHED", "SUCCESS", None)
        recorder.flush()

    return _in_flight(run_one)


def prepare_operations(url: str, tasks: int) -> RunFlows:
    """``Runner.run`` as an embedder calls it: creates the operation, runs it, judges it and reads it back."""
    schema.upgrade(Database(url))
    config = load(overrides={"database.url": url}, env={})
    runner = Runner(config, registry=Registry((kind_of_line(tasks),)), services={})

    def run_one(_number: int) -> None:
        assert runner.run(LineRequest()).outcome == "SUCCESS"  # type: ignore[arg-type]

    return _in_flight(run_one)


def _in_flight(run_one: Any) -> RunFlows:
    def run(flows: int, in_flight: int) -> None:
        with ThreadPoolExecutor(in_flight) as pool:
            list(pool.map(run_one, range(flows)))

    return run
