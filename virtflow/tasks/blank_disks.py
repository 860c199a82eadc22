"""Disks that begin empty: ephemeral ones with a file system on them, and swap."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from virtflow.hypervisor.disk_mapping import ephemeral_file, swap_file
from virtflow.images import names
from virtflow.images.disk_backends import disk_format, make_disk
from virtflow.tasks.base import Intent, Task
from virtflow.tasks.root_disks import disk_plan, remove_disk


class CreateEphemerals(Task):
    """Make the ephemeral disks, each formatted and labelled, over bases that are made once per host.

    Reverts: removes the disks, drops the references to their bases, which are shared and stay, and removes a base that
    is half made and that nobody else is making. A disk of its name is complete: if it has the same format, size and
    backing file, it is the one. References come first, so that no pruning takes a base in between.
    """

    default_provides = "ephemeral_disks"
    timeout = "disk"

    def intents(
        self, spec: Mapping[str, Any], instance_dir: str, instance_uuid: str, **_arguments: Any
    ) -> list[Intent]:
        found = []
        for number, wanted in enumerate(spec["ephemerals"]):
            found.append(Intent("base_reference", f"{_ephemeral_base(wanted)}/{instance_uuid}"))
            found.append(_file_intent(spec, f"{instance_dir}/{ephemeral_file(number)}"))
        return found

    def execute(
        self,
        spec: Mapping[str, Any],
        instance_dir: str,
        instance_uuid: str,
        operation: str,
        blank_bases: Any,
        qemu_img: Any,
        base_references: Any,
        settings: Any,
    ) -> list[dict[str, Any]]:
        disks = []
        for number, wanted in enumerate(spec["ephemerals"]):
            name = _ephemeral_base(wanted)
            base_references.add_reference(_path(name, settings), name, settings.host, instance_uuid, operation)
            base = blank_bases.ephemeral(wanted["size_gib"], wanted["filesystem"], wanted["label"], self.activity)
            path = Path(instance_dir) / ephemeral_file(number)
            plan = disk_plan(path, spec["disk_backend"], base.path, base.size, operation)
            make_disk(plan, qemu_img, self.activity)
            disks.append({"path": str(path), "format": plan.format, "size": base.size})
        return disks

    def revert(
        self,
        spec: Mapping[str, Any],
        instance_dir: str,
        instance_uuid: str,
        operation: str,
        blank_bases: Any,
        base_references: Any,
        settings: Any,
        **_kwargs: Any,
    ) -> None:
        for number, wanted in reversed(list(enumerate(spec["ephemerals"]))):
            remove_disk(Path(instance_dir) / ephemeral_file(number), operation)
            name = _ephemeral_base(wanted)
            base_references.drop_reference(_path(name, settings), settings.host, instance_uuid)
            blank_bases.abandon(name)


class CreateSwap(Task):
    """Make the swap disk, over a base that is made once per host.

    Reverts: as CreateEphemerals. A disk of its name is complete.
    """

    default_provides = "swap_disk"
    timeout = "disk"

    def intents(
        self, spec: Mapping[str, Any], instance_dir: str, instance_uuid: str, **_arguments: Any
    ) -> tuple[Intent, ...]:
        reference = Intent("base_reference", f"{names.swap_name(spec['swap_mib'])}/{instance_uuid}")
        return reference, _file_intent(spec, f"{instance_dir}/{swap_file()}")

    def execute(
        self,
        spec: Mapping[str, Any],
        instance_dir: str,
        instance_uuid: str,
        operation: str,
        blank_bases: Any,
        qemu_img: Any,
        base_references: Any,
        settings: Any,
    ) -> dict[str, Any]:
        name = names.swap_name(spec["swap_mib"])
        base_references.add_reference(_path(name, settings), name, settings.host, instance_uuid, operation)
        base = blank_bases.swap(spec["swap_mib"], self.activity)
        path = Path(instance_dir) / swap_file()
        plan = disk_plan(path, spec["disk_backend"], base.path, base.size, operation)
        make_disk(plan, qemu_img, self.activity)
        return {"path": str(path), "format": plan.format, "size": base.size}

    def revert(
        self,
        spec: Mapping[str, Any],
        instance_dir: str,
        instance_uuid: str,
        operation: str,
        blank_bases: Any,
        base_references: Any,
        settings: Any,
        **_kwargs: Any,
    ) -> None:
        remove_disk(Path(instance_dir) / swap_file(), operation)
        name = names.swap_name(spec["swap_mib"])
        base_references.drop_reference(_path(name, settings), settings.host, instance_uuid)
        blank_bases.abandon(name)


def _ephemeral_base(wanted: Mapping[str, Any]) -> str:
    return names.ephemeral_name(wanted["size_gib"], wanted["filesystem"], wanted["label"])


def _file_intent(spec: Mapping[str, Any], path: str) -> Intent:
    return Intent("file", path, {"format": disk_format(spec["disk_backend"])})


def _path(name: str, settings: Any) -> str:
    return str(settings.base_path / name)
