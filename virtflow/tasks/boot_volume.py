"""The volume to boot from, made for an instance: by an operation of its own, which is a step of the spawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from virtflow.tasks.base import Intent, Task
from virtflow.tasks.spawn_volumes import volume_fields

_CHILD = "boot-volume"
_KEPT = ("id", "backend", "host", "encryption")


class CreateBootVolume(Task):
    """Create the volume to boot from, of the image, by an operation of its own: with its quota, its row, and another
    backend where one fails. Where the instance's host is given, it is on a backend that this reaches; otherwise the
    backend may decide on the host. Provides the specification in which it is.

    Reverts: undoes that operation. A second execution goes on with the first one's.
    """

    default_provides = "placed_spec"
    timeout = 0.0  # each of its tasks has its own

    def intents(self, operation: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("child_operation", f"{operation}/{_CHILD}"),)

    def execute(
        self,
        spec: Mapping[str, Any],
        operation: str,  # noqa: ARG002 - whose child it is, for the intent
        project: str,
        child_operations: Any,
        volumes: Any,
        volume_backends: Any,
    ) -> dict[str, Any]:
        root, *others = spec["volumes"]
        request = {"name": root["name"], "size_gib": root["size_gib"], "image": spec["image"]["id"]}
        request |= dict.fromkeys(("snapshot", "source_volume", "type", "availability_zone"))
        request |= {"encrypted": False, "meta": {}, "for_host": spec["host"]}
        child_operations.run(
            _CHILD, "volume-create", f"volume:{root['name']}", request, project, activity=self.activity
        )
        made = volumes.find(root["name"], project)
        placed = [{**root, **{name: getattr(made, name) for name in _KEPT}}, *others]
        return {**spec, **volume_fields(spec, placed, volume_backends)}

    def revert(self, child_operations: Any, **_kwargs: Any) -> None:
        child_operations.take_back(_CHILD, activity=self.activity)
