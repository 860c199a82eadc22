"""Whatever breaks in an operation on a volume: nothing is left behind, and sizes, rows and files agree.

Of every task the cases that differ most.
"""

from __future__ import annotations

import pytest

from virtflow.testing.sweep import CaseResult

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(300)]

_NAMES = (
    *("CREATE_FROM_IMAGE", "CREATE_BLANK", "CREATE_FROM_SNAPSHOT", "CREATE_ENCRYPTED"),
    *("DELETE", "ATTACH", "DETACH", "EXTEND", "SNAPSHOT_CREATE", "SNAPSHOT_DELETE", "SPAWN", "INSTANCE_DELETE"),
    *("SPAWN_OF_IMAGE", "DELETE_WITH_VOLUME", "RESIZE", "UNDO_RESIZE", "PURGE", "PURGE_SNAPSHOT"),
)
SCENARIOS = {name: f"virtflow.testing.volume_scenarios:{name}" for name in _NAMES}
TRIED = ("kill-after", "revert-always-fails", "fails-after")


def test_an_operation_on_a_volume_that_breaks_leaves_nothing_behind(swept: CaseResult) -> None:
    assert not swept.problems, swept.command
