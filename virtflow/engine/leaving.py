"""All instances leave a host, an operation each, so many at a time: it is dead, or is to be emptied.

Nothing is kept but the operations and the host's marks: what is still to be moved is what is still there. So whoever
does it may die; doing it again goes on with what is left, and waits for the moves that are under way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from virtflow.errors import Busy, Conflict, VirtflowError
from virtflow.persistence.operations import FINISHED, SUCCESS, Operation

if TYPE_CHECKING:
    from virtflow.engine.runner import Runner
    from virtflow.persistence.instances import Instance
    from virtflow.requests import Request

_LOOK = 0.2
LIVE, COLD = "live", "cold"
_MOVES = ("migrate", "resize", "live-migrate", "evacuate", "resize-confirm")
"""Operations after which the instance may be elsewhere: they are waited for, and not begun a second time."""


@dataclass(frozen=True)
class Departure:
    """What became of one instance: ``host`` is where it is now, ``reason`` why it is still there."""

    instance: str
    project: str
    host: str | None
    operation: str | None
    outcome: str | None
    reason: str | None

    @property
    def left(self) -> bool:
        return self.reason is None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Leaving:
    """``ask`` makes the request for an instance. ``confirm``: a move that waits for a confirmation gets it."""

    def __init__(
        self,
        runner: Runner,
        host: str,
        ask: Callable[[Instance], Request],
        *,
        at_once: int,
        confirm: bool = False,
        tell: Callable[[Departure], None] = lambda _departure: None,
    ) -> None:
        self._runner = runner
        self._host = host
        self._ask = ask
        self._at_once = at_once
        self._confirm = confirm
        self._tell = tell
        self._running: dict[str, tuple[str, Operation]] = {}
        self._gone: list[Departure] = []

    def run(self) -> list[Departure]:
        """Until nothing is under way any more; what became of each instance, in the order in which that was known."""
        waiting = [each.uuid for each in self._there()]
        while waiting or self._running:
            while waiting and len(self._running) < self._at_once:
                self._begin(waiting.pop(0))
            for uuid, (_name, operation) in list(self._running.items()):
                found = self._runner.operations.get(operation.id, tasks=False)
                if found.state == FINISHED:
                    del self._running[uuid]
                    self._ended(uuid, found)
            if self._running:
                time.sleep(_LOOK)
        return self._gone

    def _there(self) -> Sequence[Instance]:
        """What is on the host, and what has left it and waits for a confirmation, if it is to get that."""
        instances = self._runner.services["instances"].list()
        if not self._confirm:
            return [each for each in instances if each.host == self._host]
        unconfirmed = self._runner.services["instance_specs"].unconfirmed()
        kept = {each.instance for each in unconfirmed if each.previous_host == self._host}
        return [each for each in instances if each.host == self._host or each.uuid in kept]

    def _begin(self, uuid: str) -> None:
        from virtflow.requests import ConfirmRequest

        instance = self._runner.services["instances"].get(uuid)
        if instance.deleted_at is not None:
            return
        confirming = self._confirm and instance.host != self._host
        try:
            request = ConfirmRequest(name=instance.name) if confirming else self._ask(instance)
            self._running[uuid] = instance.name, self._runner.submit(request, project=instance.project)
        except Busy as error:
            holder = self._runner.operations.holder(f"instance:{instance.name}")
            if holder is None or holder.kind not in _MOVES:
                self._told(instance, None, str(error))
            else:
                self._running[uuid] = instance.name, holder
        except VirtflowError as error:
            self._told(instance, None, str(error))

    def _ended(self, uuid: str, operation: Operation) -> None:
        instance = self._runner.services["instances"].get(uuid)
        if operation.outcome != SUCCESS:
            self._told(instance, operation, operation.error or str(operation.outcome))
        elif self._confirm and instance.vm_state == "VERIFY_RESIZE" and operation.kind != "resize-confirm":
            self._begin(uuid)
        elif instance.host == self._host:
            self._told(instance, operation, "it is still there")
        else:
            self._told(instance, operation, None)

    def _told(self, instance: Instance, operation: Operation | None, reason: str | None) -> None:
        outcome = None if operation is None else operation.outcome
        number = None if operation is None else operation.id
        departure = Departure(instance.name, instance.project, instance.host, number, outcome, reason)
        self._gone.append(departure)
        self._tell(departure)


def evacuate_host(
    runner: Runner,
    host: str,
    *,
    to: str | None = None,
    at_once: int = 4,
    tell: Callable[[Departure], None] = lambda _departure: None,
) -> list[Departure]:
    """Make anew elsewhere what a fenced host ran. NotFound; Conflict when it is not fenced."""
    from virtflow.requests import EvacuateRequest

    if not runner.core.hosts.is_fenced(runner.core.hosts.get(host).name):
        reason = f"it is not fenced, so its guests may run: virtflow host fence {host}"
        raise Conflict(action="evacuate", kind="host", name=host, reason=reason)
    return Leaving(
        runner, host, lambda instance: EvacuateRequest(name=instance.name, host=to), at_once=at_once, tell=tell
    ).run()


def drain_host(
    runner: Runner,
    host: str,
    *,
    how: str = LIVE,
    at_once: int = 2,
    tell: Callable[[Departure], None] = lambda _departure: None,
) -> list[Departure]:
    """Mark the host as one that is to be emptied, and move everything off. NotFound.

    ``how``: ``live`` migrates running guests; ``cold`` shuts them down, moves them, and confirms that.
    """
    runner.core.hosts.drain(host)
    ask = _live if how == LIVE else _cold
    return Leaving(runner, host, ask, at_once=at_once, confirm=how == COLD, tell=tell).run()


def still_there(departures: Iterable[Departure]) -> list[Departure]:
    return [each for each in departures if not each.left]


def _cold(instance: Instance) -> Request:
    from virtflow.requests import MigrateRequest

    return MigrateRequest(name=instance.name)


def _live(instance: Instance) -> Request:
    from virtflow.requests import REQUESTS

    if "live-migrate" not in REQUESTS:
        raise Conflict(
            action="move", kind="instance", name=instance.name, reason="this version moves no running guests"
        )
    return REQUESTS["live-migrate"](name=instance.name)
