"""The sweep notices what it is there to notice."""

from __future__ import annotations

import pytest

from tests.faults.forgetful import MADE_UP_FOR, TASKS
from virtflow.tasks.segments import OnHost
from virtflow.testing.scenarios import RICH_SPAWN, SPAWN, TOLD_SPAWN
from virtflow.testing.sweep_cases import tasks_of
from virtflow.testing.sweep_workers import SweepWorkers

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(300)]

FAILS_AT_ITS_END = "failing-write/9999/before"
"""No operation writes that often: nothing is killed, and the last task fails."""


def test_a_revert_that_does_nothing_is_noticed_by_comparison_and_by_the_audit_whichever_task_it_is(
    workers: SweepWorkers,
) -> None:
    begun = {
        task.__name__: workers.submit(f"tests.faults.forgetful:WITHOUT_{task.__name__}", FAILS_AT_ITS_END)
        for task in TASKS
    }
    found = {name: future.result() for name, future in begun.items()}
    unnoticed = [name for name, result in found.items() if not any("left: " in each for each in result.problems)]
    assert unnoticed == [], found
    missed = [
        task.__name__
        for task, forgotten in TASKS.items()
        if not any(f"audit: Finding(kind='{forgotten.finding}'" in each for each in found[task.__name__].problems)
    ]
    assert missed == [], found
    assert all(result.outcome == "REVERTED" for result in found.values())


def test_of_every_task_of_a_spawn_it_is_known_whether_its_revert_is_needed() -> None:
    tasks = {swept.task for scenario in (SPAWN, RICH_SPAWN, TOLD_SPAWN) for swept in tasks_of(scenario)}
    needed = {"SpawnOnHost" if task is OnHost else task.__name__ for task in TASKS}
    assert tasks == needed | MADE_UP_FOR.keys()
    assert not needed & MADE_UP_FOR.keys()


def test_a_case_that_does_not_exist_is_refused() -> None:
    from virtflow.testing.sweep_cases import find_case

    with pytest.raises(ValueError, match="there is no case 'spawn/NoSuchTask/raise-before'"):
        find_case(SPAWN, "spawn/NoSuchTask/raise-before")
