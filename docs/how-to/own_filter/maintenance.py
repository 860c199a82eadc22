"""Hosts with a label maintenance=DAY take nothing on that day; small instances go to low racks, large ones to high."""

import datetime
from collections.abc import Callable, Sequence

from virtflow.scheduler import HostState, RequestSpec


class MaintenanceFilter:
    def for_request(self, spec: RequestSpec) -> Callable[[HostState], str | None] | None:
        """Once per decision: what to ask of each host. None instead of a function: nothing to ask."""
        if spec.host is not None:
            return None  # who asks for one host knows what he does
        today = f"{datetime.date.today():%A}".lower()

        def refuse(host: HostState) -> str | None:
            """Why not, in words that people will read; None lets the host pass."""
            return f"in maintenance on {today}" if host.labels.get("maintenance") == today else None

        return refuse


class RackWeigher:
    def weigh(self, spec: RequestSpec, hosts: Sequence[HostState]) -> list[float]:
        """A number for each host, in their order; more is better. Any unit: the numbers are stretched to 0...1."""
        sign = 1.0 if spec.wanted.vcpus > 8 else -1.0
        return [sign * float(host.labels.get("rack", 0)) for host in hosts]
