"""Waiting until the cables of an instance's ports are in, while its guest is paused: it must not miss its DHCP."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from virtflow.errors import NetworkError
from virtflow.persistence.vif_events import FAILED, PLUGGED
from virtflow.tasks.base import Intent, Task
from virtflow.tasks.domain import StartDomain

LOG = logging.getLogger(__name__)
OWN = "own"
_POLL_SECONDS = {OWN: 0.02, "external": 0.25}


def vif_fields(request: Mapping[str, Any], settings: Any) -> dict[str, Any]:
    """What the specification says about waiting; ``vif_events`` None: there is nothing to wait for."""
    wait = bool(request["networks"]) and settings.vif_plugging_timeout > 0
    return {
        "vif_events": settings.vif_events if wait else None,
        "vif_plugging_timeout": settings.vif_plugging_timeout,
        "vif_plugging_is_fatal": settings.vif_plugging_is_fatal,
    }


class ExpectVifEvents(Task):
    """Register the events that will be waited for, before anything is plugged: none can come too early.

    Reverts: forgets them, and what was reported, unless the ports are another host's by now. Registering again keeps
    what was reported meanwhile.
    """

    default_provides = "expected_vifs"

    def intents(self, instance_uuid: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("vif_events", instance_uuid),)

    def execute(self, vifs: Sequence[Mapping[str, Any]], instance_uuid: str, vif_events: Any) -> list[str]:
        ports = [each["port_id"] for each in vifs]
        vif_events.expect(instance_uuid, ports)
        return ports

    def revert(self, instance_uuid: str, vif_events: Any, settings: Any, **_kwargs: Any) -> None:
        vif_events.forget(instance_uuid, settings.host)


class StartDomainPaused(StartDomain):
    """Start the guest halted: QEMU is there and holds its taps, and no instruction runs yet.

    Reverts: pulls its plug, if it is this operation's. One that is there already is started.
    """

    def execute(self, instance_uuid: str, defined: bool, hypervisor: Any) -> bool:
        hypervisor.start(instance_uuid, paused=True)
        return defined


class WaitVifPlugged(Task):
    """Wait until every expected cable is in, as somebody outside reports, or as the taps themselves show.

    A cable that fails, or is not in after ``[network] vif_plugging_timeout``, is an error unless
    ``vif_plugging_is_fatal`` is off. Makes nothing but the record of what was seen; nothing to revert. A second
    execution starts with all that was reported meanwhile, and with a new deadline.
    """

    default_provides = "vifs_ready"
    timeout = 0.0  # the deadline is its own: passing it need not be a failure

    def execute(
        self,
        spec: Mapping[str, Any],
        instance_uuid: str,
        vifs: Sequence[Mapping[str, Any]],
        started: bool,
        vif_events: Any,
        taps: Any,
    ) -> bool:
        deadline = time.monotonic() + spec["vif_plugging_timeout"]
        while True:
            if spec["vif_events"] == OWN:
                _look(instance_uuid, vifs, vif_events, taps)
            states = vif_events.states(instance_uuid)
            failed = [each for each in vifs if states.get(each["port_id"]) == FAILED]
            missing = [each for each in vifs if states.get(each["port_id"]) != PLUGGED]
            if not missing:
                return started
            if failed or time.monotonic() >= deadline:
                break
            self.activity.sleep(_POLL_SECONDS[spec["vif_events"]])
        reason = "its network reports a failure" if failed else f"not plugged after {spec['vif_plugging_timeout']:g} s"
        device = ", ".join(f"port {each['port_id']} ({each['tap']})" for each in failed or missing)
        if spec["vif_plugging_is_fatal"]:
            raise NetworkError(action="plug", device=device, reason=reason)
        LOG.warning("instance %s goes on without %s: %s", instance_uuid, device, reason)
        return started

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


class ResumeDomain(Task):
    """Let the paused guest run, and forget what it has waited for: from here on nobody asks.

    Reverts: nothing, StartDomainPaused stops it. One that runs is resumed.
    """

    default_provides = "resumed"
    timeout = "boot"

    def execute(self, instance_uuid: str, vifs_ready: bool, hypervisor: Any, vif_events: Any) -> bool:
        hypervisor.resume(instance_uuid)
        vif_events.forget(instance_uuid)
        return vifs_ready

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


def _look(instance_uuid: str, vifs: Sequence[Mapping[str, Any]], vif_events: Any, taps: Any) -> None:
    states = vif_events.states(instance_uuid)
    for each in vifs:
        if states.get(each["port_id"]) != PLUGGED and taps.is_plugged(each["tap"], each["bridge"]):
            vif_events.receive(instance_uuid, each["port_id"])
