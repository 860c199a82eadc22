"""Encrypted volumes: their key, and what is made with it.

A key belongs to its volume, or snapshot, and lives as long: it is made before anything is encrypted, and goes with the
purge, when nothing can be brought back any more. The store knows its owner, never the key.
"""

from __future__ import annotations

import secrets as randomness
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from virtflow.errors import ImageRefused
from virtflow.tasks.base import Intent, Task
from virtflow.volumes.driver import volume_name

GIB = 1 << 30
LUKS = "luks"
KEY = "encryption_key"
_KEY_BYTES = 32


class MakeEncryptionKey(Task):
    """Make the key of an encrypted volume, or take over the one of what it is a copy of. Other volumes need none.

    Reverts: removes it. A key that is there stays: it is made up once.
    """

    def intents(self, spec: Mapping[str, Any], volume_id: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("secrets", volume_id),) if spec["encryption"] else ()

    def execute(self, spec: Mapping[str, Any], volume_id: str, secrets: Any) -> None:
        if not spec["encryption"]:
            return
        if spec["source"] in ("snapshot", "volume"):
            key = key_of(secrets, spec["source_id"])
        else:
            key = randomness.token_urlsafe(_KEY_BYTES).encode()
        secrets.put_once(volume_id, KEY, key)

    def revert(self, volume_id: str, secrets: Any, **_kwargs: Any) -> None:
        secrets.purge(volume_id)


class KeepKeyOfSnapshot(Task):
    """The snapshot of an encrypted volume has its key. Reverts: removes the snapshot's. Keeping it twice is once."""

    def intents(self, volume: Mapping[str, Any], snapshot_id: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("secrets", snapshot_id),) if volume["encryption"] else ()

    def execute(self, volume: Mapping[str, Any], snapshot_id: str, secrets: Any) -> None:
        if volume["encryption"]:
            secrets.put_once(snapshot_id, KEY, key_of(secrets, volume["id"]))

    def revert(self, snapshot_id: str, secrets: Any, **_kwargs: Any) -> None:
        secrets.purge(snapshot_id)


class FormatVolume(Task):
    """Let the blank volume be an encrypted disk.

    Reverts: nothing, the volume itself is removed. Until the volume is AVAILABLE nobody has written to it, so that
    formatting it again loses nothing.
    """

    default_provides = "formatted"
    timeout = "disk"

    def execute(
        self,
        volume_id: str,
        backend: str,
        spec: Mapping[str, Any],
        made: bool,
        volume_drivers: Any,
        luks: Any,
        secrets: Any,
    ) -> bool:
        path = volume_drivers.get(backend).export(volume_name(volume_id)).path
        luks.format(path, spec["size_gib"] * GIB, key_of(secrets, volume_id), self.activity)
        return made

    def revert(self, **_kwargs: Any) -> None:
        """Removing the volume is enough."""


class FillVolume(Task):
    """Write the image onto the encrypted disk.

    Reverts: nothing, the volume itself is removed. A copy that was killed is made anew.
    """

    default_provides = "filled"
    timeout = "disk"

    def execute(
        self,
        volume_id: str,
        backend: str,
        spec: Mapping[str, Any],
        base: Mapping[str, Any],
        formatted: bool,
        volume_drivers: Any,
        luks: Any,
        secrets: Any,
    ) -> bool:
        room = luks_payload(spec["size_gib"])
        if base["virtual_size"] > room:
            reason = f"its virtual size ({base['virtual_size']} bytes) is larger than what is encrypted ({room} bytes)"
            raise ImageRefused(image=spec["image"]["name"], reason=reason)
        path = volume_drivers.get(backend).export(volume_name(volume_id)).path
        luks.fill(path, Path(base["path"]), base["virtual_size"], key_of(secrets, volume_id), self.activity)
        return formatted

    def revert(self, **_kwargs: Any) -> None:
        """Removing the volume is enough."""


class PurgeEncryptionKey(Task):
    """Remove the key of what was purged. Past the pivot: not reverted. Absent is removed."""

    def execute(self, trashed: Mapping[str, Any], secrets: Any) -> None:
        secrets.purge(trashed["id"])


def key_of(secrets: Any, owner: str) -> bytes:
    """SecretUnreadable when it is gone."""
    key: bytes = secrets.get(secrets.reference(owner, KEY))
    return key


def luks_payload(size_gib: int) -> int:
    """What the guest has of an encrypted volume, in bytes."""
    from virtflow.images.luks import payload

    return payload(size_gib * GIB)
