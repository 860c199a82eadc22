"""Create a volume, on the host of its backend.

- blank: CreateBlankVolume
- of an image: FetchVolumeImage (inspected and made raw in the cache), CreateVolumeFromImage, LetImageGo
- encrypted: CreateBlankVolume, FormatVolume, and for an image FillVolume in place of CreateVolumeFromImage
- of a snapshot or a volume: CloneVolume
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.tasks.base import Task
from virtflow.tasks.volume_backend import (
    CloneVolume,
    CreateBlankVolume,
    CreateVolumeFromImage,
    FetchVolumeImage,
    LetImageGo,
)
from virtflow.tasks.volume_encryption import FillVolume, FormatVolume
from virtflow.tasks.volume_request import BLANK, IMAGE, SNAPSHOT

ENCRYPTED_BLANK, ENCRYPTED_IMAGE = "encrypted blank", "encrypted image"
_ENCRYPTED = {BLANK: ENCRYPTED_BLANK, IMAGE: ENCRYPTED_IMAGE}


def shape(inputs: Mapping[str, Any]) -> str:
    """What it is made of, and whether that is encrypted on the way: a copy of what is encrypted is a copy."""
    source = str(inputs["spec"]["source"])
    return _ENCRYPTED.get(source, source) if inputs["spec"].get("encryption") else source


def build(source: Hashable) -> Flow:
    """The segment."""
    tasks: list[Task] = [CloneVolume()]
    if source == BLANK:
        tasks = [CreateBlankVolume()]
    elif source == IMAGE:
        tasks = [FetchVolumeImage(), CreateVolumeFromImage(), LetImageGo()]
    elif source == ENCRYPTED_BLANK:
        tasks = [CreateBlankVolume(), FormatVolume()]
    elif source == ENCRYPTED_IMAGE:
        filled = LetImageGo(rebind={"made": "filled"})
        tasks = [FetchVolumeImage(), CreateBlankVolume(), FormatVolume(), FillVolume(), filled]
    return linear_flow.Flow("volume-create.host").add(*tasks)


_SHAPES = (BLANK, IMAGE, SNAPSHOT, ENCRYPTED_BLANK, ENCRYPTED_IMAGE)

KIND = FlowKind("volume-create.host", 1, build, shape=shape, shapes=_SHAPES)
