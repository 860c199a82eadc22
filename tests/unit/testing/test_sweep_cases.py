"""Cases are generated from the flows: a new task is covered by existing."""

from __future__ import annotations

from typing import Any

import pytest
from taskflow.patterns import linear_flow

from tests.unit.engine.toys import Make, ToyRequest, registry
from virtflow import faults
from virtflow.engine.taskflow_engine import Template
from virtflow.flows.kind import FlowKind
from virtflow.flows.registry import default_registry
from virtflow.tasks.segments import OnHost
from virtflow.testing import image_scenarios, scenarios, volume_scenarios
from virtflow.testing.scenario import Scenario
from virtflow.testing.sweep_cases import find_case, task_cases, tasks_of

ALL = [
    scenarios.SPAWN,
    scenarios.RICH_SPAWN,
    scenarios.TOLD_SPAWN,
    scenarios.UNDO_SPAWN,
    scenarios.DELETE,
    scenarios.UNDO_DELETE,
    scenarios.RESIZE,
    scenarios.UNDO_RESIZE,
    scenarios.CONFIRM,
]


def toy(segment: tuple[str, ...], parent: tuple[str, ...]) -> Any:
    def build_segment(_shape: Any) -> Any:
        return linear_flow.Flow("segment").add(*(Make(name) for name in segment))

    def build() -> Any:
        on_host = OnHost("segment", name="OnHost", requires=("operation",), provides=())
        return linear_flow.Flow("toy").add(Make("first", provides="host"), on_host, *(Make(name) for name in parent))

    return registry(build, FlowKind("segment", 1, build_segment))


def scenario_of(flows: Any) -> Scenario:
    return Scenario(kind="toy", request=ToyRequest, registry=lambda: flows)


def test_every_task_of_the_parent_and_of_its_segments_is_swept() -> None:
    found = tasks_of(scenario_of(toy(("a", "b"), ("last",))))
    assert [(swept.flow, swept.task) for swept in found] == [
        ("toy", "first"),
        ("toy", "OnHost"),
        ("toy", "last"),
        ("segment", "a"),
        ("segment", "b"),
    ]


def test_a_new_task_is_covered_by_existing() -> None:
    def cases(flows: Any) -> set[str]:
        return {case.name for case in task_cases(scenario_of(flows))}

    more = cases(toy(("a", "b", "new"), ("last",))) - cases(toy(("a", "b"), ("last",)))
    assert {name.split("/")[1] for name in more} == {"new"}
    assert len(more) == 11


def test_two_tasks_of_one_name_cannot_be_swept() -> None:
    with pytest.raises(ValueError, match="there are two of a"):
        tasks_of(scenario_of(toy(("a",), ("a",))))


def test_what_precedes_the_early_failure_is_known() -> None:
    early = {swept.task for swept in tasks_of(scenarios.SPAWN) if swept.early}
    assert {"ReserveQuota", "SpawnOnHost", "MakeInstanceDir", "PlugVifs", "DefineDomain"} <= early
    assert not {"StartDomain", "WaitRunning", "CommitQuota", "NotifyEnd"} & early


@pytest.mark.parametrize("scenario", ALL, ids=lambda scenario: f"{scenario.kind}{'-undo' * scenario.undo}")
def test_every_task_of_a_shipped_flow_has_every_fault(scenario: Scenario) -> None:
    names = {swept.task for swept in tasks_of(scenario) if not swept.decides} - scenario.besides
    cases = task_cases(scenario)
    per_task: dict[str, set[str]] = {}
    for case in cases:
        _flow, task, fault = case.name.split("/")
        per_task.setdefault(task, set()).add(fault)
        assert all(faults.parse(text) is not None for text in case.faults)
    assert names == per_task.keys()
    assert len({frozenset(found) for found in per_task.values()}) == 1
    assert len({case.name for case in cases}) == len(cases)


ELSEWHERE = {
    "PurgeOnHost": "a purge cannot be taken back: tests/unit/tasks/test_purge.py",
    "PurgeTrash": "a purge cannot be taken back: tests/unit/tasks/test_purge.py",
    "DropBaseReferences": "a purge cannot be taken back: tests/unit/tasks/test_purge.py",
    "NextHost": "it makes nothing; killed and refused at every write: tests/unit/engine/test_next_host.py",
    **dict.fromkeys(("DescribeOldVifs", "RetireDomain"), "between two hosts: tests/functional/test_migrate.py"),
    **dict.fromkeys(
        ("ExportToDestination", "ConnectMovedVolumes", "DisconnectMovedVolumes"),
        "between two hosts: tests/faults/test_move_sweep.py",
    ),
    "ExportAnew": "between two hosts: tests/faults/test_evacuate_volumes_sweep.py",
    "NextDestination": "it makes nothing: tests/unit/tasks/test_resize.py",
    "NextBackend": "it makes nothing: tests/functional/test_volumes.py",
    "ForgetQuota": "a purge cannot be taken back: tests/unit/tasks/test_purge.py",
}
"""Tasks that no scenario sweeps, and where they are broken instead."""

BETWEEN_HOSTS = {
    "evacuate": "tests/faults/test_evacuate_sweep.py",
    "live-migrate": "tests/faults/test_live_migrate_sweep.py",
}
"""Operations whose every task needs two hosts, by the beginning of their flows' names, and where they are swept."""


def test_every_task_of_every_shape_of_every_flow_is_swept_or_named_here() -> None:
    registry = default_registry()
    kinds = [registry.newest(name) for name in registry.names() if not name.startswith(tuple(BETWEEN_HOSTS))]
    known = {atom.name for kind in kinds for shape in kind.shapes for atom in Template(kind.build(shape)).atoms}
    more = [
        each
        for module in (volume_scenarios, image_scenarios)
        for each in vars(module).values()
        if isinstance(each, Scenario)
    ]
    swept = {case.name.split("/")[1] for scenario in (*ALL, *more) for case in task_cases(scenario)}
    assert known - swept == ELSEWHERE.keys()


@pytest.mark.parametrize(
    ("name", "faults_of_each_process", "outcome"),
    [
        ("write/12/before", ("write:12:before:kill;",), "SUCCESS"),
        ("write/12/after+3", ("write:12:after:kill;", "write:3:after:kill;"), "SUCCESS"),
        ("failing-write/7/after", ("write:7:after:kill;NotifyEnd:after:raise",), "REVERTED"),
    ],
)
def test_cases_of_writes_are_known_by_their_name(name: str, faults_of_each_process: Any, outcome: str) -> None:
    case = find_case(scenarios.SPAWN, name)
    assert (case.faults, case.outcome, case.optional) == (faults_of_each_process, outcome, True)


def test_a_case_is_found_again_by_the_name_it_is_reported_with() -> None:
    for case in task_cases(scenarios.DELETE):
        assert find_case(scenarios.DELETE, case.name) == case
