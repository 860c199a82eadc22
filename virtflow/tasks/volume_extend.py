"""A volume grows: in the books, on its backend, in its guest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from virtflow.errors import Conflict, InvalidRequest
from virtflow.tasks.base import Debt, Task
from virtflow.tasks.volume_encryption import luks_payload
from virtflow.tasks.volume_halt import let_run
from virtflow.volumes.driver import Connection, volume_name

GIB = 1 << 30


class CheckExtension(Task):
    """The new size has to be larger, and the guest that has the volume has to be able to see it. It only reads."""

    def execute(
        self, request: Mapping[str, Any], volume: Mapping[str, Any], attachment: Mapping[str, Any] | None
    ) -> None:
        if request["size_gib"] <= volume["size_gib"]:
            reason = f"must be more than the {volume['size_gib']} GiB that it has: volumes only grow"
            raise InvalidRequest(field="size_gib", reason=reason)
        if attachment is not None and (attachment["connection"] or {}).get("kind") == "nbd":
            reason = "its guest reaches it by NBD, which has no way to tell of a new size: detach it first"
            raise Conflict(action="extend", kind="volume", name=volume["name"], reason=reason)

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


class ClaimExtension(Task):
    """Let the volume take more of its backend: HostFull where there is no room. Its row says the new size from here.

    Reverts: the old size. Both set a number, so twice is once.
    """

    def execute(
        self, volume: Mapping[str, Any], request: Mapping[str, Any], operation: str, volume_backends: Any
    ) -> None:
        volume_backends.resize(volume["backend"], volume["id"], operation, request["size_gib"])

    def revert(self, volume: Mapping[str, Any], request: Mapping[str, Any], volumes: Any, **_kwargs: Any) -> None:
        volumes.change(volume["id"], {"size_gib": request["size_gib"]}, {"size_gib": volume["size_gib"]})


class ExtendOnBackend(Task):
    """Let the volume grow. Where a guest runs with a format that only its QEMU may change, ExtendInGuest does it.

    Reverts: cuts it off again, as long as nothing was written beyond its old end, and no guest has seen that; otherwise
    that is a debt. One that has the size has it.
    """

    timeout = "disk"

    def execute(
        self,
        volume: Mapping[str, Any],
        request: Mapping[str, Any],
        attachment: Mapping[str, Any] | None,
        volume_drivers: Any,
        guest_disks: Any,
    ) -> None:
        driver = volume_drivers.get(volume["backend"])
        if not (driver.capabilities()["format"] != "raw" and _opened_here(guest_disks, volume, attachment)):
            driver.extend(volume_name(volume["id"]), request["size_gib"] * GIB, self.activity)

    def revert(
        self, volume: Mapping[str, Any], operation: str, volume_drivers: Any, ledger: Any, **_kwargs: Any
    ) -> Debt | None:
        if any(row.task == ExtendInGuest.__name__ for row in ledger.debts(operation)):
            return Debt(error="its guest has seen the new size")
        driver = volume_drivers.get(volume["backend"])
        driver.shrink(volume_name(volume["id"]), volume["size_gib"] * GIB, self.activity)
        return None


class ExtendInGuest(Task):
    """Tell the running guest of its disk's new size, and let it run again where it was halted for that. The last step:
    what a guest has seen, it may use.

    Reverts: tells it the old size, as long as it has written nothing beyond that; otherwise, and on another host than
    the backend's, that is a debt. Telling it twice is telling it once.
    """

    timeout = "disk"

    def execute(
        self,
        volume: Mapping[str, Any],
        request: Mapping[str, Any],
        attachment: Mapping[str, Any] | None,
        paused: bool,
        volume_connector: Any,
        guest_disks: Any,
        hypervisor: Any,
    ) -> None:
        if attachment is not None:
            volume_connector.extend(Connection.from_dict(attachment["connection"]), self.activity)
            guest_disks.resize(attachment["instance"], volume["id"], seen_size(volume, request["size_gib"]))
            if paused:
                let_run(hypervisor, attachment["instance"])

    def revert(
        self,
        volume: Mapping[str, Any],
        attachment: Mapping[str, Any] | None,
        volume_drivers: Any,
        guest_disks: Any,
        **_kwargs: Any,
    ) -> Debt | None:
        if attachment is None or guest_disks.find(attachment["instance"], volume["id"], live=True) is None:
            return None
        if volume["host"] != attachment["host"]:
            return Debt(error="the guest runs on another host than its volume's backend, and may use the new size")
        # Refuses when there is data that would be cut off; only then the guest is told.
        driver = volume_drivers.get(volume["backend"])
        driver.shrink(volume_name(volume["id"]), volume["size_gib"] * GIB, self.activity)
        guest_disks.resize(attachment["instance"], volume["id"], seen_size(volume, volume["size_gib"]))
        return None


def seen_size(volume: Mapping[str, Any], size_gib: int) -> int:
    """What the guest sees of a volume of that size, in bytes."""
    return luks_payload(size_gib) if volume["encryption"] else size_gib * GIB


def _opened_here(guest_disks: Any, volume: Mapping[str, Any], attachment: Mapping[str, Any] | None) -> bool:
    """Whether a guest of this host has the volume's own file open."""
    if attachment is None or attachment["host"] != volume["host"]:
        return False
    return guest_disks.find(attachment["instance"], volume["id"], live=True) is not None
