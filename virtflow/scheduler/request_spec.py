"""What an instance wants of its host, or a volume of its backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from virtflow.scheduler.hosts import Amounts


@dataclass(frozen=True)
class RequestSpec:
    """``wanted`` is what would be claimed of the host.

    ``image_properties`` are Glance's; ``capabilities`` what the flavor asks of the host (name, wanted value, without
    the prefix ``capabilities:``). ``group_hosts`` are the hosts of the other members of the server group, each with the
    name of one of them. ``tried`` are hosts on which it failed, with the reason. ``host`` is the only one that will do.
    ``for_host`` is the host of the instance that is to get a volume.
    """

    wanted: Amounts
    zone: str | None = None
    host: str | None = None
    image_properties: Mapping[str, str] = field(default_factory=dict)
    capabilities: Mapping[str, str] = field(default_factory=dict)
    group: str | None = None
    group_policy: str | None = None
    group_hosts: Mapping[str, str] = field(default_factory=dict)
    tried: Mapping[str, str] = field(default_factory=dict)
    for_host: str | None = None
