"""Sends notifications through the configured drivers. What a driver cannot send never fails an operation."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from virtflow.errors import ConfigurationError
from virtflow.notifications.payloads import Payload, notification
from virtflow.redaction import scrub

LOG = logging.getLogger(__name__)
ENTRY_POINTS = "virtflow.notifications"

_SHIPPED = {
    "log": "virtflow.notifications.drivers:LogDriver",
    "file": "virtflow.notifications.drivers:FileDriver",
    "messaging": "virtflow.notifications.messaging:MessagingDriver",
}
"""Known without asking the entry points of every installed package, which takes longer than all else here."""


class Driver(Protocol):
    """What carries notifications. It is made with the settings ``file``, ``transport_url`` and ``topic``."""

    def send(self, document: Mapping[str, Any]) -> None:
        """Send one; may raise anything."""


class Notifier:
    """``host`` is the publisher. Thread-safe as far as its drivers are."""

    def __init__(self, host: str, drivers: Mapping[str, Driver]) -> None:
        self._host = host
        self._drivers = dict(drivers)

    def notify(self, action: str, phase: str, payload: Payload, *, operation: str, timestamp: str) -> None:
        """Send to every driver; one that fails is logged."""
        document = notification(action, phase, payload, host=self._host, operation=operation, timestamp=timestamp)
        for name, driver in self._drivers.items():
            try:
                driver.send(document)
            except Exception as error:  # noqa: BLE001 - whatever a broker's client raises, the instance is not to blame
                reason = scrub(f"{type(error).__name__}: {error}")
                LOG.warning("cannot send notification %s through %s: %s", document["event_type"], name, reason)


def load_drivers(names: Iterable[str], settings: Mapping[str, Any]) -> dict[str, Driver]:
    """The drivers of these names. ConfigurationError for one that does not exist or lacks something."""
    return {name: _load(name, settings) for name in names}


def _load(name: str, settings: Mapping[str, Any]) -> Driver:
    if name == "messaging" and not settings["transport_url"]:
        raise ConfigurationError(group="notifications", option="transport_url", reason="the driver messaging needs it")
    try:
        driver: Driver = _point(name).load()(settings)
    except ImportError as error:
        reason = f"driver {name} needs {error.name}; install virtflow[messaging]"
        raise ConfigurationError(group="notifications", option="drivers", reason=reason) from error
    return driver


def _point(name: str) -> Any:
    from importlib.metadata import EntryPoint, entry_points

    if name in _SHIPPED:
        return EntryPoint(name, _SHIPPED[name], ENTRY_POINTS)
    found = list(entry_points(group=ENTRY_POINTS, name=name))
    if not found:
        reason = f"{name[:80]!r} is none of {', '.join(_SHIPPED)}, nor an entry point of {ENTRY_POINTS}"
        raise ConfigurationError(group="notifications", option="drivers", reason=reason)
    return found[0]
