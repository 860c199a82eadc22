"""Making an image of a running instance, as a scenario for the sweep."""

from __future__ import annotations

from dataclasses import replace

from virtflow.engine.runner import Runner
from virtflow.flows.image.create import image_id
from virtflow.requests import ImageCreateRequest, SpawnRequest
from virtflow.testing.scenario import Scenario
from virtflow.testing.throwaway_host import IMAGE as HALTING

_INSTANCE = "swept"


def _make_guest(runner: Runner) -> None:
    runner.run(SpawnRequest(name=_INSTANCE, image=HALTING, vcpus=1, memory_mib=32, disk_gib=1))


CREATE_IMAGE = Scenario(
    kind="image-create",
    request=lambda: ImageCreateRequest(name="made", instance=_INSTANCE),
    prepare=_make_guest,
    identities=lambda operation: {operation: "<operation>", image_id(operation): "<image>"},
    besides=frozenset(("Accept",)),
)
UNDO_CREATE_IMAGE = replace(CREATE_IMAGE, undo=True)
