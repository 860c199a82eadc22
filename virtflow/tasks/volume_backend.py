"""Volumes on their backend, on its host."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from virtflow.errors import ImageRefused
from virtflow.tasks.base import Intent, Task
from virtflow.tasks.images import FetchBase
from virtflow.volumes.driver import snapshot_name, volume_name

GIB = 1 << 30


class _MakesVolume(Task):
    """Reverts: removes the volume, and what was begun of it. A volume that has its name is complete."""

    timeout = "disk"

    def intents(self, volume_id: str, backend: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("volume", f"{backend}/{volume_name(volume_id)}"),)

    def revert(self, volume_id: str, backend: str, volume_drivers: Any, **_kwargs: Any) -> None:
        volume_drivers.get(backend).remove(volume_name(volume_id))


class CreateBlankVolume(_MakesVolume):
    """Make a blank volume.

    Reverts: removes it. A volume that has its name is complete, so making it again finds it.
    """

    default_provides = "made"

    def execute(self, volume_id: str, backend: str, spec: Mapping[str, Any], volume_drivers: Any) -> bool:
        volume_drivers.get(backend).create(volume_name(volume_id), spec["size_gib"] * GIB, self.activity)
        return True


class FetchVolumeImage(FetchBase):
    """FetchBase for a volume: the image is inspected, what has a backing file or lies is refused, and it becomes raw.

    Reverts: as FetchBase; while the volume is being made, no pruning takes the base.
    """

    def __init__(self) -> None:
        super().__init__(rebind={"instance_uuid": "volume_id"})


class CreateVolumeFromImage(_MakesVolume):
    """Make the volume of the image: shared with the backend's own means where it can, copied where not.

    Reverts: removes it. Until it is complete it has not got its name: a copy that was killed begins anew.
    """

    default_provides = "made"

    def execute(
        self, volume_id: str, backend: str, spec: Mapping[str, Any], base: Mapping[str, Any], volume_drivers: Any
    ) -> bool:
        size, name = spec["size_gib"] * GIB, volume_name(volume_id)
        if base["virtual_size"] > size:
            reason = f"its virtual size ({base['virtual_size']} bytes) is larger than the volume ({size} bytes)"
            raise ImageRefused(image=spec["image"]["name"], reason=reason)
        driver = volume_drivers.get(backend)
        if not driver.clone_image(name, Path(base["path"]), size, self.activity):
            driver.copy_image(name, Path(base["path"]), size, self.activity)
        return True


class LetImageGo(Task):
    """The volume stands on its own: the base may age out. Reverts: nothing, taking back needs no base."""

    def execute(self, base: Mapping[str, Any], made: bool, volume_id: str, base_references: Any, settings: Any) -> None:  # noqa: ARG002 - the order
        base_references.drop_reference(base["path"], settings.host, volume_id)

    def revert(self, **_kwargs: Any) -> None:
        """FetchVolumeImage's revert has nothing to drop then."""


class CloneVolume(_MakesVolume):
    """Make the volume of a snapshot or of another volume, which is held meanwhile.

    Reverts: removes it. Until it is complete it has not got its name.
    """

    default_provides = "made"

    def execute(self, volume_id: str, backend: str, spec: Mapping[str, Any], volume_drivers: Any) -> bool:
        named = snapshot_name if spec["source"] == "snapshot" else volume_name
        source, size = named(spec["source_id"]), spec["size_gib"] * GIB
        volume_drivers.get(backend).clone(volume_name(volume_id), source, size, self.activity)
        return True


class TakeSnapshot(Task):
    """Keep what the volume has, which is held meanwhile.

    Reverts: removes the snapshot. Until it is complete it has not got its name.
    """

    timeout = "disk"

    def intents(self, snapshot_id: str, volume: Mapping[str, Any], **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("volume", f"{volume['backend']}/{snapshot_name(snapshot_id)}"),)

    def execute(self, snapshot_id: str, volume: Mapping[str, Any], volume_drivers: Any) -> None:
        driver = volume_drivers.get(volume["backend"])
        driver.snapshot(snapshot_name(snapshot_id), volume_name(volume["id"]), self.activity)

    def revert(self, snapshot_id: str, volume: Mapping[str, Any], volume_drivers: Any, **_kwargs: Any) -> None:
        volume_drivers.get(volume["backend"]).remove(snapshot_name(snapshot_id))


class TrashVolume(Task):
    """Put the volume, or snapshot, into the trash of this operation.

    Reverts: takes it out again. Each direction is one rename; done already, it is not done again.
    """

    def intents(self, trashed: Mapping[str, Any], operation: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("volume_trash", f"{trashed['backend']}/{operation}"),)

    def execute(self, trashed: Mapping[str, Any], operation: str, volume_drivers: Any) -> None:
        if trashed["backend"] is not None:
            volume_drivers.get(trashed["backend"]).delete(trashed["on_backend"], operation)

    def revert(self, trashed: Mapping[str, Any], operation: str, volume_drivers: Any, **_kwargs: Any) -> None:
        if trashed["backend"] is not None:
            volume_drivers.get(trashed["backend"]).restore(trashed["on_backend"], operation)


class DescribeTrash(Task):
    """What goes to the trash: the volume or snapshot, and what its backend calls it. Nothing is made."""

    default_provides = "trashed"

    def __init__(self, kind: str) -> None:
        super().__init__(rebind={"thing": kind})
        self.kind = kind

    def execute(self, thing: Mapping[str, Any]) -> dict[str, Any]:
        named = snapshot_name if self.kind == "snapshot" else volume_name
        return {"kind": self.kind, "id": thing["id"], "backend": thing["backend"], "on_backend": named(thing["id"])}

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


class PurgeVolumeTrash(Task):
    """Remove what a delete has put into the trash, for good. This is the pivot of a delete: not reverted.

    Removing what is gone is done.
    """

    timeout = "disk"

    def intents(self, trashed: Mapping[str, Any], **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("purge", f"{trashed['backend']}/{trashed['operation']}"),)

    def execute(self, trashed: Mapping[str, Any], volume_drivers: Any) -> None:
        if trashed["backend"] is not None:
            volume_drivers.get(trashed["backend"]).purge(trashed["operation"])
