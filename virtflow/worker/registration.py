"""The worker's host in the database: what it has, what it can do, and that it lives."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from virtflow.errors import VirtflowError
from virtflow.hypervisor.description import describe
from virtflow.hypervisor.inventory import read_inventory

if TYPE_CHECKING:
    from virtflow.engine.runner import Runner

LOG = logging.getLogger(__name__)
_BEATS = 4
"""Heartbeats in the time after which a host counts as down."""


class Registration:
    """Registers the host, then sends its heartbeat until it is closed. ``lost`` is called when another worker took it.

    A host has one worker: its segments share locks, and libvirt's embedded driver has room for one process.
    """

    def __init__(self, runner: Runner, lost: Callable[[], None]) -> None:
        self._runner = runner
        self._lost = lost
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="virtflow-heartbeat", daemon=True)

    def start(self) -> None:
        """Raises what keeps the host from being used: HypervisorUnreachable, HostStorageError, DatabaseError."""
        self.register()
        self._thread.start()

    def register(self) -> None:
        """Tell what the host has and can do, and which volume backends, as it is now."""
        config, services = self._runner.config, self._runner.services
        found = read_inventory(config.instances.path)
        options = config.worker
        self._runner.core.hosts.register(
            config.host,
            found.vcpus,
            found.memory_mib,
            found.disk_gib,
            cpu_ratio=options.cpu_ratio,
            memory_ratio=options.memory_ratio,
            disk_ratio=options.disk_ratio,
            capabilities=describe(services["hypervisor"].capabilities()),
            zone=options.zone,
            uri=config.libvirt.uri,
            worker=self._runner.core.owner,
        )
        # A volume may be decided on by any worker: it has to know of this host's backends.
        try:
            services["backend_choice"].register_own()
        except VirtflowError as error:
            LOG.warning("cannot tell of this host's volume backends: %s", error)

    def close(self) -> None:
        """Nobody looks after the host any more."""
        self._stop.set()
        if self._thread.ident is None:
            return
        self._thread.join()
        try:
            self._runner.core.hosts.sign_off(self._runner.config.host, self._runner.core.owner)
        except VirtflowError as error:
            LOG.warning("cannot sign off: %s", error)

    def _beat(self) -> None:
        pause = self._runner.config.worker.host_down_after / _BEATS
        while not self._stop.wait(pause):
            try:
                if not self._runner.core.hosts.heartbeat(self._runner.config.host, self._runner.core.owner):
                    LOG.error("another worker has registered host %s: this one ends", self._runner.config.host)
                    self._lost()
                    return
            except VirtflowError as error:
                LOG.warning("cannot send the heartbeat: %s", error)
