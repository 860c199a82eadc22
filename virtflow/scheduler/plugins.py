"""Filters and weighers by name: those of virtflow, and those that other packages offer as entry points."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from virtflow.errors import ConfigurationError
from virtflow.scheduler import filters, weighers
from virtflow.scheduler.selection import Scheduler

FILTERS = "virtflow.scheduler.filters"
WEIGHERS = "virtflow.scheduler.weighers"

_SHIPPED: dict[str, dict[str, Callable[[], Any]]] = {
    FILTERS: {
        "status": filters.StatusFilter,
        "availability-zone": filters.AvailabilityZoneFilter,
        "retry": filters.RetryFilter,
        "server-group": filters.ServerGroupFilter,
        "capacity": filters.CapacityFilter,
        "capabilities": filters.CapabilitiesFilter,
        "image-properties": filters.ImagePropertiesFilter,
        "reach": filters.ReachFilter,
    },
    WEIGHERS: {
        "capacity": weighers.CapacityWeigher,
        "allocated-capacity": weighers.AllocatedCapacityWeigher,
        "in-flight": weighers.InFlightWeigher,
        "same-host": weighers.SameHostWeigher,
    },
}
"""Known without asking the entry points of every installed package, which takes longer than all else here."""


def load_scheduler(
    filter_names: Iterable[str], weigher_names: Iterable[str], multipliers: Mapping[str, float], *, subset: int = 1
) -> Scheduler:
    """The scheduler of these plugins. ``multipliers`` by weigher, 1 where there is none.

    ConfigurationError for a plugin that does not exist or cannot be made.
    """
    chosen_filters = {name: _load(FILTERS, "filters", name) for name in filter_names}
    chosen_weighers = {name: (_load(WEIGHERS, "weighers", name), multipliers.get(name, 1.0)) for name in weigher_names}
    return Scheduler(chosen_filters, chosen_weighers, subset=subset)


def _load(namespace: str, option: str, name: str) -> Any:
    shipped = _SHIPPED[namespace].get(name)
    if shipped is not None:
        return shipped()
    from stevedore.driver import DriverManager
    from stevedore.exception import NoMatches

    try:
        return DriverManager(namespace, name, invoke_on_load=True, on_load_failure_callback=_fail).driver
    except NoMatches as error:
        known = ", ".join(_SHIPPED[namespace])
        reason = f"{name[:80]!r} is none of {known}, nor an entry point of {namespace}"
        raise ConfigurationError(group="scheduler", option=option, reason=reason) from error
    except Exception as error:
        reason = f"{name[:80]!r} cannot be loaded: {type(error).__name__}: {error}"
        raise ConfigurationError(group="scheduler", option=option, reason=reason) from error


def _fail(_manager: Any, _point: Any, error: BaseException) -> None:
    """stevedore only logs what fails to load."""
    raise error
