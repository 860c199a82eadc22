"""Whatever breaks while an image is made of a running instance: no job, no file, no image, and no mark is left."""

from __future__ import annotations

import pytest

from virtflow.testing.sweep import CaseResult

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(300)]

SCENARIOS = {
    "image-create": "virtflow.testing.image_scenarios:CREATE_IMAGE",
    "undo-image-create": "virtflow.testing.image_scenarios:UNDO_CREATE_IMAGE",
}
EVERY = 6


def test_an_image_whose_making_breaks_leaves_nothing_behind(swept: CaseResult) -> None:
    assert not swept.problems, swept.command
