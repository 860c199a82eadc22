"""Killed at each durable write, before and after it, once or twice in a row: resuming ends it, and nothing is left."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import pytest

from virtflow.testing.sweep import CaseResult
from virtflow.testing.sweep_workers import SweepWorkers

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(900)]

SPAWN = "virtflow.testing.scenarios:SPAWN"
UNDO = "virtflow.testing.scenarios:UNDO_SPAWN"
DELETE = "virtflow.testing.scenarios:DELETE"
SEED = 20261121
DOUBLE_KILLS = 20


def problems(results: Iterable[CaseResult]) -> str:
    """How to see each one again, and what was wrong."""
    return "\n".join(f"{result.command}\n  {result.problems}" for result in results if result.problems)


@pytest.mark.parametrize(
    ("reference", "prefix", "sides", "at_least"),
    [
        (SPAWN, "", ("before", "after"), 60),
        # After a write and before the next is the same point, but for what a task does between them: the sweep of the
        # tasks kills there.
        (SPAWN, "failing-", ("before",), 50),
        (UNDO, "", ("before",), 20),
        (DELETE, "", ("before",), 15),
    ],
    ids=["spawn", "failing spawn", "undo of a spawn", "delete"],
)
def test_a_kill_at_any_durable_write_is_recovered_from(
    workers: SweepWorkers, reference: str, prefix: str, sides: Sequence[str], at_least: int
) -> None:
    results = workers.writes(reference, prefix, sides)
    assert not problems(results)
    assert sum(result.kills for result in results) >= at_least


def test_a_recovery_that_is_killed_again_is_recovered_from_too(workers: SweepWorkers) -> None:
    choice = random.Random(SEED)
    cases = [
        f"{choice.choice(('', 'failing-'))}write/{choice.randint(2, 34)}/{choice.choice(('before', 'after'))}"
        f"+{choice.randint(1, 20)}"
        for _ in range(DOUBLE_KILLS)
    ]
    results = workers.all(SPAWN, cases)
    assert not problems(results)
    assert sum(result.kills == 2 for result in results) >= DOUBLE_KILLS // 2
