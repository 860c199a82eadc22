"""Live migration, as the database sees it: the instance's mark, whose it is, and when there is no way back any more.

There is none once the guest runs on the destination. ``StayOrGo`` finds that out from what the source has recorded:
from then on the operation only goes forward, whatever breaks.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from taskflow import retry

from virtflow.errors import Conflict, HostGivenUp, InvalidRequest, NotFound
from virtflow.tasks.base import Task
from virtflow.tasks.moved_volumes import Moved, left_volumes, moved_volumes, reachable_host, with_volumes
from virtflow.tasks.notifications import NotifyEnd
from virtflow.tasks.resize import find_in_state, swap_state
from virtflow.tasks.resize_request import resized
from virtflow.tasks.segments import OnHost

MIGRATING = "MIGRATING"
MIGRATABLE = {"vm_state": "ACTIVE", "task_state": (None, MIGRATING)}
_ACTION = "live-migrate"
_KEPT = ("uuid", "name", "project", "operation")
_ATTEMPTS = 20
_LONGEST_PAUSE = 5.0


class LockForLiveMigration(Task):
    """Find the instance, mark it MIGRATING, and record where it is, what it is, and which volumes it has.

    ``excluded`` are hosts that will not do, each with the reason; InvalidRequest where one was asked for.

    Reverts: the mark, which can only be this operation's: it holds the target. What it records was read before anything
    else was changed; a second execution reads the same.
    """

    default_provides = (
        *("instance_uuid", "instance", "source_host", "ports", "old_spec", "spec", "excluded"),
        "moved_volumes",
    )

    def execute(
        self,
        request: Mapping[str, Any],
        project: str,
        instances: Any,
        instance_specs: Any,
        networks: Any,
        volumes: Any,
        volume_attachments: Any,
        volume_backends: Any,
    ) -> tuple[Any, ...]:
        instance = find_in_state(instances, request["name"], project, _ACTION, MIGRATABLE)
        if request["host"] == instance.host:
            raise InvalidRequest(field="host", reason=f"the instance is on {instance.host} already")
        old = instance_specs.current(instance.uuid, instance.operation)
        swap_state(instances, instance, _ACTION, MIGRATABLE, {"task_state": MIGRATING})
        # Only now: none is attached, and none taken away, from here on.
        moved = moved_volumes(instance, old, _ACTION, volumes, volume_attachments)
        excluded = {str(instance.host): "the instance is there already"}
        host = reachable_host(instance, moved, request["host"], excluded, _ACTION, volume_backends)
        spec = with_volumes(resized(old, {"host": host}, None), moved)
        ports = [asdict(port) for port in networks.ports(instance=instance.uuid)]
        kept = {name: getattr(instance, name) for name in _KEPT}
        return instance.uuid, kept, instance.host, ports, old, spec, excluded, moved

    def revert(self, request: Mapping[str, Any], project: str, instances: Any, **_kwargs: Any) -> None:
        with suppress(NotFound):
            found = instances.find(request["name"], project)
            instances.compare_and_set(found.uuid, {"task_state": MIGRATING}, {"task_state": None})


class PerDestination(OnHost):
    """OnHost for what is done anew for each destination on a host that stays the same: a segment for each of them."""

    def __init__(self, segment: str, *, requires: tuple[str, ...], **options: Any) -> None:
        super().__init__(segment, requires=(*requires, "destination"), **options)

    def execute(self, host: str, segments: Any, **inputs: Any) -> Any:
        place = inputs["destination"]
        return segments.run(self.segment, host, inputs, activity=self.activity, guards=self.guards, place=place)

    def revert(self, host: str, segments: Any, destination: str = "", **_kwargs: Any) -> None:
        segments.undo(self.segment, host, destination)


class StayOrGo(retry.Retry):
    """Decide what a failure means while the guest goes: until it has arrived everything is taken back.

    Once the source's segment has ended well the guest runs on the destination, or once that has found it there. Then
    what is left is tried again until it is done: the guest is not brought back because a row could not be written.
    """

    def __init__(self, segment: str, found: str) -> None:
        super().__init__(name="StayOrGo", requires=("segments", "source_host", "destination"), auto_extract=False)
        self._segment = segment
        self._found = found

    def execute(self, history: retry.History, **_kwargs: Any) -> int:
        return len(history) + 1

    def on_failure(self, history: retry.History, segments: Any, source_host: str, destination: str) -> str:
        gone = has_arrived(segments, (self._segment, self._found), source_host, destination)
        if not gone or len(history) >= _ATTEMPTS:
            return str(retry.REVERT)
        time.sleep(min(0.1 * 2 ** len(history), _LONGEST_PAUSE))
        return str(retry.RETRY)


class LeaveSource(OnHost):
    """OnHost in which the guest goes. A cancel is passed on to the source, whose answer decides: it may be too late.

    While the source is away nobody knows where the guest runs, so it is waited for; but where somebody vouches for it
    that nothing runs there any more, the destination is asked (the segment ``found``), and that decides.

    Reverts: undoes the segment, which keeps the guest on the source, or starts it there once that is back; nothing once
    the guest has arrived.
    """

    cancellable = False

    def __init__(self, segment: str, *, found: str, requires: tuple[str, ...], **options: Any) -> None:
        super().__init__(segment, requires=requires, **options)
        self._found = found

    def execute(self, host: str, segments: Any, **inputs: Any) -> Any:
        try:
            return segments.run(self.segment, host, inputs, activity=self.activity, until_fenced=True)
        except HostGivenUp:
            asked = {"instance_uuid": inputs["instance_uuid"]}
            return segments.run(self._found, inputs["destination"], asked, activity=self.activity, until_fenced=True)

    def revert(self, host: str, segments: Any, destination: str = "", **_kwargs: Any) -> None:
        if not has_arrived(segments, (self.segment, self._found), host, destination):
            segments.undo(self.segment, host)


class SwitchHost(Task):
    """The instance is where its guest runs: this is the pivot. Provides what is left on the host that it has left.

    One compare-and-swap of the instance; what goes with it is written before, and is the same whenever it is written.

    Reverts: nothing. It is executed only when the guest has arrived, and that is not taken back.
    """

    cancellable = False
    default_provides = "leftover"

    def execute(
        self,
        instance_uuid: str,
        source_host: str,
        destination: str,
        source: Mapping[str, Any],
        source_vifs: Sequence[Mapping[str, Any]],
        landing: Mapping[str, Any],
        moved_volumes: Moved,
        migrated: Mapping[str, Any],  # noqa: ARG002 - the order
        instances: Any,
        networks: Any,
    ) -> dict[str, Any]:
        networks.move_ports(instance_uuid, destination)
        expected = {"host": source_host, "task_state": MIGRATING}
        if not instances.compare_and_set(instance_uuid, expected, {"host": destination, "task_state": None}):
            found = instances.get(instance_uuid)
            if found.host != destination:
                reason = f"it is {found.vm_state} ({found.task_state}) on {found.host}"
                raise Conflict(action="finish the migration of", kind="instance", name=found.name, reason=reason)
        return {
            "instance_uuid": instance_uuid,
            "host": source_host,
            "owner": source["owner"],
            "shared": landing["shared"],
            "vifs": list(source_vifs),
            "volumes": left_volumes(moved_volumes),
        }

    def revert(self, **_kwargs: Any) -> None:
        """The guest stays where it runs."""


class NotifyArrived(NotifyEnd):
    """NotifyEnd past the pivot: a cancel comes too late for it."""

    cancellable = False


class SettleLeftover(Task):
    """Hold nothing of the host that the instance has left any more, nor refer to its bases.

    Past the pivot: not reverted. Doing it twice is doing it once.
    """

    def execute(self, leftover: Mapping[str, Any], placement: Any, base_references: Any) -> None:
        host, instance = leftover["host"], leftover["instance_uuid"]
        placement.release(host, instance)
        for each in base_references.references(host=host, consumer=instance):
            base_references.drop_reference(each.base_path, each.host, each.consumer)


def has_arrived(segments: Any, knowing: Sequence[str], source_host: str, destination: str) -> bool:
    """Whether the guest runs on the destination. ``knowing`` are the segment of the source in which it goes, and that
    of the destination in which it is found."""
    leaving, finding = knowing
    return bool(segments.finished(leaving, source_host) or segments.finished(finding, destination))
