from __future__ import annotations

from typing import Any

import pytest

from virtflow.errors import ImageRefused
from virtflow.tasks.volume_backend import CreateVolumeFromImage

GIB = 1 << 30


class Untouched:
    def get(self, backend: str) -> Any:
        raise AssertionError(f"{backend} was touched")


def test_an_image_that_is_larger_than_the_volume_is_refused_before_anything_is_made() -> None:
    spec = {"size_gib": 1, "image": {"name": "big"}}
    base = {"virtual_size": GIB + 1, "path": "/base"}
    with pytest.raises(ImageRefused, match="larger than the volume"):
        CreateVolumeFromImage().execute("id", "node1@local", spec, base, Untouched())
