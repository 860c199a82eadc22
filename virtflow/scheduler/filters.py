"""Filters: what a host must pass. Each has a reason in words for the host it refuses.

A filter is asked once per decision what it would check (``for_request``): None when there is nothing to check, which
costs nothing for a thousand hosts, or a function that says of one host why it is refused, or None.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from virtflow.scheduler.comparison import differs
from virtflow.scheduler.hosts import HostState
from virtflow.scheduler.policies import AFFINITY
from virtflow.scheduler.request_spec import RequestSpec

Check = Callable[[HostState], str | None]


class Filter(Protocol):
    """A plugin: made once, without arguments; it keeps nothing between decisions."""

    def for_request(self, spec: RequestSpec) -> Check | None:
        """What to ask of every host for this request, or None."""


class StatusFilter:
    """Enabled, not being emptied, and up."""

    def for_request(self, spec: RequestSpec) -> Check:  # noqa: ARG002
        return self._refuse

    @staticmethod
    def _refuse(host: HostState) -> str | None:
        if not host.enabled:
            return f"disabled: {host.disabled_reason}" if host.disabled_reason else "disabled"
        if host.draining:
            return "being drained"
        return None if host.down is None else f"down: {host.down}"


class AvailabilityZoneFilter:
    """The zone of the request, if it names one."""

    def for_request(self, spec: RequestSpec) -> Check | None:
        zone = spec.zone
        if zone is None:
            return None
        return lambda host: None if host.zone == zone else f"in zone {host.zone}, not {zone}"


class RetryFilter:
    """Not a host on which this operation has failed."""

    def for_request(self, spec: RequestSpec) -> Check | None:
        tried = spec.tried
        if not tried:
            return None
        return lambda host: f"tried before: {tried[host.name]}" if host.name in tried else None


class ServerGroupFilter:
    """A host that suits the server group, as its members are placed now.

    Members that look for hosts at the same time do not see each other here: the policy is checked again after the
    claim (``virtflow.scheduler.policies``).
    """

    def for_request(self, spec: RequestSpec) -> Check | None:
        hosts, name = spec.group_hosts, spec.group
        if spec.group_policy is None or not hosts:
            return None
        if spec.group_policy == AFFINITY:
            where = ", ".join(sorted(hosts))
            return lambda host: None if host.name in hosts else f"server group {name} (affinity) is on {where}"
        return lambda host: (
            f"server group {name} (anti-affinity): instance {hosts[host.name]} is on it" if host.name in hosts else None
        )


class CapacityFilter:
    """Room for what would be claimed."""

    def for_request(self, spec: RequestSpec) -> Check:
        vcpus, memory, disk = spec.wanted

        def refuse(host: HostState) -> str | None:
            capacity, used = host.capacity, host.used
            if (
                vcpus <= capacity.vcpus - used.vcpus
                and memory <= capacity.memory_mib - used.memory_mib
                and disk <= capacity.disk_gib - used.disk_gib
            ):
                return None
            free = host.free
            lacking = [
                f"needs {wanted} {unit}, {max(left, 0)} left"
                for wanted, left, unit in zip(spec.wanted, free, ("vcpus", "MiB of memory", "GiB of disk"), strict=True)
                if wanted > left
            ]
            return " and ".join(lacking)

        return refuse


class CapabilitiesFilter:
    """What the flavor asks of the host: its properties ``capabilities:NAME``, where NAME is a capability or a label.

    A value may begin with an operator (``>=``, ``<=``, ``>``, ``<``, ``!=``, ``=``); versions compare as versions. A
    flavor that asks for what is not known of a host does not get that host.
    """

    def for_request(self, spec: RequestSpec) -> Check | None:
        wanted = spec.capabilities
        if not wanted:
            return None

        def refuse(host: HostState) -> str | None:
            for name, value in wanted.items():
                found = host.capabilities.get(name, host.labels.get(name))
                if found is None:
                    return f"has no {name}, the flavor wants {value}"
                if differs(found, value):
                    return f"{name} is {_shown(found)}, the flavor wants {value}"
            return None

        return refuse


class ReachFilter:
    """Of backends: one that the host of the instance which is to get the volume can reach, if that is known."""

    def for_request(self, spec: RequestSpec) -> Check | None:
        wanted = spec.for_host
        if wanted is None:
            return None

        def refuse(backend: HostState) -> str | None:
            if backend.host in (None, wanted) or backend.capabilities.get("shared"):
                return None
            return f"out of reach: it is on {backend.host}, which serves no other host, and the instance on {wanted}"

        return refuse


_ARCHITECTURES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}
_FAMILY = re.compile(r"(pc|q35|virt)\b")


class ImagePropertiesFilter:
    """What the image asks of the host: hw_architecture, img_hv_type, hw_machine_type, hw_firmware_type."""

    def for_request(self, spec: RequestSpec) -> Check | None:
        asked = _asked_by_image(spec.image_properties)
        if not asked:
            return None

        def refuse(host: HostState) -> str | None:
            for name, value in asked.items():
                known = host.capabilities.get(name)
                offered = [known] if isinstance(known, str) else known
                if offered and value not in offered:
                    return f"has {_WORDS[name]} {', '.join(_few(offered))}, the image wants {value}"
            return None

        return refuse


_WORDS = {"arch": "architecture", "virt_types": "hypervisor", "machines": "machine types", "firmware": "firmware"}


def _asked_by_image(properties: Mapping[str, str]) -> dict[str, str]:
    """By the name of the capability that has to offer it."""
    arch = properties.get("hw_architecture") or properties.get("architecture")
    virt_type = properties.get("img_hv_type") or properties.get("hypervisor_type")
    asked = {
        "arch": _ARCHITECTURES.get(arch, arch) if arch else None,
        "virt_types": virt_type,
        "machines": properties.get("hw_machine_type"),
        "firmware": properties.get("hw_firmware_type"),
    }
    return {name: value for name, value in asked.items() if value}


def _few(offered: list[str]) -> list[str]:
    """Machine types come in dozens of versions: their families say enough."""
    families = [name for name in offered if _FAMILY.fullmatch(name)]
    return (families or offered)[:5]


def _shown(found: Any) -> str:
    return ", ".join(map(str, found)) if isinstance(found, list | tuple) else str(found)
