"""Killed at any moment, in the middle of whatever its tasks were doing at the same time: nothing is left."""

from __future__ import annotations

import random

import pytest

from virtflow.testing.sweep_workers import SweepWorkers

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(600)]

SEED = 20261121


@pytest.mark.parametrize(
    ("scenario", "count", "until"),
    [
        ("SPAWN", 40, 0.9),
        ("RICH_SPAWN", 20, 0.9),
        ("TOLD_SPAWN", 20, 0.9),
        ("DELETE", 10, 0.6),
        ("UNDO_SPAWN", 10, 1.5),
    ],
)
def test_a_kill_at_any_moment_is_recovered_from(workers: SweepWorkers, scenario: str, count: int, until: float) -> None:
    """The moments are seeded, what they meet is not: on a slower machine it is another step of the same task."""
    choice = random.Random(SEED)
    verbs = ("resume",) if scenario.startswith("UNDO") else ("resume", "cancel")
    cases = [f"moment/{choice.uniform(0.05, until):.3f}/{choice.choice(verbs)}" for _ in range(count)]
    results = workers.all(f"virtflow.testing.scenarios:{scenario}", cases)
    broken = [f"{result.command}\n  {result.problems}" for result in results if result.problems]
    assert not broken, "\n".join(broken)
    assert sum(result.kills for result in results) >= count // 2
