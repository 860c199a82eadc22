"""Weighers: which of the hosts that passed is best. More is better.

A weigher gives one number per host, in units of its own: they are stretched to between 0 and 1 over the hosts of the
decision before its multiplier and the other weighers come in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from virtflow.scheduler.hosts import HostState
from virtflow.scheduler.request_spec import RequestSpec


class Weigher(Protocol):
    """A plugin: made once, without arguments; it keeps nothing between decisions."""

    def weigh(self, spec: RequestSpec, hosts: Sequence[HostState]) -> Sequence[float]:
        """A number for each host, in the same order."""


class CapacityWeigher:
    """What is left of vcpus, memory and disk, each as a part of the most that any of these hosts has left."""

    def weigh(self, spec: RequestSpec, hosts: Sequence[HostState]) -> Sequence[float]:  # noqa: ARG002
        free = [host.free for host in hosts]
        most_vcpus = max((each.vcpus for each in free), default=0) or 1
        most_memory = max((each.memory_mib for each in free), default=0) or 1
        most_disk = max((each.disk_gib for each in free), default=0) or 1
        return [vcpus / most_vcpus + memory / most_memory + disk / most_disk for vcpus, memory, disk in free]


class AllocatedCapacityWeigher:
    """The share of the host that nobody has claimed: of vcpus, memory and disk together."""

    def weigh(self, spec: RequestSpec, hosts: Sequence[HostState]) -> Sequence[float]:  # noqa: ARG002
        return [
            -(
                used.vcpus / (capacity.vcpus or 1)
                + used.memory_mib / (capacity.memory_mib or 1)
                + used.disk_gib / (capacity.disk_gib or 1)
            )
            for used, capacity in ((host.used, host.capacity) for host in hosts)
        ]


class InFlightWeigher:
    """Fewer operations that are under way there."""

    needs_in_flight = True

    def weigh(self, spec: RequestSpec, hosts: Sequence[HostState]) -> Sequence[float]:  # noqa: ARG002
        return [-host.in_flight for host in hosts]


class SameHostWeigher:
    """Of backends: one on the host of the instance that is to get the volume, if that is known."""

    def weigh(self, spec: RequestSpec, hosts: Sequence[HostState]) -> Sequence[float]:
        return [float(backend.host is not None and backend.host == spec.for_host) for backend in hosts]


def stretched(numbers: Sequence[float]) -> list[float]:
    """Between 0 (the least) and 1 (the most); all 0 when they are the same."""
    least, most = min(numbers), max(numbers)
    width = most - least
    return [(number - least) / width for number in numbers] if width > 0 else [0.0] * len(numbers)
