"""The guest that has a volume, halted as long as nothing may be written: it grows, or is copied.

A guest has several volumes, and who lets it run after one of them would do so in the middle of another: the instance is
held, so that only one halts it at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from virtflow.tasks.base import Debt, Intent, Task
from virtflow.tasks.volume_attach import HALTING, HoldInstance, LetInstanceGo
from virtflow.volumes.connectors.connector import check_server
from virtflow.volumes.driver import Connection

_PAUSED, _RUNNING = "paused", "running"
"""What the hypervisor calls it: its module would import libvirt, which most processes do not need."""


class FindWriter(Task):
    """Which instance has the volume, and on which host: None, and the backend's host, if none has. It only reads."""

    default_provides = ("attachment", "instance_host")

    def execute(self, volume_id: str, host: str, volume_attachments: Any) -> tuple[dict[str, Any] | None, str]:
        found = volume_attachments.of_volume(volume_id)
        return (None, host) if found is None else (asdict(found), str(found.host))

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


class HoldWriter(HoldInstance):
    """HoldInstance of the one that has the volume, if one has. Reverts: as that does."""

    def __init__(self) -> None:
        super().__init__(HALTING, "halt")

    def execute(  # type: ignore[override]
        self, attachment: Mapping[str, Any] | None, operation: str, instances: Any
    ) -> None:
        if attachment is not None:
            super().execute(attachment["instance"], operation, instances)

    def revert(  # type: ignore[override]
        self, attachment: Mapping[str, Any] | None, operation: str, instances: Any, ledger: Any, **_kwargs: Any
    ) -> Debt | None:
        return None if attachment is None else super().revert(attachment["instance"], operation, instances, ledger)


class LetWriterGo(LetInstanceGo):
    """LetInstanceGo of the one that has the volume, if one has. Reverts: as that does."""

    def __init__(self) -> None:
        super().__init__(HALTING)

    def execute(  # type: ignore[override]
        self, attachment: Mapping[str, Any] | None, operation: str, instances: Any
    ) -> None:
        if attachment is not None:
            super().execute(attachment["instance"], operation, instances)

    def revert(  # type: ignore[override]
        self, attachment: Mapping[str, Any] | None, operation: str, instances: Any, **_kwargs: Any
    ) -> None:
        if attachment is not None:
            super().revert(attachment["instance"], operation, instances)


class RecordGuestState(Task):
    """Provide whether the guest runs that has the volume: one that somebody else has halted stays so. ``served``: only
    one that reaches it through a server counts. It only reads."""

    default_provides = "guest_ran"

    def __init__(self, *, served: bool) -> None:
        super().__init__()
        self.served = served

    def execute(self, attachment: Mapping[str, Any] | None, hypervisor: Any) -> bool:
        if attachment is None or (self.served and not _by_server(attachment)):
            return False
        return bool(hypervisor.state(attachment["instance"]) == _RUNNING)

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


class PauseGuest(Task):
    """Halt the guest that has the volume; what it has written is there by then. Provides whether it did. A VolumeError
    where nobody serves the volume: a guest whose writes are not answered cannot be halted.

    A server gives a volume away for a moment when it grows, and what a guest wrote then would fail; and what is copied
    while a guest writes is neither what was there before nor afterwards.

    Reverts: lets it run again. One that is halted is only let go of by ExtendInGuest or LetGuestRun, or by this.
    """

    default_provides = "paused"

    def intents(self, attachment: Mapping[str, Any] | None, guest_ran: bool, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("guest_pause", attachment["instance"]),) if attachment is not None and guest_ran else ()

    def execute(self, attachment: Mapping[str, Any] | None, guest_ran: bool, hypervisor: Any) -> bool:
        if attachment is None or not guest_ran:
            return False
        check_server(Connection.from_dict(attachment["connection"]))
        hypervisor.suspend(attachment["instance"])
        return bool(hypervisor.state(attachment["instance"]) == _PAUSED)

    def revert(self, attachment: Mapping[str, Any] | None, guest_ran: bool, hypervisor: Any, **_kwargs: Any) -> None:
        if attachment is not None and guest_ran:
            let_run(hypervisor, attachment["instance"])


class LetGuestRun(Task):
    """Let the guest run again that was halted. Reverts: nothing. One that runs, runs."""

    def execute(self, attachment: Mapping[str, Any] | None, paused: bool, hypervisor: Any) -> None:
        if attachment is not None and paused:
            let_run(hypervisor, attachment["instance"])

    def revert(self, **_kwargs: Any) -> None:
        """It goes on, whatever becomes of the volume."""


def _by_server(attachment: Mapping[str, Any]) -> bool:
    return bool((attachment["connection"] or {}).get("kind") == "iscsi")


def let_run(hypervisor: Any, instance_uuid: str) -> None:
    """Let the guest go on, if it is halted."""
    if hypervisor.state(instance_uuid) == _PAUSED:
        hypervisor.resume(instance_uuid)
