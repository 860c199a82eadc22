"""Whatever breaks in a delete: the instance is as it was, or it is gone and can be brought back."""

from __future__ import annotations

import pytest

from virtflow.testing.sweep import CaseResult

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(300)]

SCENARIOS = {"delete": "virtflow.testing.scenarios:DELETE"}


def test_a_delete_that_breaks_ends_well_or_leaves_the_instance_as_it_was(swept: CaseResult) -> None:
    assert not swept.problems, swept.command
