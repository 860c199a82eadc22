"""Whatever breaks in a resize on one host: the guest is what it was, or what it was to be, and can go back."""

from __future__ import annotations

import pytest

from virtflow.testing.sweep import CaseResult

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(300)]

EVERY = 3
SCENARIOS = {
    "resize": "virtflow.testing.scenarios:RESIZE",
    "resize-revert": "virtflow.testing.scenarios:UNDO_RESIZE",
    "resize-confirm": "virtflow.testing.scenarios:CONFIRM",
}


def test_a_resize_that_breaks_ends_well_or_leaves_the_instance_as_it_was(swept: CaseResult) -> None:
    assert not swept.problems, swept.command
