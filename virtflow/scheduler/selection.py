"""The choice of a host: filter, weigh, draw."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence

from virtflow.scheduler.decision import Considered, Decision
from virtflow.scheduler.filters import Check, Filter
from virtflow.scheduler.hosts import HostState
from virtflow.scheduler.request_spec import RequestSpec
from virtflow.scheduler.weighers import Weigher, stretched


class Scheduler:
    """Chooses hosts. It keeps nothing between decisions, so threads may share it.

    ``filters`` by name, in the order in which a host is asked. ``weighers`` by name, with their multipliers: a negative
    one prefers what the weigher thinks worst. ``subset`` is among how many of the best one is drawn.
    """

    def __init__(
        self, filters: Mapping[str, Filter], weighers: Mapping[str, tuple[Weigher, float]], *, subset: int = 1
    ) -> None:
        self._filters = dict(filters)
        self._weighers = dict(weighers)
        self._subset = subset

    @property
    def needs_in_flight(self) -> bool:
        """Whether a plugin looks at ``HostState.in_flight``, which costs a query to find out."""
        plugins = [*self._filters.values(), *(weigher for weigher, _multiplier in self._weighers.values())]
        return any(getattr(plugin, "needs_in_flight", False) for plugin in plugins)

    def select(self, spec: RequestSpec, hosts: Iterable[HostState], *, seed: str = "", alternates: int = 2) -> Decision:
        """The best host for the request, and the next best. The same hosts and seed give the same decision.

        A request for one host considers no other. Hosts of the same weight are drawn from: with different seeds,
        decisions at the same time do not all fall on the same.
        """
        if spec.host is not None:
            hosts = [host for host in hosts if host.name == spec.host]
        considered, fitting = self._filtered(spec, hosts)
        if not fitting:
            return Decision(None, (), tuple(considered))
        weights = self._weights(spec, fitting)
        draw = random.Random(seed)  # noqa: S311 - nobody gains from guessing it
        ranked = sorted(
            zip((-weight for weight in weights), (draw.random() for _ in fitting), range(len(fitting)), strict=True)
        )
        order = [fitting[number].name for _weight, _tie, number in ranked]
        chosen = order.pop(draw.randrange(min(self._subset, len(order))))
        weight_of = dict(zip((host.name for host in fitting), weights, strict=True))
        told = tuple(
            each if each.refused_by is not None else Considered(each.host, weight=weight_of[each.host])
            for each in considered
        )
        return Decision(chosen, tuple(order[:alternates]), told)

    def first_fitting(self, spec: RequestSpec, hosts: Iterable[HostState]) -> Decision:
        """The first of these hosts that passes, for hosts that an earlier decision has put in order."""
        considered, fitting = self._filtered(spec, hosts)
        names = [host.name for host in fitting]
        return Decision(names[0] if names else None, tuple(names[1:]), tuple(considered))

    def _filtered(self, spec: RequestSpec, hosts: Iterable[HostState]) -> tuple[list[Considered], list[HostState]]:
        checks = self._checks(spec)
        considered: list[Considered] = []
        fitting: list[HostState] = []
        for host in hosts:
            refusal = self._refusal(checks, host)
            if refusal is None:
                fitting.append(host)
                considered.append(Considered(host.name))
            else:
                considered.append(Considered(host.name, *refusal))
        return considered, fitting

    def _checks(self, spec: RequestSpec) -> list[tuple[str, Check]]:
        checks = ((name, each.for_request(spec)) for name, each in self._filters.items())
        return [(name, check) for name, check in checks if check is not None]

    @staticmethod
    def _refusal(checks: Iterable[tuple[str, Check]], host: HostState) -> tuple[str, str] | None:
        for name, check in checks:
            reason = check(host)
            if reason is not None:
                return name, reason
        return None

    def _weights(self, spec: RequestSpec, hosts: Sequence[HostState]) -> list[float]:
        total = [0.0] * len(hosts)
        for weigher, multiplier in self._weighers.values():
            if multiplier:
                numbers = stretched(weigher.weigh(spec, hosts))
                total = [sum_ + multiplier * number for sum_, number in zip(total, numbers, strict=True)]
        return total
