"""Threads of a host's worker that put right, again and again, what breaks between a guest and a volume of another host.

What the host serves to others is served again when its server was restarted, and a guest that was halted for want of
such a server goes on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from virtflow.engine.halted_guests import HaltedGuests
from virtflow.engine.restoring_exports import restore_exports
from virtflow.errors import VirtflowError

if TYPE_CHECKING:
    from virtflow.engine.runner import Runner

LOG = logging.getLogger(__name__)
_EVERY = 5.0
"""Seconds. A guest's iSCSI initiator keeps trying for longer (QEMU's as long as it takes)."""


class Keeper:
    """Looks once before the host takes work, then all the time. ``what`` is what it cannot do when that fails."""

    def __init__(self, name: str, look: Callable[[], object], what: str) -> None:
        self._look_once = look
        self._what = what
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"virtflow-{name}", daemon=True)

    def start(self) -> None:
        self._look()
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _keep(self) -> None:
        while not self._stop.wait(_EVERY):
            self._look()

    def _look(self) -> None:
        try:
            self._look_once()
        except VirtflowError as error:
            LOG.warning("cannot %s: %s", self._what, error)
        except Exception:
            LOG.exception("cannot %s", self._what)


def keepers(runner: Runner) -> list[Keeper]:
    """Those of a host: one that serves nothing has no exports to keep."""
    services, config = runner.services, runner.config
    halted = HaltedGuests(services, config.host)
    guests = Keeper("guests", halted.let_go_on, "see which guests are halted for want of a volume")
    serve = partial(restore_exports, services, config.host)
    exports = Keeper("exports", serve, "see which volumes are to be served")
    return [exports, guests] if config.volumes.export != "none" else [guests]
