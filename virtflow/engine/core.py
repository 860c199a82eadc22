"""What all verbs of a runner share: the database, what is compiled for it, threads, services; and driving a flow."""

from __future__ import annotations

import threading
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from virtflow.activity import Activity, RunSuspended
from virtflow.engine.answers import Answers
from virtflow.engine.child_operations import ChildOperations
from virtflow.engine.dispatch import Dispatch
from virtflow.engine.flow_driver import FlowDriver, Templates
from virtflow.engine.outcome import failure_of
from virtflow.engine.run import OperationRun, TaskEvent
from virtflow.engine.segments import Segments
from virtflow.engine.verdict import verdict
from virtflow.engine.watcher import RunWatcher
from virtflow.errors import DatabaseError, FlowChanged, StaleEpoch, UnknownFlow
from virtflow.files.lock import hold_passing
from virtflow.flows.registry import Registry, default_registry
from virtflow.persistence import operations as ops
from virtflow.persistence import schema
from virtflow.persistence.backend import FlowBackend
from virtflow.persistence.changes import SqliteChanges
from virtflow.persistence.claim import Claim, owner_here
from virtflow.persistence.database import Database
from virtflow.persistence.hosts import HostRepository
from virtflow.persistence.job_news import news_of
from virtflow.persistence.ledger import Ledger, LedgerStatements
from virtflow.persistence.operations import Operation, OperationRepository
from virtflow.persistence.outcome import OutcomeStatements, record_outcome
from virtflow.persistence.posting import OPERATIONS, Posting
from virtflow.persistence.recorder import Recorder, Statements
from virtflow.persistence.segments import Segment, SegmentRepository, SegmentStatements
from virtflow.persistence.writer import Writer
from virtflow.redaction import scrub
from virtflow.tasks.base import RevertPolicy

if TYPE_CHECKING:
    from virtflow.config import Config
    from virtflow.engine.services import Services

UNJUDGED = (StaleEpoch, DatabaseError, FlowChanged, UnknownFlow)
"""After these an operation is as it is stored, and who can, resumes it: nothing is concluded."""


class EngineCore:
    """One per runner. Thread-safe."""

    def __init__(
        self,
        config: Config,
        services: Services | Mapping[str, Any] | None,
        registry: Registry | None,
        on_event: Callable[[TaskEvent], None] | None,
        dispatch: Dispatch | None,
    ) -> None:
        self.config = config
        self.on_event = on_event
        self.dispatch = dispatch
        self.database = Database(config.database.url, busy_timeout=config.database.busy_timeout)
        self._ensure_schema()
        if services is None:
            from virtflow.engine.services import Services

            services = Services(config, self.database)
        self.services = services
        self.lease = config.jobboard.lease
        self.writer = Writer(self.database, patience=config.database.busy_timeout)
        self.operations = OperationRepository(self.database, self.writer, lease=self.lease)
        self.segments = SegmentRepository(self.database, lease=self.lease)
        changes = SqliteChanges(self.database) if self.database.dialect == "sqlite" else None
        self.answers = Answers(self.segments, news_of(self.database), changes)
        self.hosts = HostRepository(self.database)
        self.ledger = Ledger(self.database)
        self.templates = Templates(registry or default_registry())
        self.owner = owner_here(config.host)
        self.statements = Statements(self.writer)
        self.ledger_statements = LedgerStatements(self.writer)
        self.outcome_statements = OutcomeStatements(self.writer)
        self.segment_statements = SegmentStatements(self.writer)
        self.pool = ThreadPoolExecutor(config.engine.threads, thread_name_prefix="virtflow-task")
        self.watcher = RunWatcher(self.operations, self.lease)
        self.draining = threading.Event()
        self.closers: list[Callable[[], None]] = []
        """What is closed together with this, before the database is."""
        self._locks = config.instances.path / "locks"

    def _ensure_schema(self) -> None:
        try:
            schema.ensure(self.database)
        except BaseException:
            self.database.close()
            raise

    def close(self) -> None:
        for closer in self.closers:
            closer()
        self.answers.close()
        self.watcher.close()
        self.pool.shutdown(wait=True)
        self.writer.close()
        close = getattr(self.services, "close", None)
        if close is not None:
            close()
        self.database.close()

    def operation_run(self, operation: Operation, claim: Claim) -> OperationRun:
        """A run of the operation, or of the segment that ``claim`` is for, by this process."""
        recorder = Recorder(self.writer, self.statements, claim, self.config.host)
        run = OperationRun(
            operation=operation.id,
            claim=claim,
            host=self.config.host,
            recorder=recorder,
            ledger=self.ledger_statements,
            backend=FlowBackend(self.writer, recorder),
            pool=self.pool,
            services={},
            revert_policy=RevertPolicy(self.config.engine.revert_attempts, self.config.engine.revert_backoff),
            timeouts=self.config.tasks.seconds(),
            progress_interval=self.config.engine.progress_interval,
            listener=self.on_event,
        )
        of_run = {"segments": Segments(run, self), "child_operations": ChildOperations(run, self)}
        run.services = ChainMap(of_run, self.services)  # type: ignore[arg-type]
        return run

    # -- driving an operation

    def drive(
        self,
        operation: Operation,
        claim: Claim,
        *,
        until: str | None = None,
        undoing: bool = False,
        cancelled: bool = False,
        tasks: bool = True,
    ) -> tuple[Operation, BaseException | None]:
        """Run or undo an operation that this process has claimed; how it ended, and with which error.

        ``tasks``: the operation is wanted with its tasks, which have to be read.
        """
        run = self.operation_run(operation, claim)
        run.undoing = undoing
        run.debts = operation.debts
        if cancelled or operation.cancel_requested:
            run.cancel.set()
        with self.running(run):
            driver = self.parent(run, operation)
            error = self.advance(run, driver, until=until)
            if error is None and until is not None and not driver.finished:
                posting = Posting(OPERATIONS, operation.id, created_at=operation.created_at)
                self.put_down(run, ops.ACCEPTED, posting)
            elif left_unfinished(run, driver, error):
                self.put_down(run, ops.UNDOING if undoing else ops.RUNNING)
            else:
                self.conclude(run, driver)
        return self.operations.get(operation.id, tasks=tasks), error

    @contextmanager
    def running(self, run: OperationRun) -> Iterator[None]:
        """Watch over the run, and put it down when this process is drained, while the block runs."""
        with self.watcher.watching(run):
            if self.draining.is_set():
                run.suspend.set()
            yield

    def drain(self) -> None:
        """Put down everything that runs in this process, each run after the tasks it is at; nothing new gets far."""
        self.draining.set()
        for run in self.watcher.running():
            run.suspend.set()

    @contextmanager
    def alone(self, identity: str, run: OperationRun) -> Iterator[None]:
        """Work on a segment on this host while the block runs, alone among all processes of the host.

        Whoever had it before may be fenced off, and yet in the middle of a task: he is waited for.
        """
        with hold_passing(self._locks / f"segment-{identity}.lock", _Waiting(run)):
            yield

    def why_silent(self, host: str) -> str | None:
        """Why nothing can be expected of a host at present; None when it is up."""
        return self.hosts.why_silent(host, self.config.worker.host_down_after)

    def run_segment(self, identity: str) -> Segment:
        from virtflow.engine.segment_host import run_segment

        return run_segment(self, identity)

    def advance(self, run: OperationRun, driver: FlowDriver, *, until: str | None = None) -> Exception | None:
        """Run or undo a flow as far as it goes; what failed, taken back already. Raises what nobody can judge."""
        try:
            if run.undoing:
                driver.undo()
            elif not driver.finished:
                driver.run(until=until)
        except UNJUDGED:
            raise
        except Exception as raised:  # noqa: BLE001 - judged by what is left
            driver.settle()
            run.first_failure = run.first_failure or scrub(f"{type(raised).__name__}: {raised}")
            return raised
        return None

    def conclude(self, run: OperationRun, driver: FlowDriver) -> None:
        outcome = verdict(
            driver.atoms,
            debts=run.debts,
            cancelled=run.cancel.is_set() or (not driver.finished and self._asked_to_cancel(run)),
            undoing=run.undoing,
            forward_only=driver.kind.forward_only,
        )
        error = None if outcome in (ops.SUCCESS, ops.UNDONE) else run.first_failure
        record_outcome(run.recorder, self.outcome_statements, run.operation, ops.FINISHED, outcome, error)
        run.recorder.flush()

    def _asked_to_cancel(self, run: OperationRun) -> bool:
        """A host may have seen the request, and have its segment failed by it, before the parent's watcher looked."""
        return bool(self.operations.cancelled([run.operation]))

    def put_down(self, run: OperationRun, state: str, posting: Posting | None = None) -> None:
        """Leave the operation to others, and tell them."""
        record_outcome(run.recorder, self.outcome_statements, run.operation, state, None, None)
        if self.dispatch is not None and posting is not None:
            for statement, values in self.dispatch.joined(posting):
                run.recorder.also(statement, values)
        run.recorder.flush()
        if self.dispatch is not None and posting is not None:
            self.dispatch.posted(posting)

    def post(self, posting: Posting) -> None:
        """Tell the workers, without anything that would have to be committed with it."""
        if self.dispatch is not None:
            batch = self.dispatch.joined(posting)
            if batch:
                self.writer.write(batch)
            self.dispatch.posted(posting)

    def parent(self, run: OperationRun, operation: Operation) -> FlowDriver:
        flow_ids = self.operations.flow_ids(operation.id) if operation.number else []
        if flow_ids:
            if operation.state != ops.ACCEPTED:  # what was only accepted has not failed anywhere
                run.first_failure = failure_of(self.database, operation.id)
            driver = FlowDriver.load(run, self.templates, flow_ids[0][0])
            assert driver is not None
            return driver
        kind = self.templates.registry.get(operation.kind, operation.version)
        return FlowDriver.create(run, self.templates, kind, operation.id, kind.inputs(operation))


def left_unfinished(run: OperationRun, driver: FlowDriver, error: Exception | None) -> bool:
    """Whether the run was put down on the way, rather than having got anywhere."""
    taken_back = driver.untouched and (run.undoing or error is not None)
    return run.suspend.is_set() and not driver.finished and not taken_back


class _Waiting(Activity):
    """A wait that ends when the run is put down."""

    def __init__(self, run: OperationRun) -> None:
        super().__init__("waiting for the segment's lock")
        self._run = run

    def check(self) -> None:
        if self._run.suspend.is_set():
            raise RunSuspended
