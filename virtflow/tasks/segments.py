"""Running a part of an operation on its host, as a task of the parent flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from virtflow.tasks.base import Task


class OnHost(Task):
    """Run a segment on a host; provides what the segment gives back.

    The segment is a flow of its own in the same logbook. Its id follows from operation, segment and host, so a second
    execute finds the first one's and goes on with it.

    ``guards`` name the tasks of the segment from whose start on a guest may run there: until then a host that is down
    is given up, afterwards it is waited for, because a guest must never run twice. None: it is always waited for.

    ``host`` is the name under which the host is stored.

    Reverts: undoes the segment, on its host; a segment that never started has nothing to undo.
    """

    timeout = 0.0  # each task of the segment has its own

    def __init__(
        self,
        segment: str,
        *,
        name: str,
        requires: tuple[str, ...],
        provides: tuple[str, ...],
        guards: tuple[str, ...] | None = None,
        host: str = "host",
    ) -> None:
        super().__init__(
            name=name,
            requires=(*requires, "host", "segments"),
            revert_requires=("host", "segments"),
            rebind={"host": host},
            revert_rebind={"host": host},
            provides=set(provides) or None,
        )
        self.segment = segment
        self.guards = guards

    def execute(self, host: str, segments: Any, **inputs: Any) -> Any:
        return segments.run(self.segment, host, inputs, activity=self.activity, guards=self.guards)

    def revert(self, host: str, segments: Any, **_kwargs: Any) -> None:
        segments.undo(self.segment, host)


class OnEachHost(OnHost):
    """OnHost for each of a list: every entry says ``host`` and ``place``, which is unique among them, and what else the
    segment starts from. Provides the list of what each gives back.

    Reverts: undoes each, the last one first; one that never started has nothing to undo.
    """

    def __init__(self, segment: str, *, name: str, items: str, provides: str | None = None) -> None:
        Task.__init__(
            self,
            name=name,
            requires=("operation", "segments"),
            revert_requires=("segments",),
            rebind={"items": items},
            revert_rebind={"items": items},
            provides=provides,
        )
        self.segment = segment
        self.guards = None

    def execute(  # type: ignore[override]
        self, items: Sequence[Mapping[str, Any]], operation: str, segments: Any
    ) -> list[dict[str, Any]]:
        return [
            segments.run(
                self.segment,
                item["host"],
                {**item, "operation": operation},
                activity=self.activity,
                guards=self.guards,
                place=item["place"],
            )
            for item in items
        ]

    def revert(  # type: ignore[override]
        self, items: Sequence[Mapping[str, Any]], segments: Any, **_kwargs: Any
    ) -> None:
        for item in reversed(items):
            segments.undo(self.segment, item["host"], item["place"])
