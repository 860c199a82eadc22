"""Whatever breaks in a spawn, at whichever task: nothing is left behind, or everything is there."""

from __future__ import annotations

import pytest

from virtflow.testing.sweep import CaseResult

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(300)]

SCENARIOS = {
    "spawn": "virtflow.testing.scenarios:SPAWN",
    "rich-spawn": "virtflow.testing.scenarios:RICH_SPAWN",
    "told-spawn": "virtflow.testing.scenarios:TOLD_SPAWN",
}


def test_a_spawn_that_breaks_ends_well_or_leaves_nothing(swept: CaseResult) -> None:
    assert not swept.problems, swept.command
