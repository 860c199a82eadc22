"""The instance's task state while it is built: a chain in which every link is a compare-and-swap."""

from __future__ import annotations

from typing import Any

from virtflow.errors import Conflict
from virtflow.tasks.base import Task

SCHEDULING = "SCHEDULING"
NETWORKING = "NETWORKING"
BLOCK_DEVICE_MAPPING = "BLOCK_DEVICE_MAPPING"
SPAWNING = "SPAWNING"
_CHAIN = (SCHEDULING, NETWORKING, BLOCK_DEVICE_MAPPING, SPAWNING)


class SetTaskState(Task):
    """Move the instance that is being built on to its next task state.

    Conflict if it is in another state than the one before: somebody else has changed it, and must not be overrun.
    A second execution finds the state that the first has set. The first link also takes over what a host that was
    given up has left. ``after`` names what must have been provided before.

    Reverts: the state before, if the instance is still in this one, and this host's: a host that was given up may
    revert long after another has taken its place.
    """

    def __init__(self, state: str, *, previous: str, after: tuple[str, ...] = ()) -> None:
        super().__init__(name=f"Enter{state.title().replace('_', '')}", requires=after)
        self.state = state
        self.previous = previous

    def execute(self, instance_uuid: str, instances: Any, **_after: Any) -> None:
        begun = _CHAIN if self.previous == SCHEDULING else (self.previous, self.state)
        expected = {"vm_state": "BUILDING", "task_state": begun}
        if not instances.compare_and_set(instance_uuid, expected, {"task_state": self.state}):
            found = instances.get(instance_uuid)
            reason = f"it is {found.vm_state} ({found.task_state}), not BUILDING ({self.previous})"
            raise Conflict(action="go on building", kind="instance", name=found.name, reason=reason)

    def revert(self, instance_uuid: str, instances: Any, placement: Any, settings: Any, **_kwargs: Any) -> None:
        if not placement.allocations(instance_uuid, settings.host):
            return
        expected = {"vm_state": "BUILDING", "task_state": self.state}
        instances.compare_and_set(instance_uuid, expected, {"task_state": self.previous})
