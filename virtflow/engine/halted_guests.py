"""Guests that QEMU has halted because the NBD server of a volume had gone run again when it is back.

Only those: a guest that somebody has paused stays so, and so does one at which an operation is at work, which may count
on it that the guest writes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from virtflow.errors import VirtflowError
from virtflow.persistence.instances import GOING_ON
from virtflow.volumes.connectors.connector import check_server
from virtflow.volumes.driver import Connection

LOG = logging.getLogger(__name__)

Reached = Mapping[str, Connection]
"""How an instance reaches its volumes by NBD, by their ids."""


class HaltedGuests:
    """Of this host, which has one of these at most: what is marked and not being let run has lost its worker."""

    def __init__(self, services: Mapping[str, Any], host: str) -> None:
        self._services = services
        self._host = host
        self._marked: set[str] | None = None

    def let_go_on(self) -> list[str]:
        """Let those run whose servers answer again; the instances' ids.

        Whatever cannot be done is logged, and tried again next time.
        """
        attached: dict[str, dict[str, Connection]] = {}
        for each in self._services["volume_attachments"].list(host=self._host):
            reached = attached.setdefault(each.instance, {})
            if each.connection and each.connection["kind"] == "nbd":
                reached[each.volume] = Connection.from_dict(each.connection)
        if self._marked is None:
            self._marked = set(attached)
        for instance in list(self._marked):
            self._unmark(instance, self._marked)
        gone_on = []
        for instance in (instance for instance, reached in attached.items() if reached):
            try:
                if self._let_go_on(instance, attached[instance], self._marked):
                    LOG.warning("instance %s was halted for want of a volume's server, and goes on", instance)
                    gone_on.append(instance)
            except VirtflowError as error:
                LOG.warning("instance %s does not go on: %s", instance, error)
        return gone_on

    def _let_go_on(self, instance: str, reached: Reached, marked: set[str]) -> bool:
        guests, instances = self._services["guest_disks"], self._services["instances"]
        failed = guests.failed(instance)
        if not failed or not failed <= reached.keys():
            return False
        for volume in failed:
            check_server(reached[volume])
        if not instances.compare_and_set(instance, {"host": self._host, "task_state": None}, {"task_state": GOING_ON}):
            return False
        marked.add(instance)
        try:
            return bool(guests.let_go_on(instance, failed))
        finally:
            self._unmark(instance, marked)

    def _unmark(self, instance: str, marked: set[str]) -> None:
        self._services["instances"].compare_and_set(instance, {"task_state": GOING_ON}, {"task_state": None})
        marked.discard(instance)
