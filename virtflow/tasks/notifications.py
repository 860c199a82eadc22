"""Telling others what happens to an instance. Nothing that cannot be told stops an operation."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from taskflow.types.failure import Failure

from virtflow.errors import NotFound
from virtflow.notifications.payloads import END, ERROR, START, UNDONE, Address, Fault, InstanceActionPayload
from virtflow.persistence.instances import Instance
from virtflow.persistence.models.base import isoformat, now
from virtflow.tasks.base import Task
from virtflow.tasks.failures import fault_of

_SAME = (
    *("uuid", "name", "project", "host", "vm_state", "task_state", "vcpus", "memory_mib", "disk_gib", "flavor"),
    *("image_id", "image_name", "operation"),
)
_TIMES = ("created_at", "launched_at", "deleted_at")


class NotifyStart(Task):
    """Tell that something begins to happen to the instance, such as ``instance.create``.

    Reverts: tells that it failed, with the fault, or was undone. By then everything that came after it is taken back.
    Said twice, it has the same message id.
    """

    def __init__(self, action: str) -> None:
        super().__init__()
        self.action = action

    def execute(self, instance_uuid: str, operation: str, instances: Any, networks: Any, notifier: Any) -> None:
        document = payload(instances.get(instance_uuid), networks)
        notifier.notify(self.action, START, document, operation=operation, timestamp=isoformat(now()))

    def revert(
        self,
        instance_uuid: str,
        operation: str,
        instances: Any,
        networks: Any,
        notifier: Any,
        flow_failures: Mapping[str, Failure],
        **_kwargs: Any,
    ) -> None:
        fault = fault_of(flow_failures)
        with suppress(NotFound):
            document = payload(instances.get(instance_uuid), networks, fault)
            phase = UNDONE if fault is None else ERROR
            notifier.notify(self.action, phase, document, operation=operation, timestamp=isoformat(now()))


class NotifyEnd(Task):
    """Tell that what was begun has succeeded.

    Reverts: nothing. It was true when it was said; NotifyStart's revert tells what became of it.
    """

    def __init__(self, action: str) -> None:
        super().__init__()
        self.action = action

    def execute(self, instance_uuid: str, operation: str, instances: Any, networks: Any, notifier: Any) -> None:
        document = payload(instances.get(instance_uuid), networks)
        notifier.notify(self.action, END, document, operation=operation, timestamp=isoformat(now()))

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


def payload(instance: Instance, networks: Any, fault: Fault | None = None) -> InstanceActionPayload:
    """The instance as others may know it, with the ports it has now."""
    ports = networks.ports(instance=instance.uuid)
    names = {identity: networks.get(identity).name for identity in {port.network_id for port in ports}}
    values: dict[str, Any] = {name: getattr(instance, name) for name in _SAME}
    values |= {name: isoformat(getattr(instance, name)) for name in _TIMES}
    addresses = tuple(Address(port.address, port.mac, port.id, names[port.network_id]) for port in ports)
    return InstanceActionPayload(**values, addresses=addresses, fault=fault)
