"""What tasks ask about hosts: which one, which instead, and whether there is any other at all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from virtflow.errors import VirtflowError
from virtflow.hypervisor.inventory import read_inventory
from virtflow.persistence.decisions import DecisionRepository
from virtflow.persistence.hosts import HostRecord, HostRepository
from virtflow.scheduler import Amounts, Considered, Decision, HostState, RequestSpec, Scheduler
from virtflow.tasks.disk_request import claimed

LOG = logging.getLogger(__name__)
_OUT_OF_REACH = "out of reach: the operation runs without workers"


@dataclass(frozen=True)
class ChoiceLimits:
    """``max_attempts`` hosts are tried; a heartbeat holds for ``down_after`` seconds."""

    max_attempts: int = 3
    down_after: float = 60.0


class HostChoice:
    """Brings together the scheduler, the hosts as they are registered, and the decisions that were made.

    ``describe`` finds out this host's capabilities; it is asked when this host is first a candidate in this process,
    unless a worker looks after the host: then the worker has registered it. None: workers look after all hosts.
    ``placement`` tells what an instance that is moved or resized holds already: on that host it is room for it.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        hosts: HostRepository,
        decisions: DecisionRepository,
        server_groups: Any,
        settings: Any,
        describe: Callable[[], Mapping[str, Any]] | None,
        limits: ChoiceLimits,
        placement: Any = None,
    ) -> None:
        self._scheduler = scheduler
        self._hosts = hosts
        self._decisions = decisions
        self._server_groups = server_groups
        self._settings = settings
        self._describe = describe
        self._capabilities: Mapping[str, Any] | None = None
        self._known: dict[str, tuple[HostRecord, HostState]] = {}
        self.limits = limits
        self._placement = placement

    def choose(
        self,
        spec: Mapping[str, Any],
        instance_uuid: str,
        operation: str,
        attempt: Mapping[str, Any],
        only: str | None = None,
    ) -> Decision:
        """Decide, and keep the decision. An alternate of the decision before is taken while it still fits.

        ``only`` is the one host that can be reached; None when all can.
        """
        wanted = self._request(spec, instance_uuid, attempt["tried"])
        held = self._held(instance_uuid)
        decision = self._among_alternates(wanted, attempt["alternates"], held)
        if decision is None:
            seed = f"{operation}/{attempt['attempt']}"
            decision = self._select(wanted, seed, only, held)
        self._decisions.record(operation, attempt["attempt"], decision.to_dict())
        return decision

    def other_host_fits(
        self, spec: Mapping[str, Any], instance_uuid: str, tried: Mapping[str, str], only: str | None = None
    ) -> bool:
        """Whether there is a host to go on with after those that were tried."""
        wanted = self._request(spec, instance_uuid, tried)
        return self._select(wanted, "", only, self._held(instance_uuid)).chosen is not None

    def chosen_before(self, operation: str) -> list[tuple[str | None, list[str]]]:
        """Of each attempt so far, in order: the host that was chosen, and the alternates."""
        return [(each.chosen, each.document["alternates"]) for each in self._decisions.of_operation(operation)]

    def _select(self, wanted: RequestSpec, seed: str, only: str | None, held: Mapping[str, Amounts]) -> Decision:
        unknown = self._register_own()
        records = self._hosts.list(None if only is None else [only])
        if not records and unknown is not None:
            raise unknown
        states = self._states(records, held, in_flight=self._scheduler.needs_in_flight)
        decision = self._scheduler.select(wanted, states, seed=seed, alternates=self.limits.max_attempts - 1)
        if only is None or decision.chosen is not None:
            return decision
        beyond = [record.name for record in self._hosts.list() if record.name != only]
        out_of_reach = tuple(Considered(name, "reach", _OUT_OF_REACH) for name in beyond if wanted.host in (None, name))
        return replace(decision, considered=decision.considered + out_of_reach)

    def _among_alternates(self, wanted: RequestSpec, names: list[str], held: Mapping[str, Amounts]) -> Decision | None:
        if not names:
            return None
        decision = self._scheduler.first_fitting(wanted, self._states(self._hosts.list(names), held, in_flight=False))
        return None if decision.chosen is None else decision

    def _request(self, spec: Mapping[str, Any], instance_uuid: str, tried: Mapping[str, str]) -> RequestSpec:
        group = spec["server_group"]
        members = [] if group is None else self._server_groups.members(group["id"])
        return RequestSpec(
            wanted=Amounts(**claimed(spec)),
            zone=spec["zone"],
            host=spec["host"],
            image_properties=spec["image"]["properties"],
            capabilities={name.partition(":")[2]: value for name, value in spec["host_wanted"].items()},
            group=None if group is None else group["name"],
            group_policy=None if group is None else group["policy"],
            group_hosts={each.host: each.name for each in members if each.host and each.instance != instance_uuid},
            tried=tried,
        )

    def _held(self, instance_uuid: str) -> dict[str, Amounts]:
        """What the instance holds already, by host: nothing, unless it is moved or resized."""
        found = [] if self._placement is None else self._placement.allocations(consumer=instance_uuid)
        return {each.host: Amounts(*each.amounts()) for each in found}

    def _states(
        self, records: Iterable[HostRecord], held: Mapping[str, Amounts], *, in_flight: bool
    ) -> list[HostState]:
        counts = self._hosts.in_flight() if in_flight else {}
        at = self._hosts.now()
        states = [self._state(record, counts.get(record.name, 0), at) for record in records]
        return (
            [without(state, held[state.name]) if state.name in held else state for state in states] if held else states
        )

    def _state(self, record: HostRecord, in_flight: int, at: int) -> HostState:
        """The one of the decision before where nothing has changed: most of a thousand hosts have not."""
        # This process is on its own host, and alive.
        down = None if record.name == self._settings.host else record.down(self.limits.down_after, at)
        before, state = self._known.get(record.name, (None, None))
        if state is not None and before is record and state.down == down and state.in_flight == in_flight:
            return state
        state = HostState(
            name=record.name,
            capacity=Amounts(*record.capacity()),
            used=Amounts(*record.used()),
            zone=record.zone,
            enabled=record.enabled,
            disabled_reason=record.disabled_reason,
            draining=record.draining,
            down=down,
            capabilities=record.capabilities,
            labels=record.labels,
            in_flight=in_flight,
        )
        self._known[record.name] = record, state
        return state

    def _register_own(self) -> VirtflowError | None:
        """Make this host a candidate, unless its worker does that. Why it cannot be one, where it cannot."""
        settings = self._settings
        if self._describe is None:
            return None
        known = self._hosts.list([settings.host])
        if known and known[0].worker is not None:
            return None
        if self._capabilities is None:
            try:
                self._capabilities = self._describe()
            except VirtflowError as error:
                LOG.warning("cannot find out what host %s can do: %s", settings.host, error)
                return error
        found = read_inventory(settings.instances_path)
        ratios = {name: getattr(settings, name) for name in ("cpu_ratio", "memory_ratio", "disk_ratio")}
        inventory = (found.vcpus, found.memory_mib, found.disk_gib)
        self._hosts.register(settings.host, *inventory, **ratios, capabilities=self._capabilities, zone=settings.zone)
        return None


def without(state: HostState, amounts: Amounts) -> HostState:
    """The host as one sees it who holds these amounts of it already: they are room for what he becomes."""
    return replace(
        state, used=Amounts(*(all_of_it - mine for all_of_it, mine in zip(state.used, amounts, strict=True)))
    )
