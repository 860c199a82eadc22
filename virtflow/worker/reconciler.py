"""Puts right what was lost: posts again what lost its job, its worker or its host, retries debts, purges, forgets.

Any worker may do it, one at a time: whoever holds the reconciler's claim. All of it follows from rows that say what is
to be done, so a board may be wiped, and a worker killed anywhere.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from typing import TYPE_CHECKING

from virtflow.engine.confirming import confirm_due
from virtflow.errors import VirtflowError
from virtflow.persistence.claim import Claim
from virtflow.persistence.lost import LostWork
from virtflow.persistence.posting import Posting
from virtflow.persistence.retention import forget_finished
from virtflow.persistence.singleton import free_in, hold_singleton, release_singleton
from virtflow.worker.metrics import Metrics

if TYPE_CHECKING:
    from virtflow.engine.runner import Runner

LOG = logging.getLogger(__name__)
RECONCILER = str(uuid.uuid5(uuid.NAMESPACE_DNS, "reconciler.virtflow"))
"""The subject of its claim."""
_SELDOM = 60.0
"""Seconds between two rounds of what is not urgent."""


class Reconciler:
    """A thread of every worker; at most one of them is at work."""

    def __init__(self, runner: Runner, metrics: Metrics) -> None:
        self._runner = runner
        self._core = runner.core
        self._options = runner.config.worker
        self._metrics = metrics
        self._lost = LostWork(runner.database, runner.core.lease)
        self._held: Claim | None = None
        self._posted: dict[str, float] = {}
        self._seldom = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._reconcile, name="virtflow-reconciler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._held is not None:
            try:
                release_singleton(self._core.database, self._held)
            except VirtflowError as error:
                LOG.warning("another worker reconciles when the claim has run out: %s", error)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() or self._stop.is_set()

    @property
    def leading(self) -> bool:
        return self._held is not None

    def _reconcile(self) -> None:
        pause = self._options.reconcile_interval
        while not self._stop.wait(pause):
            pause = self._options.reconcile_interval
            try:
                self._held = hold_singleton(
                    self._core.database, RECONCILER, self._core.owner, self._core.lease, self._held
                )
                if self._held is not None:
                    self.look()
                else:  # with a thousand workers it matters that they do not ask each second
                    pause = max(pause, free_in(self._core.database, RECONCILER, self._core.lease))
            except VirtflowError as error:
                LOG.warning("cannot reconcile: %s", error)
            except Exception:
                LOG.exception("cannot reconcile")

    def look(self) -> None:
        """One round."""
        for host in self._core.hosts.mark_down(self._options.host_down_after):
            LOG.warning("host %s is down: it gave no heartbeat for %g s", host, self._options.host_down_after)
            self._metrics.reconciled("host down", 1)
        down = {name for name in self._lost.hosts_waited_for() if self._core.why_silent(name) is not None}
        # What waits for a fenced host goes on: nothing runs there, so it need not be waited for.
        waited_for = {name for name in down if not self._core.hosts.is_fenced(name)}
        self._post("operations", self._lost.operations(waited_for), again=self._core.lease)
        self._post("segments", self._lost.segments(down), again=self._core.lease)
        self._post("debts", self._lost.debts(down), again=self._options.debt_retry)
        if time.monotonic() - self._seldom >= min(_SELDOM, self._options.debt_retry):
            self._seldom = time.monotonic()
            self._runner.purge()
            self._metrics.reconciled("resizes confirmed", len(confirm_due(self._runner)))
            if self._options.retention_days:
                days = self._options.retention_days
                self._metrics.reconciled("forgotten", forget_finished(self._core.database, days * 86400.0))

    def _post(self, what: str, found: list[Posting], *, again: float) -> None:
        """Post what was not posted from here less than ``again`` seconds ago."""
        moment = time.monotonic()
        fresh = [posting for posting in found if moment - self._posted.get(posting.name, -again) >= again]
        for posting in fresh:
            self._core.post(posting)
            self._posted[posting.name] = moment
        if fresh:
            LOG.info("posted again: %s", ", ".join(posting.name for posting in fresh))
            self._metrics.reconciled(what, len(fresh))
        if len(self._posted) > 10_000:
            self._posted = {name: at for name, at in self._posted.items() if moment - at < again}
