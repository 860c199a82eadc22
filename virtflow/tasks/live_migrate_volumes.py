"""The volumes of an instance whose guest moves while it runs: nothing on them is copied, each host reaches them.

Both hosts reach them while the guest goes, and only the one on which it runs writes to them: QEMU hands a disk over
when everything that was written is on it. Until the guest has arrived all is taken back; from then on nothing is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from virtflow.errors import NotFound
from virtflow.tasks.base import Debt, Task
from virtflow.tasks.live_migrate import has_arrived
from virtflow.tasks.live_migrate_destination import HERE
from virtflow.tasks.live_migrate_source import check_gone
from virtflow.tasks.moved_volumes import (
    ConnectMovedVolumes,
    LetMovedVolumesGo,
    MakeMovedCredentials,
    Moved,
    PurgeLeftCredentials,
    SwitchAttachments,
    disconnect_left,
)
from virtflow.tasks.segments import OnEachHost
from virtflow.volumes.driver import volume_name


class MakeArrivingCredentials(MakeMovedCredentials):
    """MakeMovedCredentials. Reverts: as that does, but nothing once the guest has arrived (``segments`` name those that
    know)."""

    def __init__(self, *segments: str) -> None:
        super().__init__(left=False)
        self.segments = segments

    def revert(  # type: ignore[override]
        self,
        moved_volumes: Moved,
        source_host: str,
        destination: str,
        secrets: Any,
        segments: Any,
        **_kwargs: Any,
    ) -> None:
        if not has_arrived(segments, self.segments, source_host, destination):
            super().revert(moved_volumes, source_host, destination, secrets)


class ExportArriving(OnEachHost):
    """OnEachHost for what the destination reaches in another way than the source, which goes on as before.

    Reverts: as OnEachHost does, but nothing once the guest has arrived (``segments`` name those that know).
    """

    def __init__(self, segment: str, *segments: str) -> None:
        Task.__init__(
            self,
            requires=("operation", "segments"),
            revert_requires=("segments", "source_host", "destination"),
            rebind={"items": "exports"},
            revert_rebind={"items": "exports"},
            provides="exported",
        )
        self.segment = segment
        self.guards = None
        self.segments = segments

    def revert(  # type: ignore[override]
        self,
        items: Sequence[Mapping[str, Any]],
        segments: Any,
        source_host: str,
        destination: str,
        **_kwargs: Any,
    ) -> None:
        if not has_arrived(segments, self.segments, source_host, destination):
            super().revert(items, segments)


class ConnectArriving(ConnectMovedVolumes):
    """ConnectMovedVolumes for a guest that comes. Reverts: as that does; what waits for the guest is removed first."""

    def revert(  # type: ignore[override]
        self,
        moved_volumes: Moved,
        connections: Sequence[Mapping[str, Any]],
        instance_uuid: str,
        hypervisor: Any,
        volume_connector: Any,
        libvirt_secrets: Any,
        migrations: Any,
        **_kwargs: Any,
    ) -> Debt | None:
        if not migrations.clear_for_removal(instance_uuid):
            return HERE
        given = (moved_volumes, connections, instance_uuid, hypervisor, volume_connector, libvirt_secrets)
        return super().revert(*given)


class SwitchArrived(SwitchAttachments):
    """SwitchAttachments of a guest that has arrived. Provides what is served to nobody any more.

    Reverts: nothing. It is executed only then, and that is not taken back.
    """

    cancellable = False
    default_provides = "left_exports"

    def execute(  # type: ignore[override]
        self,
        moved_volumes: Moved,
        connections: Sequence[Mapping[str, Any]],
        exports: Sequence[Mapping[str, Any]],
        destination: str,
        migrated: Mapping[str, Any],  # noqa: ARG002 - the order
        volume_attachments: Any,
    ) -> list[Mapping[str, Any]]:
        for each, exported in zip(moved_volumes, connections, strict=True):
            with suppress(NotFound):  # let go and detached since, where this is done again
                volume_attachments.set(each["attachment_id"], host=destination, connection=dict(exported["connection"]))
        return [each for each in exports if each["reach"]["local"]]

    def revert(self, **_kwargs: Any) -> None:  # type: ignore[override]
        """The guest stays where it runs."""


class UnexportOnBackends(OnEachHost):
    """OnEachHost past the pivot, while the volumes are held: nobody else can have got them to be served.

    Reverts: nothing. The guest stays where it runs.
    """

    cancellable = False

    def __init__(self, segment: str) -> None:
        super().__init__(segment, name=type(self).__name__, items="left_exports")

    def revert(self, **_kwargs: Any) -> None:  # type: ignore[override]
        """The guest stays where it runs."""


class UnexportLeft(Task):
    """The source reaches the volume no more, and the destination, which has its backend, needs no server.

    Past the pivot: not reverted. Absent is unexported.
    """

    timeout = "disk"

    def execute(self, volume: Mapping[str, Any], volume_drivers: Any) -> None:
        volume_drivers.get(volume["backend"]).unexport(volume_name(volume["id"]))


class PurgeUnused(PurgeLeftCredentials):
    """PurgeLeftCredentials past the pivot. Reverts: nothing. The guest stays where it runs."""

    cancellable = False

    def revert(self, **_kwargs: Any) -> None:  # type: ignore[override]
        """The guest stays where it runs."""


class LetArrivedGo(LetMovedVolumesGo):
    """LetMovedVolumesGo past the pivot. Reverts: nothing. The guest stays where it runs."""

    cancellable = False

    def revert(self, **_kwargs: Any) -> None:  # type: ignore[override]
        """The guest stays where it runs."""


class DisconnectLeft(Task):
    """The host that the guest has left reaches its volumes no more, and libvirt forgets their passwords and keys. What
    an instance of this host has got since stays.

    Past the pivot: not reverted. Absent is disconnected.
    """

    default_provides = "disconnected"
    timeout = "disk"

    def execute(
        self,
        leftover: Mapping[str, Any],
        unplugged: bool,
        hypervisor: Any,
        volume_attachments: Any,
        volume_connector: Any,
        libvirt_secrets: Any,
        settings: Any,
    ) -> bool:
        check_gone(hypervisor, leftover["instance_uuid"])
        reaching = (volume_attachments, volume_connector, libvirt_secrets, self.activity)
        disconnect_left(leftover["volumes"], settings.host, *reaching)
        return unplugged
