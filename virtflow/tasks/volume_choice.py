"""On which backend a volume is made: the scheduler of hosts, asked about backends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from taskflow import retry

from virtflow.errors import NoValidBackend
from virtflow.persistence.decisions import DecisionRepository
from virtflow.persistence.hosts import HostRepository
from virtflow.persistence.volume_backends import Backend, BackendRepository
from virtflow.scheduler import Amounts, Considered, Decision, HostState, RequestSpec, Scheduler
from virtflow.tasks.base import Intent, Task
from virtflow.tasks.host_choice import ChoiceLimits
from virtflow.tasks.scheduling import NextHost
from virtflow.tasks.segments import OnHost
from virtflow.volumes.drivers import VolumeDrivers

GIB = 1 << 30
_OUT_OF_REACH = "out of reach: the operation runs without workers"


class BackendChoice:
    """Brings together the scheduler, the backends as they are registered, and the decisions that were made.

    To a filter or weigher a backend is a host that has nothing but disk, and it is down where its host is. ``ratio`` is
    how many GiB may be allocated per GiB of a backend, ``capacity_gib`` (unless 0) says it outright. ``workers``: those
    of the hosts have told what backends there are; otherwise this process tells of its own.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        backends: BackendRepository,
        hosts: HostRepository,
        decisions: DecisionRepository,
        drivers: VolumeDrivers,
        settings: Any,
        limits: ChoiceLimits,
        *,
        ratio: float,
        capacity_gib: int,
        workers: bool,
    ) -> None:
        self._scheduler = scheduler
        self._backends = backends
        self._hosts = hosts
        self._decisions = decisions
        self._drivers = drivers
        self._settings = settings
        self._ratio = ratio
        self._capacity_gib = capacity_gib
        self._workers = workers
        self.limits = limits

    def choose(
        self,
        spec: Mapping[str, Any],
        operation: str,
        attempt: Mapping[str, Any],
        only: str | None = None,
    ) -> Decision:
        """Decide, and keep the decision. ``only`` is the one host that can be reached; None when all can."""
        decision = self._select(spec, attempt["tried"], f"{operation}/{attempt['attempt']}", only)
        self._decisions.record(operation, attempt["attempt"], decision.to_dict())
        return decision

    def other_host_fits(
        self, spec: Mapping[str, Any], _volume_id: str, tried: Mapping[str, str], only: str | None = None
    ) -> bool:
        """Whether there is a backend to go on with after those that were tried (NextHost asks)."""
        return self._select(spec, tried, "", only).chosen is not None

    def chosen_before(self, operation: str) -> list[tuple[str | None, list[str]]]:
        """Of each attempt so far, in order: the backend that was chosen, and the alternates."""
        return [(each.chosen, each.document["alternates"]) for each in self._decisions.of_operation(operation)]

    def refresh(self) -> None:
        """Without workers, tell the database of this host's backends: nobody else does."""
        if not self._workers:
            self.register_own()

    def register_own(self) -> None:
        """Tell the database what this host's backends are, and how much room they have."""
        for name, driver_name in self._drivers.names().items():
            driver = self._drivers.get(name)
            total = self._capacity_gib or int(driver.capacity().total / GIB * self._ratio)
            self._backends.register(
                Backend(
                    name=name,
                    host=self._settings.host,
                    driver=driver_name,
                    zone=self._settings.zone,
                    total_gib=total,
                    capabilities={**driver.capabilities(), "backend": name.rpartition("@")[2]},
                )
            )

    def _select(self, spec: Mapping[str, Any], tried: Mapping[str, str], seed: str, only: str | None) -> Decision:
        wanted = RequestSpec(
            wanted=Amounts(disk_gib=spec["size_gib"]),
            zone=spec["zone"],
            host=spec["backend"],
            capabilities=spec["wanted"],
            tried=tried,
            for_host=spec.get("for_host"),
        )
        self.refresh()
        known = self._backends.list()
        within = [each for each in known if only in (None, each.host)]
        down = self._down(each.host for each in within)
        states = [_state(each, down.get(each.host)) for each in within]
        decision = self._scheduler.select(wanted, states, seed=seed, alternates=self.limits.max_attempts - 1)
        if decision.chosen is not None:
            return decision
        beyond = [each.name for each in known if only not in (None, each.host)]
        out_of_reach = tuple(
            Considered(name, "reach", _OUT_OF_REACH) for name in beyond if spec["backend"] in (None, name)
        )
        return replace(decision, considered=decision.considered + out_of_reach)

    def _down(self, names: Iterable[str]) -> dict[str, str]:
        """Why those of these hosts that are down count so; this process is on its own host, and alive."""
        others = sorted(set(names) - {self._settings.host})
        if not others:
            return {}
        records, at = {each.name: each for each in self._hosts.list(others)}, self._hosts.now()
        why = {
            name: records[name].down(self.limits.down_after, at) if name in records else "it was never registered"
            for name in others
        }
        return {name: reason for name, reason in why.items() if reason is not None}


def _state(backend: Backend, down: str | None) -> HostState:
    return HostState(
        name=backend.name,
        capacity=Amounts(disk_gib=backend.total_gib),
        used=Amounts(disk_gib=backend.allocated_gib),
        zone=backend.zone,
        enabled=backend.enabled,
        down=down,
        capabilities=backend.capabilities,
        host=backend.host,
    )


class SelectBackend(Task):
    """Choose a backend for the volume; the decision is kept with its reasons.

    Nothing is claimed yet; nothing to revert. A second execution decides again, and that decision counts.
    """

    default_provides = ("backend", "host")

    def execute(
        self,
        spec: Mapping[str, Any],
        operation: str,
        attempt: Mapping[str, Any],
        backend_choice: Any,
        volume_backends: Any,
        segments: Any,
    ) -> tuple[str, str]:
        decision = backend_choice.choose(spec, operation, attempt, segments.only_host)
        if decision.chosen is None:
            reason = decision.in_words().replace("no host is registered", "no backend is registered")
            raise NoValidBackend(target=f"volume {spec['name']}", reason=reason, refused=decision.refused)
        return decision.chosen, volume_backends.get(decision.chosen).host

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


class ClaimBackend(Task):
    """Give the volume its place: HostFull when somebody was quicker.

    Reverts: takes the place back. Claiming again is the same claim.
    """

    def intents(self, volume_id: str, backend: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("volume_claim", f"{backend}/{volume_id}"),)

    def execute(self, volume_id: str, backend: str, operation: str, volume_backends: Any) -> None:
        volume_backends.claim(backend, volume_id, operation)

    def revert(self, volume_id: str, backend: str, operation: str, volume_backends: Any, **_kwargs: Any) -> None:
        volume_backends.unclaim(backend, volume_id, operation)


class OnBackend(OnHost):
    """OnHost for the chosen backend: an operation may try several backends of one host, each with a segment of its own.

    Reverts: undoes the segment, on its host.
    """

    def __init__(self, segment: str, *, name: str, requires: tuple[str, ...]) -> None:
        super().__init__(segment, name=name, requires=(*requires, "backend"), provides=(), guards=())

    def execute(self, host: str, segments: Any, **inputs: Any) -> Any:
        place = inputs["backend"]
        return segments.run(self.segment, host, inputs, activity=self.activity, guards=self.guards, place=place)

    def revert(self, host: str, segments: Any, backend: str = "", **_kwargs: Any) -> None:
        segments.undo(self.segment, host, backend)


class NextBackend(NextHost):
    """Try another backend when one fails in a way that another might not; what failed was made clean before.

    Backends that were tried are not tried again. After ``[volumes] max_attempts`` the operation fails.
    """

    def __init__(self) -> None:
        names = {"instance_uuid": "volume_id", "host_choice": "backend_choice"}
        arguments = {name: names.get(name, name) for name in self._ARGUMENTS}
        retry.Retry.__init__(self, name="NextBackend", provides="attempt", rebind=arguments, auto_extract=False)
