"""Holding a volume, a snapshot or an instance: a state in which nothing else may be done with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from virtflow.errors import Conflict, InvalidRequest, NotFound
from virtflow.persistence import volume_rows as states
from virtflow.tasks.base import Debt, Task

_KEPT = ("id", "name", "project", "size_gib", "backend", "host", "bootable", "encryption", "operation")


class HoldVolume(Task):
    """Find the volume, hold it in ``state``, and record what undoing will need.

    Reverts: lets it go, back to the state from before; not before everything else was taken back, so that it is the
    last debt to be paid. What this operation holds already, it holds.
    """

    default_provides = ("volume_id", "volume", "host")

    def __init__(self, state: str, expected: Sequence[str], *, field: str = "name") -> None:
        super().__init__()
        self.state = state
        self.expected = expected
        self.field = field

    def execute(
        self,
        request: Mapping[str, Any],
        project: str,
        operation: str,
        volumes: Any,
        volume_snapshots: Any,
        settings: Any,
    ) -> tuple[str, dict[str, Any], str]:
        name = request[self.field]
        volume = volumes.find(name, project)
        if volume.name != name:
            # The operation holds the name it was given: under another one, two operations would not exclude each other.
            raise InvalidRequest(field=self.field, reason=f"must be the volume's name ({volume.name}), not its id")
        if self.state == states.DELETING:
            check_no_snapshots(volume, volume_snapshots)
        if not volumes.hold(volume.id, self.expected, self.state, operation):
            now = volumes.get(volume.id).state
            raise Conflict(action="change", kind="volume", name=name, reason=f"it is {now}")
        kept = {each: getattr(volume, each) for each in _KEPT}
        return volume.id, kept, volume.host or settings.host

    def revert(
        self,
        result: Any,
        request: Mapping[str, Any],
        project: str,
        operation: str,
        volumes: Any,
        ledger: Any,
        **_kwargs: Any,
    ) -> Debt | None:
        if owed(ledger, operation, self.name):
            return Debt(error="what comes after it is not taken back yet")
        with suppress(NotFound):
            recorded = isinstance(result, list | tuple)
            volumes.let_go(result[0] if recorded else volumes.find(request[self.field], project).id, operation)
        return None


class LetVolumeGo(Task):
    """Let the held volume go, into ``state`` or into the one from before (``before``, where ``state`` is another).

    Reverts: holds it again, in ``held``. A second execution finds that nothing is held.
    """

    def __init__(self, held: str, state: str | None = None, *, before: str | None = None) -> None:
        super().__init__()
        self.held = held
        self.state = state
        self.before = before

    def execute(self, volume_id: str, operation: str, volumes: Any) -> None:
        volumes.let_go(volume_id, operation, self.state)

    def revert(self, volume_id: str, operation: str, volumes: Any, **_kwargs: Any) -> None:
        left = (states.AVAILABLE, states.IN_USE) if self.state is None else (self.state,)
        if not volumes.hold_again(volume_id, left, self.held, operation, self.before):
            now = volumes.get(volume_id).state
            raise Conflict(action="take back", kind="volume", name=volume_id, reason=f"it is {now}")


class HoldSnapshot(Task):
    """Find the snapshot, and hold it for deletion. Reverts: lets it go. What it holds already, it holds."""

    default_provides = ("snapshot_id", "snapshot", "host")

    def execute(
        self, request: Mapping[str, Any], project: str, operation: str, volume_snapshots: Any, settings: Any
    ) -> tuple[str, dict[str, Any], str]:
        snapshot = volume_snapshots.find(request["name"], project)
        if snapshot.name != request["name"]:
            raise InvalidRequest(field="name", reason=f"must be the snapshot's name ({snapshot.name}), not its id")
        if not volume_snapshots.hold(snapshot.id, (states.AVAILABLE, states.ERROR), states.DELETING, operation):
            now = volume_snapshots.get(snapshot.id).state
            raise Conflict(action="delete", kind="volume snapshot", name=snapshot.name, reason=f"it is {now}")
        kept = {each: getattr(snapshot, each) for each in _KEPT}
        return snapshot.id, kept, snapshot.host or settings.host

    def revert(
        self,
        result: Any,
        request: Mapping[str, Any],
        project: str,
        operation: str,
        volume_snapshots: Any,
        **_kwargs: Any,
    ) -> None:
        with suppress(NotFound):
            recorded = isinstance(result, list | tuple)
            identity = result[0] if recorded else volume_snapshots.find(request["name"], project).id
            volume_snapshots.let_go(identity, operation)


class HoldSource(Task):
    """Hold the volume or snapshot that is to be copied: nobody writes to it, or deletes it, meanwhile.

    Reverts: lets it go. What this operation holds already, it holds.
    """

    def execute(self, spec: Mapping[str, Any], operation: str, volumes: Any, volume_snapshots: Any) -> None:
        rows = _rows_of_source(spec, volumes, volume_snapshots)
        if not rows.hold(spec["source_id"], states.AVAILABLE, states.COPYING, operation):
            now = rows.get(spec["source_id"]).state
            raise Conflict(action="copy", kind=spec["source"], name=spec["source_id"], reason=f"it is {now}")

    def revert(
        self, spec: Mapping[str, Any], operation: str, volumes: Any, volume_snapshots: Any, **_kwargs: Any
    ) -> None:
        _rows_of_source(spec, volumes, volume_snapshots).let_go(spec["source_id"], operation)


class LetSourceGo(Task):
    """The copy is made: let its source go. Reverts: nothing, the source is not needed to take the copy back."""

    def execute(self, spec: Mapping[str, Any], operation: str, volumes: Any, volume_snapshots: Any) -> None:
        _rows_of_source(spec, volumes, volume_snapshots).let_go(spec["source_id"], operation)

    def revert(self, **_kwargs: Any) -> None:
        """The source stays as it is."""


def owed(ledger: Any, operation: str, *holds: str) -> bool:
    """Whether the operation has still to take back anything but these holds."""
    return any(row.task not in holds for row in ledger.debts(operation))


def _rows_of_source(spec: Mapping[str, Any], volumes: Any, volume_snapshots: Any) -> Any:
    return volumes if spec["source"] == "volume" else volume_snapshots


def check_no_snapshots(volume: Any, volume_snapshots: Any) -> None:
    found = volume_snapshots.list(volume=volume.id)
    if found:
        reason = f"snapshot {found[0].name} was taken of it"
        raise Conflict(action="delete", kind="volume", name=volume.name, reason=reason)
