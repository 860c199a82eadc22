"""The embedded runner: runs operations in the caller's process. Every verb of the engine is a method."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from virtflow.engine.core import EngineCore
from virtflow.engine.outcome import raise_outcome
from virtflow.engine.purging import OF_INSTANCES, OF_MIGRATIONS, OF_VOLUMES, purge_of
from virtflow.engine.queueing import finish_in_turn, same_request
from virtflow.engine.run import TaskEvent
from virtflow.engine.watcher import driven_in_this_process, driving
from virtflow.errors import AlreadyExists, Busy, Conflict, VirtflowError
from virtflow.flows.registry import Registry
from virtflow.persistence import operations as ops
from virtflow.persistence.claim import Claim
from virtflow.persistence.models.base import now
from virtflow.persistence.operations import Operation, new_operation
from virtflow.persistence.outcome import record_outcome
from virtflow.persistence.posting import OPERATIONS, Posting
from virtflow.persistence.segments import Segment
from virtflow.storage.instance_directory import InstanceDirectories

if TYPE_CHECKING:
    from virtflow.config import Config
    from virtflow.engine.dispatch import Dispatch
    from virtflow.engine.plan import Plan
    from virtflow.engine.services import Services
    from virtflow.requests import Request, SpawnRequest

LOG = logging.getLogger(__name__)
ACCEPT = "Accept"
"""The task at which a submitted operation is put down: what precedes it can refuse the request."""


class Runner:
    """Runs operations. Thread-safe: one runner serves many operations at once.

    ``config`` defaults to what files and environment say. ``on_event`` is called with a TaskEvent when a task has
    changed its state (durably) or got on. ``services`` and ``registry`` replace what is built from the configuration.
    ``dispatch`` reaches the workers: with it, segments of other hosts are handed over, and what is submitted is posted.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        on_event: Callable[[TaskEvent], None] | None = None,
        services: Services | Mapping[str, Any] | None = None,
        registry: Registry | None = None,
        dispatch: Dispatch | None = None,
    ) -> None:
        if config is None:
            from virtflow.config import load

            config = load()
        InstanceDirectories(config.instances.path).prepare()
        self._adopt(EngineCore(config, services, registry, on_event, dispatch))

    @classmethod
    def over(cls, core: EngineCore) -> Self:
        """A runner of what another one has open, and closes."""
        runner = cls.__new__(cls)
        runner._adopt(core)
        return runner

    def _adopt(self, core: EngineCore) -> None:
        self.core = core
        self.config = core.config
        self.database = self.core.database
        self.operations = self.core.operations
        self.ledger = self.core.ledger
        self.services = self.core.services
        self.templates = self.core.templates

    @classmethod
    def from_config(cls, config: Config, on_event: Callable[[TaskEvent], None] | None = None) -> Self:
        return cls(config, on_event=on_event)

    def close(self) -> None:
        """Give back threads and connections. Guests go on running."""
        self.core.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- verbs

    def run(self, request: Request, *, queue: bool = False, key: str | None = None) -> Operation:
        """Run a request to its end. Raises what refused it, OperationFailed, or RevertIncomplete.

        ``queue``: where another operation holds the target, wait for it instead of raising Busy. ``key`` makes the same
        request, however often it comes, one operation; another request with that key is a Conflict.
        """
        operation, claim = self._create(request, None, queue=queue, key=key)
        if claim is None:
            return finish_in_turn(self, operation)
        finished = raise_outcome(*self._begin(operation, claim))
        if operation.kind in (*OF_INSTANCES, *OF_VOLUMES, *OF_MIGRATIONS):
            self._purge_due()
        return finished

    def submit(
        self,
        request: Request,
        *,
        group: str | None = None,
        queue: bool = False,
        key: str | None = None,
        project: str | None = None,
    ) -> Operation:
        """Validate and accept a request, and put it down: somebody resumes it. A bad request is refused here.

        ``group`` is the id under which operations of one request belong together. ``queue`` and ``key`` are those of
        ``run``; what is queued is validated when its turn has come. ``project`` is whose it is, if not the configured.
        """
        operation, claim = self._create(request, group, queue=queue, key=key, project=project)
        if claim is None:
            return operation
        return raise_outcome(*self._begin(operation, claim, until=ACCEPT))

    def submit_group(self, request: SpawnRequest) -> list[Operation]:
        """Accept a request for several instances: an operation each, as many as the quota allows, or none."""
        from virtflow.engine.groups import submit_group

        return submit_group(self, request)

    def run_group(self, request: SpawnRequest) -> list[Operation]:
        """Make several instances; the operations' outcomes tell what became of each. Raises what refused them all."""
        from virtflow.engine.groups import run_group

        return run_group(self, request)

    def resume_group(self, group: str) -> list[Operation]:
        """Go on with what has not finished of a group; all its operations."""
        from virtflow.engine.groups import resume_group

        return resume_group(self, group)

    def resume(self, reference: str) -> Operation:
        """Go on with an operation that is not running any more, in the direction in which it was going.

        A finished operation is returned as it is: nothing is ever run twice by resuming it.
        """
        operation = self.operations.get(reference, tasks=False)
        if operation.state == ops.FINISHED and operation.outcome != ops.FAILED_FORWARD:
            return self.operations.get(operation.id)
        undoing = operation.state == ops.UNDOING
        state = ops.UNDOING if undoing else ops.RUNNING
        return raise_outcome(*self._take_over(operation, state, undoing=undoing))

    def cancel(self, reference: str) -> Operation:
        """Stop an operation and take back what it has made, wherever it is.

        One that runs in another process is asked to; one that nobody runs any more is unwound here.
        """
        operation = self.operations.get(reference, tasks=False)
        kind = self.templates.registry.get(operation.kind, operation.version)
        if operation.state == ops.FINISHED or kind.forward_only:
            reason = "it is past the point of no return" if kind.forward_only else "it has finished: undo it instead"
            raise Conflict(action="cancel", kind="operation", name=operation.id, reason=reason)
        if operation.state == ops.QUEUED:
            return self._withdraw(operation)
        self.operations.request_cancel(operation.id)
        if self.core.watcher.cancel(operation.id) or self._elsewhere(operation) or self._posted(operation):
            return self.operations.get(operation.id)
        finished, _error = self._take_over(operation, ops.RUNNING, cancelled=True)
        return finished

    def undo(self, reference: str) -> Operation:
        """Take back a finished operation, as long as its target has not moved on."""
        operation = self.operations.get(reference, tasks=False)
        self._check_undo(operation)
        return raise_outcome(*self._take_over(operation, ops.UNDOING, undoing=True))

    def request_undo(self, reference: str) -> Operation:
        """Have the workers take back a finished operation; it holds its target from now on."""
        operation = self.operations.get(reference, tasks=False)
        self._check_undo(operation)
        with driving(operation.id, operation):
            run = self.core.operation_run(operation, self._claim(operation, ops.UNDOING))
            self.core.put_down(run, ops.UNDOING, Posting(OPERATIONS, operation.id))
        return self.operations.get(operation.id)

    def retry_revert(self, reference: str) -> Operation:
        """Try again to revert what an operation could not take back."""
        operation = self.operations.get(reference, tasks=False)
        if operation.state != ops.FINISHED:
            raise Conflict(action="retry the revert of", kind="operation", name=operation.id, reason="it is running")
        if not operation.debts and operation.outcome != ops.REVERTED_WITH_DEBT:
            return self.operations.get(operation.id)
        with driving(operation.id, operation):
            self._pay_debts(operation, self._claim(operation, ops.FINISHED))
        return raise_outcome(self.operations.get(operation.id), None, allow=(ops.REVERTED,))

    def plan(self, request: Request) -> Plan:
        """What a request would do: tasks, host, resources, domain XML. Changes nothing."""
        from virtflow.engine.plan import make_plan

        return make_plan(request, self.templates, self.services, self.config, self.operations)

    def purge(self, *, older_than: float | None = None) -> list[Operation]:
        """Remove for good what deletes and confirmed resizes have put in the trash and kept for ``older_than`` seconds.

        Defaults to the configured retention. A purge that was interrupted is gone on with first.
        """
        for stopped in [each for kind in ops.PURGES for each in self.operations.list(kind=kind, limit=1000)]:
            failed = stopped.outcome == ops.FAILED_FORWARD or stopped.state != ops.FINISHED
            if failed and self.core.dispatch is not None:
                self.core.post(Posting(OPERATIONS, stopped.id))
            elif failed and not self._elsewhere(stopped):
                self.resume(stopped.id)
        due = [each for kind in OF_MIGRATIONS for each in self.operations.unpurged(kind, now())]
        for kinds, options in ((OF_INSTANCES, self.config.instances), (OF_VOLUMES, self.config.volumes)):
            retention = options.trash_retention if older_than is None else older_than
            before = now() - int(retention * 1_000_000)
            due += [operation for kind in kinds for operation in self.operations.unpurged(kind, before)]
        return [self.follow_up(each) for each in due]

    def follow_up(self, finished: Operation) -> Operation:
        """Begin the operation that follows on a finished one and only goes forward: its purge, or its cleanup."""
        name, trashed = purge_of(finished, self.operations.results(finished.id))
        kind = self.templates.registry.newest(name)
        target = ops.trash_target(finished.id)
        operation = new_operation(kind.name, kind.version, target, trashed, finished.project, parent=finished.id)
        claim = self.operations.create(operation, self.core.owner)
        if self.core.dispatch is not None:
            run = self.core.operation_run(operation, claim)
            self.core.put_down(run, ops.ACCEPTED, Posting(OPERATIONS, operation.id))
            return self.operations.get(operation.id)
        return raise_outcome(*self._begin(operation, claim))

    def request_attention(self, reference: str) -> Operation:
        """Have the workers do whatever there is to do for an operation: go on with it, or pay its debts."""
        operation = self.operations.get(reference)
        self.core.post(Posting(OPERATIONS, operation.id))
        return operation

    # -- a worker's verbs

    def carry_on(self, reference: str) -> Operation:
        """Do whatever there is to do for an operation: go on with it, or pay its debts. Its outcome is no error here.

        Busy when another process is at work on it.
        """
        operation = self.operations.get(reference, tasks=False)
        if operation.state == ops.FINISHED and operation.outcome != ops.FAILED_FORWARD:
            if operation.debts or operation.outcome == ops.REVERTED_WITH_DEBT:
                with driving(operation.id, operation):
                    self._pay_debts(operation, self._claim(operation, ops.FINISHED))
            return self.operations.get(operation.id, tasks=False)
        if operation.state == ops.HELD:
            return operation
        undoing = operation.state == ops.UNDOING
        state = ops.UNDOING if undoing else ops.RUNNING
        finished, _error = self._take_over(operation, state, undoing=undoing, tasks=False)
        if finished.kind in OF_MIGRATIONS and finished.outcome == ops.SUCCESS and not undoing:
            self._purge_due()
        return finished

    def begin(self, operation: Operation, claim: Claim) -> Operation:
        """Drive an operation that was created just now. Its outcome is no error here."""
        return self._begin(operation, claim)[0]

    def run_segment(self, identity: str) -> Segment:
        """Do what this host was asked for; the segment with its verdict, or as it was put down."""
        return self.core.run_segment(identity)

    def drain(self) -> None:
        """Put down everything that runs here, each operation and segment after the tasks it is at."""
        self.core.drain()

    @property
    def draining(self) -> bool:
        return self.core.draining.is_set()

    # -- inside

    def _withdraw(self, operation: Operation) -> Operation:
        """Cancel what waits for its target, and has done nothing yet. Busy when its turn has just come."""
        with driving(operation.id, operation):
            claim = self.operations.claim(operation, self.core.owner, state=ops.QUEUED)
            run = self.core.operation_run(operation, claim)
            statements = self.core.outcome_statements
            record_outcome(run.recorder, statements, operation.id, ops.FINISHED, ops.CANCELLED, None)
            run.recorder.flush()
        return self.operations.get(operation.id)

    def _elsewhere(self, operation: Operation) -> bool:
        """Whether another process, or another thread of this one, is at work on it."""
        return (operation.running and operation.owner != self.core.owner) or driven_in_this_process(operation.id)

    def _posted(self, operation: Operation) -> bool:
        """Where there are workers, have one stop it; whether there are."""
        if self.core.dispatch is None:
            return False
        self.core.post(Posting(OPERATIONS, operation.id))
        return True

    def _begin(
        self, operation: Operation, claim: Claim, until: str | None = None
    ) -> tuple[Operation, BaseException | None]:
        """Drive a new operation."""
        with driving(operation.id, operation):
            return self.core.drive(operation, claim, until=until)

    def _take_over(
        self, operation: Operation, state: str, *, undoing: bool = False, cancelled: bool = False, tasks: bool = True
    ) -> tuple[Operation, BaseException | None]:
        """Drive an operation that somebody else ran before; Busy while somebody does, in this process too."""
        with driving(operation.id, operation):
            claim = self._claim(operation, state)
            return self.core.drive(operation, claim, undoing=undoing, cancelled=cancelled, tasks=tasks)

    def _claim(self, operation: Operation, state: str) -> Claim:
        return self.operations.claim(operation, self.core.owner, state=state, hold_target=True)

    def _pay_debts(self, operation: Operation, claim: Claim) -> None:
        from virtflow.engine.debts import pay_debts

        run = self.core.operation_run(operation, claim)
        run.undoing = True
        left = pay_debts(self.core, run)
        outcome = operation.outcome
        if outcome == ops.REVERTED_WITH_DEBT and not left:
            outcome = ops.REVERTED
        record_outcome(run.recorder, self.core.outcome_statements, operation.id, ops.FINISHED, outcome, operation.error)
        run.recorder.flush()

    def _purge_due(self) -> None:
        """Purging is nobody's request: what cannot be purged now stays visible, and is purged another time."""
        try:
            self.purge()
        except VirtflowError as error:
            LOG.warning("cannot purge the trash: %s", error)

    def _create(
        self, request: Request, group: str | None, *, queue: bool, key: str | None, project: str | None = None
    ) -> tuple[Operation, Claim | None]:
        """A new operation and the claim to it; no claim where it waits for its target, or has existed before."""
        kind = self.templates.registry.newest(request.kind)
        plain = request.to_plain()
        project = project or self.config.project_name
        existing = None if key is None else self.operations.of_key(project, key)
        if existing is not None:
            return same_request(existing, kind.name, plain), None
        given = (kind.name, kind.version, request.target(), plain, project)
        operation = new_operation(*given, group=group, idempotency_key=key)
        secrets = request.secrets()
        sealed = [self.services["secrets"].seal(operation.id, name, value) for name, value in secrets.items()]
        try:
            if not queue or self.operations.queue_is_empty(operation.target):
                return operation, self.operations.create(operation, self.core.owner, sealed)
        except AlreadyExists:
            assert key is not None  # the same request came twice at once
            existing = self.operations.of_key(project, key)
            assert existing is not None
            return same_request(existing, kind.name, plain), None
        except Busy:
            if not queue:
                raise
        operation = replace(operation, state=ops.QUEUED, started_at=None)
        self.operations.create(operation, None, sealed)
        self.core.post(Posting(OPERATIONS, operation.id, created_at=operation.created_at))
        return self.operations.get(operation.id), None

    def _check_undo(self, operation: Operation) -> None:
        def refuse(reason: str) -> None:
            raise Conflict(action="undo", kind="operation", name=operation.id, reason=reason)

        kind = self.templates.registry.get(operation.kind, operation.version)
        if kind.forward_only:
            refuse("it is past the point of no return")
        if operation.state not in (ops.FINISHED, ops.UNDOING) or (operation.outcome not in (ops.SUCCESS, None)):
            refuse(f"it is {operation.outcome or operation.state}")
        later = self.operations.later_on_target(operation, besides=kind.undone_with_it)
        if later is not None:
            refuse(f"{operation.target} has moved on: operation {later.number} ({later.kind}) came after it")
        if operation.kind not in OF_MIGRATIONS and self.operations.has_purge(operation.id):
            refuse("what it had kept was purged, or is being purged")
        if kind.check_undo is not None:
            reason = kind.check_undo(operation, self.services, self.operations.results(operation.id))
            if reason is not None:
                refuse(reason)
