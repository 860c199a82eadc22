"""Whatever breaks while a finished operation is undone: in the end it is undone.

Usually every other case is tried, which is one or two of each task.
"""

from __future__ import annotations

import pytest

from virtflow.testing.sweep import CaseResult

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(300)]

EVERY = 2
SCENARIOS = {
    "undo-spawn": "virtflow.testing.scenarios:UNDO_SPAWN",
    "undo-delete": "virtflow.testing.scenarios:UNDO_DELETE",
}


def test_an_undo_that_breaks_is_finished_all_the_same(swept: CaseResult) -> None:
    assert not swept.problems, swept.command
