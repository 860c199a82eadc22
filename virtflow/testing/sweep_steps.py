"""What one process of a case does: run, resume, look at the world, undo, look again. Called in forked children."""

from __future__ import annotations

import base64
import faulthandler
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from virtflow import faults
from virtflow.engine.audit import audit_of
from virtflow.engine.runner import Runner
from virtflow.errors import VirtflowError
from virtflow.persistence import operations as ops
from virtflow.persistence.operations import Operation
from virtflow.redaction import RedactingFilter
from virtflow.testing.residue import Residue
from virtflow.testing.scenario import Scenario
from virtflow.testing.sweep_cases import Case, tasks_of
from virtflow.testing.throwaway_host import ThrowawayHost

CLEAN = (ops.REVERTED, ops.CANCELLED, ops.UNDONE)
_SHOWN = 20
"""How many differences are listed."""


@dataclass(frozen=True)
class World:
    """A prepared host, what it is like before every case, and after an operation in which nothing went wrong."""

    host: ThrowawayHost
    before: Residue
    done: Residue
    number: int

    @classmethod
    def from_plain(cls, host: ThrowawayHost, plain: dict[str, Any]) -> Self:
        return cls(host, Residue(frozenset(plain["before"])), Residue(frozenset(plain["done"])), plain["number"])

    def after(self, report: Report) -> World:
        """The world for the next case: operations that are known by now are not that one's."""
        return replace(self, number=max(self.number, report.number))


@dataclass(frozen=True)
class Report:
    """What the last process of a case found. ``number`` is that of the newest operation."""

    outcome: str | None = None
    problems: tuple[str, ...] = ()
    met: bool = False
    writes: int = 0
    number: int = 0

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Self:
        return cls(**{**plain, "problems": tuple(plain["problems"])})

    def with_problem(self, problem: str) -> Report:
        return replace(self, problems=(*self.problems, problem))


def prepare_world(scenario: Scenario, host: ThrowawayHost) -> dict[str, Any]:
    """Furnish the host, and run the operation once in peace: the measure for all cases."""
    _log_to(host)
    known = set(sys.modules)
    with scenario.make_runner(host) as runner:
        host.furnish(runner)
        scenario.prepare(runner)
        before = Residue.around(runner)
        operation = _purge(scenario, runner) if scenario.purge else runner.run(scenario.request())
        done = Residue.around(runner).renamed(scenario.identities(operation.id))
        _check_shapes(scenario, operation)
        if not scenario.purge:
            runner.undo(operation.id)
        left = before.difference(Residue.around(runner))
        if left:
            raise RuntimeError(f"undone in peace, it still leaves: {left}")
        return {
            "before": sorted(before.lines),
            "done": sorted(done.lines),
            "number": operation.number,
            "modules": sorted(set(sys.modules) - known),
        }


def _check_shapes(scenario: Scenario, operation: Operation) -> None:
    swept = {task.task for task in tasks_of(scenario)}
    run = {task.name for task in operation.tasks}
    if swept != run:
        raise RuntimeError(f"the scenario's shapes are not those of its request: {sorted(swept ^ run)}")


def try_case(scenario: Scenario, world: World, case: Case, step: int, specification: str) -> dict[str, Any]:
    """One process: with faults it may not come back. What it found when it does."""
    _log_to(world.host)
    with scenario.make_runner(world.host) as runner:
        raised: Exception | None = None
        points = faults.parse(specification)
        try:
            if step == 0:
                _first(scenario, runner, points)
            else:
                _again(scenario, runner, world, case, points)
        except Exception as error:  # noqa: BLE001 - judged below
            raised = error
        newest = _newest(scenario, runner, world.number)
        report = Report(number=newest.number if newest else world.number, outcome=newest.outcome if newest else None)
        if points is not None:
            report = replace(report, writes=points.writes, met=not points.unreached())
        problems = list(_judge(scenario, runner, world, case, newest, raised))
        if points is not None and points.unreached() and not case.optional:
            problems.append(f"never met: {', '.join(points.unreached())}")
        problems += _readable_secrets(scenario, world.host, raised)
        return asdict(replace(report, problems=tuple(problems)))


def _first(scenario: Scenario, runner: Runner, points: faults.FaultPoints | None) -> None:
    if scenario.undo:
        operation = runner.run(scenario.request())
        with faults.armed(points):
            runner.undo(operation.id)
    elif scenario.purge:
        _purge(scenario, runner, points)
    else:
        with faults.armed(points):
            runner.run(scenario.request())


def _purge(scenario: Scenario, runner: Runner, points: faults.FaultPoints | None = None) -> Operation:
    """Put something into the trash in peace, and purge it; the purge."""
    assert scenario.purge is not None
    scenario.purge(runner)
    runner.run(scenario.request())
    with faults.armed(points):
        (purged,) = runner.purge(older_than=0)
    return purged


def _again(scenario: Scenario, runner: Runner, world: World, case: Case, points: faults.FaultPoints | None) -> None:
    operation = _newest(scenario, runner, world.number)
    if operation is None:
        return  # killed before it was even created
    if case.then == "cancel" and operation.state == ops.FINISHED:
        return  # killed when it was through
    with faults.armed(points):
        getattr(runner, case.then)(operation.id)


def _newest(scenario: Scenario, runner: Runner, known: int) -> Operation | None:
    """The operation that is tried; those that are a step of it are none of the sweep's business."""
    newest = runner.operations.list(kind=scenario.kind, limit=1)
    return newest[0] if newest and newest[0].number > known else None


def _judge(
    scenario: Scenario, runner: Runner, world: World, case: Case, operation: Operation | None, raised: Exception | None
) -> Iterator[str]:
    """Everything that is wrong; leaves the world as it was before the case if nothing is."""
    if raised is not None and not isinstance(raised, VirtflowError):
        yield f"raised {type(raised).__name__}: {raised}"
    if operation is None:
        if not case.optional:
            yield "there is no operation"
        yield from _not_as_before(runner, world)
        return
    outcome = operation.outcome
    # A kill before the first write of an undo, or after the last one of a run, leaves the operation done: then it is,
    # and is undone below.
    done = case.optional and outcome == ops.SUCCESS and (scenario.undo or case.then == "cancel")
    if outcome != case.outcome and not done:
        yield f"ended {operation.state} {outcome}, not {case.outcome}: {operation.error}; raised {raised!r}"
    if raised is not None and outcome in (ops.SUCCESS, ops.UNDONE):
        yield f"is {outcome}, but raised {raised}"
    if outcome == ops.REVERTED_WITH_DEBT:
        if not any(finding.kind == "debt" for finding in audit_of(runner)):
            yield "the audit does not tell of the debt"
        outcome = runner.retry_revert(operation.id).outcome
    if scenario.purge:
        yield from _judge_purge(runner, world, operation)
        return
    if outcome == ops.SUCCESS:
        yield from (f"audit: {finding}" for finding in audit_of(runner))
        now = Residue.around(runner).renamed(scenario.identities(operation.id))
        yield from (f"unlike a run in peace, {line}" for line in world.done.difference(now)[:_SHOWN])
        outcome = runner.undo(operation.id).outcome
    if outcome not in CLEAN:
        yield f"ended {outcome} after all"
    yield from _not_as_before(runner, world)


def _judge_purge(runner: Runner, world: World, operation: Operation) -> Iterator[str]:
    """The same of a purge: it is gone on with until it is done, and then nothing is left of what it was to purge."""
    if operation.outcome == ops.FAILED_FORWARD:
        if not any(finding.identity == operation.id for finding in audit_of(runner)):
            yield "the audit does not tell of the purge"
        operation = runner.resume(operation.id)
    if operation.outcome != ops.SUCCESS:
        yield f"ended {operation.outcome} after all"
    yield from _not_as_before(runner, world)


def _not_as_before(runner: Runner, world: World) -> Iterator[str]:
    yield from (f"audit: {finding}" for finding in audit_of(runner))
    yield from world.before.difference(Residue.around(runner))[:_SHOWN]


def _readable_secrets(scenario: Scenario, host: ThrowawayHost, raised: Exception | None) -> list[str]:
    """Where a secret of the request can be read, plain or in base64: database, logs, error. Not: the guest's files."""
    found = []
    texts = {"the error": repr(raised).encode()}
    texts |= {str(path.relative_to(host.root)): path.read_bytes() for path in _exposed(host)}
    for secret in scenario.secrets:
        for form in (secret, base64.b64encode(secret).rstrip(b"=")[:-1]):
            found += [f"a secret is readable in {name}" for name, text in texts.items() if form in text]
    return found


def _exposed(host: ThrowawayHost) -> Iterator[Path]:
    for pattern in ("virtflow.db*", "*.log", "libvirt/**/*.xml", "libvirt/log/**/*"):
        yield from (path for path in host.root.glob(pattern) if path.is_file())


def _log_to(host: ThrowawayHost) -> None:
    """This process' log, and what libvirt says on stderr, go to the host's log."""
    path = host.root / "sweep.log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 2)
    faulthandler.enable(2)  # one that hangs is aborted, and says where it was
    handler = logging.FileHandler(path)
    handler.addFilter(RedactingFilter())
    logging.basicConfig(level=logging.DEBUG, handlers=[handler], force=True)
