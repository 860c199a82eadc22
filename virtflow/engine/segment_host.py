"""The host's side of a segment that was handed over: run it or undo it, and write the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtflow.engine.core import left_unfinished
from virtflow.engine.debts import pay_flow_debts
from virtflow.engine.flow_driver import FlowDriver
from virtflow.engine.run import OperationRun
from virtflow.engine.watcher import driving
from virtflow.persistence import ledger, segments
from virtflow.persistence.segments import Segment

if TYPE_CHECKING:
    from virtflow.engine.core import EngineCore


def run_segment(core: EngineCore, identity: str) -> Segment:
    """Do what was asked of this host; the segment afterwards, ended or (when this process is drained) put down.

    NotFound; Busy when another process is at work on it.
    """
    segment = core.segments.get(identity)
    if segment.ended or segment.host != core.config.host:
        return segment
    operation = core.operations.get(segment.operation, tasks=False)
    with driving(identity, operation):
        run = core.operation_run(operation, core.segments.claim(segment, core.owner))
        run.undoing = segment.verb == segments.UNDO
        if operation.cancel_requested and not run.undoing:
            run.cancel.set()
        with core.running(run), core.alone(identity, run):
            (_undo if run.undoing else _run)(core, run, segment)
    return core.segments.get(identity)


def _run(core: EngineCore, run: OperationRun, segment: Segment) -> None:
    driver = FlowDriver.load(run, core.templates, segment.id)
    if driver is None:
        kind = core.templates.registry.newest(segment.kind)
        driver = FlowDriver.create(run, core.templates, kind, segment.id, segment.inputs)
    error = core.advance(run, driver)
    answer = core.segment_statements.answer
    if left_unfinished(run, driver, error):
        answer(run.recorder, segment, segments.REQUESTED)
    elif driver.finished:
        answer(run.recorder, segment, segments.DONE, outputs=driver.results())
    else:
        elsewhere = bool(getattr(error, "retry_elsewhere", True)) and not run.cancel.is_set()
        told = run.first_failure or "it was taken back before it had got anywhere"
        answer(run.recorder, segment, segments.FAILED, error=told, retry_elsewhere=elsewhere, debts=run.debts)
    run.recorder.flush()


def _undo(core: EngineCore, run: OperationRun, segment: Segment) -> None:
    driver = FlowDriver.load(run, core.templates, segment.id)
    error = None if driver is None else core.advance(run, driver)
    answer = core.segment_statements.answer
    if driver is not None and left_unfinished(run, driver, error):
        answer(run.recorder, segment, segments.REQUESTED)
    else:
        debts = pay_flow_debts(run, core.templates, core.ledger, segment.id)
        ledger.record_payment(run.recorder, run.ledger, segment.id, segment.kind)
        answer(run.recorder, segment, segments.UNDONE, debts=debts)
    run.recorder.flush()
