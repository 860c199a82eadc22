"""The scheduler as it is configured, with everything it asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from virtflow.hypervisor.description import describe
from virtflow.scheduler.plugins import load_scheduler
from virtflow.tasks.host_choice import ChoiceLimits, HostChoice

if TYPE_CHECKING:
    from virtflow.config import Config


def host_choice(config: Config, services: Mapping[str, Any]) -> HostChoice:
    """What tasks ask about hosts. ConfigurationError for a filter or weigher that does not exist."""
    options = config.scheduler
    multipliers = {
        "capacity": options.capacity_multiplier,
        "allocated-capacity": options.allocated_capacity_multiplier,
    }
    return HostChoice(
        load_scheduler(options.filters, options.weighers, multipliers, subset=options.host_subset_size),
        services["hosts"],
        services["decisions"],
        services["server_groups"],
        services["settings"],
        None if config.engine.mode == "workers" else lambda: describe(services["hypervisor"].capabilities()),
        ChoiceLimits(options.max_attempts, config.worker.host_down_after),
        services["placement"],
    )
