"""The sweep over operations on logical volumes: its scenarios, and the test that runs its cases.

Runs in the appliance, for ``tests/faults/test_volume_sweep_on_lvm.py``, which says in a file what is tried.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.functional.inside.iscsi_host import GROUP, QUICK
from tests.functional.inside.lvm_runner import on_thick, on_thin
from virtflow.engine.runner import Runner
from virtflow.requests import VolumeCreateRequest
from virtflow.testing import volume_scenarios
from virtflow.testing.scenario import Scenario
from virtflow.testing.sweep import CaseResult, Sweep
from virtflow.testing.sweep_cases import Case, task_cases, tasks_of
from virtflow.volumes.lvm_group import VolumeGroup

HERE = "tests.functional.inside.lvm_sweep"
LIST = "VIRTFLOW_CASES"
"""Where the file is that says what is tried: pairs of a scenario's reference and a case's name, as JSON."""
STEP_SECONDS = 900
"""Python is slow in there, and what else the machine does makes it slower."""
_TRIED = ("kill-after", "revert-always-fails", "fails-after")
_TAG = "virtflow."


def _make_volume(runner: Runner) -> None:
    runner.run(VolumeCreateRequest(name="v", size_gib=1))


def _on_backend(scenario: Scenario) -> frozenset[str]:
    """The tasks of the backend's host."""
    return frozenset(swept.task for swept in tasks_of(scenario) if swept.flow.endswith(".host"))


_SCENARIOS = (
    volume_scenarios.CREATE_FROM_IMAGE,
    volume_scenarios.CREATE_BLANK,
    volume_scenarios.CREATE_FROM_SNAPSHOT,
    volume_scenarios.CREATE_ENCRYPTED,
    volume_scenarios.DELETE,
    replace(volume_scenarios.EXTEND, prepare=_make_volume),  # no guest has it: there is none in there
    volume_scenarios.SNAPSHOT_CREATE,
    volume_scenarios.SNAPSHOT_DELETE,
    volume_scenarios.PURGE,
    replace(volume_scenarios.PURGE_SNAPSHOT, besides=frozenset(each.task for each in tasks_of(volume_scenarios.PURGE))),
)


def _thin(scenario: Scenario) -> Scenario:
    """Every task; of those that several scenarios have, the ones of the backend's host in each of them."""
    return replace(scenario, make_runner=on_thin, besides=scenario.besides - _on_backend(scenario))


def _thick(scenario: Scenario) -> Scenario:
    """What thick volumes make a difference to: the tasks of the backend's host."""
    others = frozenset(swept.task for swept in tasks_of(scenario)) - _on_backend(scenario)
    return replace(scenario, make_runner=on_thick, besides=others)


THIN_FROM_IMAGE, THIN_BLANK, THIN_FROM_SNAPSHOT, THIN_ENCRYPTED = (_thin(each) for each in _SCENARIOS[:4])
THIN_DELETE, THIN_EXTEND, THIN_SNAPSHOT_CREATE, THIN_SNAPSHOT_DELETE = (_thin(each) for each in _SCENARIOS[4:8])
THIN_PURGE, THIN_PURGE_SNAPSHOT = (_thin(each) for each in _SCENARIOS[8:])
THICK_FROM_IMAGE, THICK_BLANK, THICK_FROM_SNAPSHOT, THICK_ENCRYPTED = (_thick(each) for each in _SCENARIOS[:4])
THICK_DELETE, THICK_EXTEND, THICK_SNAPSHOT_CREATE, THICK_SNAPSHOT_DELETE = (_thick(each) for each in _SCENARIOS[4:8])
THICK_PURGE, THICK_PURGE_SNAPSHOT = (_thick(each) for each in _SCENARIOS[8:])


def cases() -> list[tuple[str, str]]:
    """All there are, those of one scenario after the other: its reference, and the name of the case."""
    return [
        (f"{HERE}:{name}", case.name)
        for name, scenario in globals().items()
        if isinstance(scenario, Scenario)
        for case in task_cases(scenario)
        if case.name.rpartition("/")[2] in _TRIED
    ]


class _Bench:
    """The sweep of one scenario at a time. Whatever one leaves, the next one begins with no volume at all."""

    def __init__(self) -> None:
        self._sweep: Sweep | None = None
        self._cases: dict[str, Case] = {}

    def run(self, reference: str, case: str) -> CaseResult:
        if self._sweep is None or self._sweep.reference != reference:
            self.clear()
            self._sweep = Sweep(reference, STEP_SECONDS)
            self._cases = {each.name: each for each in task_cases(self._sweep.scenario)}
        clean = False
        try:
            result = self._sweep.run(self._cases[case])
            clean = not result.problems
            return result
        finally:
            if not clean:
                self.clear()

    def clear(self) -> None:
        if self._sweep is not None:
            self._sweep.close()
            self._sweep = None
        group = VolumeGroup(GROUP, QUICK)
        for volume in group.volumes().values():
            if any(tag.startswith(_TAG) for tag in volume.tags):
                group.remove(volume.name)


# Before any thread is started here: its processes are forked.
@pytest.fixture(scope="module")
def bench(iscsi_host: None) -> Iterator[_Bench]:
    made = _Bench()
    yield made
    made.clear()


WANTED: list[list[str]] = json.loads(Path(os.environ[LIST]).read_text()) if LIST in os.environ else []


@pytest.mark.parametrize(("reference", "case"), WANTED, ids=["{}:{}".format(*each) for each in WANTED])
def test_an_operation_on_a_logical_volume_that_breaks_leaves_nothing_behind(
    reference: str, case: str, bench: _Bench
) -> None:
    swept = bench.run(reference, case)
    print(f"{swept.seconds:.0f} s {swept.outcome} {swept.problems or ''}")  # for whoever watches the log
    assert not swept.problems, swept.problems
