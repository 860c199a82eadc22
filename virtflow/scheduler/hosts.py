"""What the scheduler knows of a host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Amounts(NamedTuple):
    """What is claimed of hosts: pieces, MiB, GiB."""

    vcpus: int = 0
    memory_mib: int = 0
    disk_gib: int = 0


_NOTHING = Amounts()


@dataclass(frozen=True, slots=True)
class HostState:
    """A host as it was when the decision was made.

    ``capacity`` is what may be claimed in all, overcommit included; ``used`` what is claimed. ``capabilities`` is what
    its worker found out (arch, virt_types, machines, firmware, libvirt_version ...); what is not in it is not known,
    which is no reason to refuse. ``down`` says in words why it counts as down, None when it is up. ``in_flight`` is the
    number of operations that have a claim on it and have not ended, where a plugin asked for it. ``host`` is where a
    backend of volumes is.
    """

    name: str
    capacity: Amounts
    used: Amounts = _NOTHING
    zone: str = "nova"
    enabled: bool = True
    disabled_reason: str | None = None
    draining: bool = False
    down: str | None = None
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    in_flight: int = 0
    host: str | None = None

    @property
    def free(self) -> Amounts:
        """What is left; negative where the host shrank below its claims."""
        return Amounts(*(all_of_it - taken for all_of_it, taken in zip(self.capacity, self.used, strict=True)))
