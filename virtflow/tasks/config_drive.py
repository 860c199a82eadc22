"""The config drive: what the guest is told about itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from virtflow.files.durable import remove_files
from virtflow.hypervisor.disk_mapping import config_drive_file
from virtflow.tasks.base import Intent, Task
from virtflow.tasks.guest_data import instance_metadata


class BuildConfigDrive(Task):
    """Write the config drive, readable by nobody but its owner; provides its path, or None when none is wanted.

    Reverts: removes it, and what was staged. Written again, it replaces the first atomically: no guest reads it yet.
    """

    default_provides = "config_drive"

    def intents(self, spec: Mapping[str, Any], instance_dir: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("file", f"{instance_dir}/{config_drive_file()}"),) if spec["config_drive"] else ()

    def execute(
        self,
        spec: Mapping[str, Any],
        instance_uuid: str,
        project: str,
        instance_dir: str,
        vifs: Sequence[Mapping[str, Any]],
        secret_refs: Mapping[str, str],
        operation: str,
        secrets: Any,
        config_drives: Any,
        drive_contents: Any,
    ) -> str | None:
        if not spec["config_drive"]:
            return None
        target = Path(instance_dir) / config_drive_file()
        values = {name: secrets.get(ref) for name, ref in secret_refs.items()}
        metadata = instance_metadata(spec, instance_uuid, project, vifs, values, drive_contents)
        tree = drive_contents.tree(metadata)
        config_drives.write(tree, target, operation, self.activity, drive_format=spec["config_drive_format"])
        return str(target)

    def revert(self, instance_dir: str, operation: str, config_drives: Any, **_kwargs: Any) -> None:
        target = Path(instance_dir) / config_drive_file()
        remove_files(target)
        config_drives.discard(target, operation)
