"""Telling others of images that are made of instances."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Any

from taskflow.types.failure import Failure

from virtflow.errors import NotFound
from virtflow.notifications.payloads import END, ERROR, START, UNDONE, Fault, InstanceSnapshotPayload
from virtflow.persistence.models.base import isoformat, now
from virtflow.tasks.base import Task
from virtflow.tasks.failures import fault_of
from virtflow.tasks.notifications import payload

ACTION = "instance.snapshot"


class NotifySnapshotStart(Task):
    """Tell that an image is being made of the instance.

    Reverts: tells that it failed, with the fault, or was undone. By then everything that came after it is taken back.
    Said twice, it has the same message id.
    """

    def execute(
        self,
        instance_uuid: str,
        draft: Mapping[str, Any],
        operation: str,
        instances: Any,
        networks: Any,
        notifier: Any,
    ) -> None:
        document = _payload(instances.get(instance_uuid), networks, draft)
        notifier.notify(ACTION, START, document, operation=operation, timestamp=isoformat(now()))

    def revert(
        self,
        instance_uuid: str,
        draft: Mapping[str, Any],
        operation: str,
        instances: Any,
        networks: Any,
        notifier: Any,
        flow_failures: Mapping[str, Failure],
        **_kwargs: Any,
    ) -> None:
        fault = fault_of(flow_failures)
        with suppress(NotFound):
            document = _payload(instances.get(instance_uuid), networks, draft, fault)
            phase = UNDONE if fault is None else ERROR
            notifier.notify(ACTION, phase, document, operation=operation, timestamp=isoformat(now()))


class NotifySnapshotEnd(Task):
    """Tell that the image is there.

    Reverts: nothing. It was true when it was said; NotifySnapshotStart's revert tells what became of it.
    """

    def execute(
        self,
        instance_uuid: str,
        draft: Mapping[str, Any],
        operation: str,
        instances: Any,
        networks: Any,
        notifier: Any,
    ) -> None:
        document = _payload(instances.get(instance_uuid), networks, draft)
        notifier.notify(ACTION, END, document, operation=operation, timestamp=isoformat(now()))

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


def _payload(
    instance: Any, networks: Any, draft: Mapping[str, Any], fault: Fault | None = None
) -> InstanceSnapshotPayload:
    of_instance = payload(instance, networks, fault)
    values = {field.name: getattr(of_instance, field.name) for field in fields(of_instance)}
    return InstanceSnapshotPayload(**values, snapshot_image_id=draft["id"], snapshot_image_name=draft["name"])
