"""Durable no-op steps a second, and what a slow disk makes of them."""

from __future__ import annotations

from benchmarks.databases import Databases, databases
from benchmarks.rounds import Measured, measure
from benchmarks.slow_disk import slow_sync
from benchmarks.table import Target, show, show_targets

_SYSTEMS = ("virtflow", "virtflow operations", "DBOS", "TaskFlow SQLAlchemy")
_MEMORY = "TaskFlow in memory"
_ON_SLOW_DISKS = {
    "DBOS": "DBOS",
    "virtflow": "virtflow",
    "virtflow operations": "virtflow operations",
    "limit: bare commits, a row for each flow": "shared bare commits",
}


def steps(rounds: int) -> list[Target]:
    """12 and 100 tasks in a line, one flow at a time, on each database."""
    targets: list[Target] = []
    with databases() as available:
        for tasks in (12, 100):
            measured = _measure(available, tasks, rounds)
            _show(f"Durable no-op steps, flows of {tasks}, one at a time", measured)
            targets += _step_targets(measured, tasks, available.kinds)
    show_targets(targets)
    return targets


def slow_disk(rounds: int) -> list[Target]:
    """Eight flows of 12 tasks in flight, with every sync made 1 and 5 milliseconds slower for everybody.

    The limit is a loop of bare commits, each with one row for every flow: no system that makes each step of a flow
    durable before the next can be faster, if it spends nothing on the steps.
    """
    targets: list[Target] = []
    for milliseconds in (1, 5):
        with slow_sync(milliseconds) as env, databases(env) as available:
            for kind in available.kinds:
                contestants = {label: (system, available.fresh(kind)) for label, system in _ON_SLOW_DISKS.items()}
                measured = measure(contestants, 12, rounds=rounds, in_flight=8, env=env, round_seconds=2.0)
                _show(f"Eight flows of 12 in flight, {kind}, each sync {milliseconds} ms slower", measured)
                ratio = measured["virtflow"].ratio(measured["DBOS"])
                text = f"against DBOS, {kind}, 8 in flight, sync +{milliseconds} ms"
                targets.append(Target(text, ratio, 3.5))
    show_targets(targets)
    return targets


def _measure(available: Databases, tasks: int, rounds: int) -> dict[str, Measured]:
    contestants = {_MEMORY: (_MEMORY, "")}
    for kind in available.kinds:
        contestants[f"bare commits, {kind}"] = ("bare commits", available.fresh(kind))
        for system in _SYSTEMS:
            contestants[f"{system}, {kind}"] = (system, available.fresh(kind))
    return measure(contestants, tasks, rounds=rounds)


def _show(title: str, measured: dict[str, Measured]) -> None:
    base = next(iter(measured.values()))
    name = next(iter(measured))
    rows = [
        (label, f"{its.rate:,.0f}", f"{its.cpu_ms:.2f}", f"{its.ratio(base):.2f}x") for label, its in measured.items()
    ]
    show(title, ("system", "steps/s", "CPU ms/step", f"to {name}"), rows)


def _step_targets(measured: dict[str, Measured], tasks: int, kinds: list[str]) -> list[Target]:
    targets = []
    for kind in kinds:
        ours = measured[f"virtflow, {kind}"]
        for other, bound in (("TaskFlow SQLAlchemy", 40.0), ("DBOS", 2.0)):
            ratio = ours.ratio(measured[f"{other}, {kind}"])
            targets.append(Target(f"against {other}, {kind}, {tasks} tasks", ratio, bound))
        targets.append(Target(f"against {_MEMORY}, {kind}, {tasks} tasks", ours.ratio(measured[_MEMORY]), 1.0))
    return targets
