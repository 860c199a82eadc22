"""Injection: what the guest is told, written into its disk before it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from virtflow.injection.plan import GuestItems
from virtflow.tasks.base import Intent, Task
from virtflow.tasks.guest_data import guest_files, guest_keys, network_config
from virtflow.tasks.root_disks import remove_disk


class InjectFiles(Task):
    """Write keys, network, metadata, password and files into the root disk; provides the names of those that arrived.

    Reverts: removes what a killed injection left beside the disk; the disk itself is its maker's. A directory beside
    the disk says that it is half injected: then it is made anew first, with the task that made it. Injecting a disk
    again that was injected to the end leaves the same.
    """

    default_provides = "injected"
    timeout = "disk"

    def __init__(self, maker: Task) -> None:
        """``maker`` is the task that makes the root disk, of the same flow: what it requires is required here too."""
        self._maker = maker
        self._making = frozenset(maker.requires)
        super().__init__(requires=sorted(self._making))

    def intents(self, root_disk: Mapping[str, Any], operation: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("injection", f"{root_disk['path']}.injecting.{operation}"),)

    def execute(
        self,
        spec: Mapping[str, Any],
        root_disk: Mapping[str, Any],
        vifs: Sequence[Mapping[str, Any]],
        secret_refs: Mapping[str, str],
        operation: str,
        secrets: Any,
        injector: Any,
        drive_contents: Any,
        **making: Any,
    ) -> list[str]:
        disk = Path(root_disk["path"])
        if injector.interrupted(disk, operation):
            injector.discard(disk, operation)
            remove_disk(disk, operation)
            given = {**making, "spec": spec, "operation": operation}
            self._maker.execute(**{name: given[name] for name in self._making})
        values = {name: secrets.get(ref) for name, ref in secret_refs.items()}
        wanted = spec["injection"]
        done = injector.inject(
            disk,
            root_disk["format"],
            wanted["partition"],
            _items(spec, vifs, values, drive_contents),
            operation,
            mandatory=frozenset(wanted["mandatory"]),
            activity=self.activity,
        )
        return list(done.injected)

    def revert(self, root_disk: Mapping[str, Any], operation: str, injector: Any, **_kwargs: Any) -> None:
        injector.discard(Path(root_disk["path"]), operation)


def _items(
    spec: Mapping[str, Any], vifs: Sequence[Mapping[str, Any]], secrets: Mapping[str, bytes], contents: Any
) -> GuestItems:
    on = frozenset(spec["injection"]["items"])
    password = secrets.get("admin_password")
    return GuestItems(
        keys=tuple(guest_keys(secrets)) if "key" in on else (),
        network=network_config(vifs, contents) if "network" in on else None,
        metadata=spec["meta"] if "metadata" in on else {},
        admin_password=password.decode() if password is not None and "admin_password" in on else None,
        files=guest_files(secrets) if "files" in on else {},
    )
