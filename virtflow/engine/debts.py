"""Paying debts: the reverts that would not succeed are tried again, in the order in which they were left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from virtflow.engine.flow_driver import FlowDriver, Templates
from virtflow.engine.run import OperationRun
from virtflow.engine.segments import Segments
from virtflow.errors import HostElsewhere
from virtflow.persistence import ledger as ledger_states
from virtflow.persistence.ledger import Ledger, LedgerRow
from virtflow.persistence.models.engine import journal
from virtflow.tasks.base import Debt, run_revert

if TYPE_CHECKING:
    from virtflow.engine.core import EngineCore


def pay_debts(core: EngineCore, run: OperationRun) -> int:
    """Revert again every task that left a debt, each on its own host; the number of debts that stay."""
    owed = sorted(core.ledger.debts(run.operation), key=lambda row: row.updated_at)
    there = _segments_there(core, run, owed)
    for identity, (kind, host) in there.items():
        try:
            Segments(run, core).undo_there(identity, kind, host)
        except HostElsewhere as error:
            for row in owed:
                if row.flow == identity:
                    core.ledger.settle(identity, row.task, ledger_states.DEBT, str(error))
    _pay_rows(run, core.templates, core.ledger, [row for row in owed if row.flow not in there])
    run.debts = len({(row.flow, row.task) for row in core.ledger.debts(run.operation)})
    return run.debts


def _segments_there(core: EngineCore, run: OperationRun, owed: list[LedgerRow]) -> dict[str, tuple[str, str]]:
    """Kind and host of the segments that were handed over, and of those that another host ran inline, by flow."""
    handed_over = {segment.id: segment for segment in core.segments.of_operation(run.operation)}
    found = {}
    for row in owed:
        if row.flow in handed_over:
            segment = handed_over[row.flow]
            found[row.flow] = segment.kind, segment.host
        elif row.flow not in found and row.flow != run.operation and row.host != run.host:
            driver = FlowDriver.load(run, core.templates, row.flow)
            if driver is not None:
                found[row.flow] = driver.kind.name, row.host
    return found


def pay_flow_debts(run: OperationRun, templates: Templates, ledger: Ledger, flow: str) -> int:
    """Revert again the tasks of one flow; how many debts of it stay."""
    rows = [row for row in ledger.debts(run.operation) if row.flow == flow and row.kind != ledger_states.SEGMENT]
    return _pay_rows(run, templates, ledger, sorted(rows, key=lambda row: row.updated_at))


def _pay_rows(run: OperationRun, templates: Templates, ledger: Ledger, owed: list[LedgerRow]) -> int:
    left = 0
    for flow, task in dict.fromkeys((row.flow, row.task) for row in owed):
        debt = _pay(run, templates, flow, task)
        state = ledger_states.CLEARED if debt is None else ledger_states.DEBT
        ledger.settle(flow, task, state, None if debt is None else debt.error)
        left += debt is not None
    return left


def _pay(run: OperationRun, templates: Templates, flow: str, name: str) -> Debt | None:
    driver = FlowDriver.load(run, templates, flow)
    if driver is None:
        return Debt(error=f"flow {flow} is gone from the database")
    engine = driver.engine
    engine.compile()
    engine.prepare()
    storage = engine.storage
    task = next((atom for atom in driver.template_atoms if atom.name == name), None)
    if task is None:
        return Debt(error=f"task {name} is not in flow {driver.kind.name} any more")
    detail = storage.detail(name)
    activity = driver.flow_run.begin_revert(task, detail.uuid)
    run.recorder.flush()
    result = detail.failure if detail.failure is not None else detail.results
    arguments = storage.recorded_arguments(task.revert_rebind)
    if driver.has_retries:
        arguments |= _as_of_the_debt(run, driver, task)
    debt = run_revert(task, arguments, result, storage.get_failures(), activity, run.revert_policy)
    driver.flow_run.transition(name, "REVERTED", None if debt is None else {"debt": debt.error})
    run.recorder.flush()
    return debt


def _as_of_the_debt(run: OperationRun, driver: FlowDriver, task: Any) -> dict[str, Any]:
    """The arguments with which the task was to be reverted when the debt was left.

    In a flow that goes on with another host, what is recorded by now is of a later attempt: its host is where the guest
    runs, not where the debt is.
    """
    its = journal.c.flow == driver.detail.uuid
    columns = journal.c.sequence, journal.c.atom, journal.c.event, journal.c.data
    with run.recorder.writer.database.connect() as connection:
        events = connection.execute(sa.select(*columns).where(its).order_by(journal.c.sequence)).all()
    left = [each.sequence for each in events if each.atom == task.name and "debt" in (each.data or {})]
    if not left:
        return {}
    results = {
        each.atom: each.data["result"]
        for each in events
        if each.sequence < left[-1] and each.event == "SUCCESS" and "result" in (each.data or {})
    }
    return driver.engine.storage.arguments_from(results, task.revert_rebind)
