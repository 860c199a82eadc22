"""The worker: two pools, so that operations that wait for segments never keep a segment from running."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from virtflow.engine.evacuated import clean_up_evacuated
from virtflow.errors import Busy, VirtflowError
from virtflow.flows.registry import Registry
from virtflow.persistence import segments
from virtflow.persistence.posting import OPERATIONS, host_topic
from virtflow.worker.conductor import Conductor, operation_work, segment_work
from virtflow.worker.connecting import connect
from virtflow.worker.keepers import keepers
from virtflow.worker.metrics import Metrics
from virtflow.worker.reconciler import Reconciler
from virtflow.worker.registration import Registration

if TYPE_CHECKING:
    from virtflow.config import Config

LOG = logging.getLogger(__name__)
TOPICS = ("operations", "host")


class Worker:
    """Takes jobs of whole operations, and of this host's segments, until it is drained."""

    def __init__(
        self,
        config: Config,
        topics: Collection[str] = TOPICS,
        *,
        registry: Registry | None = None,
        services: Mapping[str, Any] | None = None,
    ) -> None:
        self.config = config
        self.runner, self.board = connect(config, registry=registry, services=services)
        self.ended = threading.Event()
        """Set when the worker has to end: it was asked to, or lost its host."""
        self.metrics = Metrics(
            {
                "virtflow_runs": ("Operations and segments at work.", lambda: len(self.runner.core.watcher.running())),
                "virtflow_clock_behind_seconds": (
                    "How far this host's clock is behind the database's.",
                    lambda: self.runner.database.clock.ahead / 1_000_000,
                ),
                "virtflow_reconciler": ("Whether this worker reconciles.", lambda: float(self._reconciler.leading)),
            }
        )
        self._registration = Registration(self.runner, self.ended.set) if "host" in topics else None
        self._keepers = keepers(self.runner) if "host" in topics else []
        self._conductors = [self._conductor(topic) for topic in topics]
        self._reconciler = Reconciler(self.runner, self.metrics)

    def start(self) -> None:
        """Clean up what this host owes, then take work. Raises what keeps the host from being used."""
        if self._registration is not None:
            self._registration.register()
            clean_up_evacuated(self.runner)
            self._pay_what_the_host_owes()
            self._registration.start()
        for keeper in self._keepers:
            keeper.start()
        for conductor in self._conductors:
            conductor.start()
        self._reconciler.start()
        if self.runner.database.clock.ahead:
            LOG.warning("%s: leases are measured by that one; mend NTP", self.runner.database.clock.in_words())
        LOG.info("worker of host %s: %s", self.config.host, ", ".join(each.topic for each in self._conductors))

    def drain(self) -> None:
        """Take no more jobs; tasks that run finish, flows are put down, jobs go back. Returns when that is done."""
        self._reconciler.stop()
        for keeper in self._keepers:
            keeper.stop()
        for conductor in self._conductors:
            conductor.stop()
        self.runner.drain()
        for conductor in self._conductors:
            conductor.finish()

    def close(self) -> None:
        """Drain, sign off, and give everything back."""
        self.drain()
        self.runner.core.closers.remove(self.board.close)
        self.board.close()
        for conductor in self._conductors:
            conductor.join()
        if self._registration is not None:
            self._registration.close()
        self.runner.close()

    def unwell(self) -> str | None:
        """What does not work any more, for whoever restarts the worker; None when all does."""
        for conductor in self._conductors:
            if not conductor.alive:
                return f"jobs of {conductor.topic} are not taken any more"
        return None if self._reconciler.alive else "the reconciler has ended"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _conductor(self, topic: str) -> Conductor:
        options, jobs = self.config.worker, self.config.jobboard
        whole = topic == "operations"
        return Conductor(
            OPERATIONS if whole else host_topic(self.config.host),
            self.board,
            (operation_work if whole else segment_work)(self.runner),
            owner=self.runner.core.owner,
            lease=jobs.lease,
            threads=options.operation_threads if whole else options.segment_threads,
            metrics=self.metrics,
        )

    def _pay_what_the_host_owes(self) -> None:
        """What was given up while the host was down comes before anything new."""
        for segment in self.runner.core.segments.waiting(self.config.host):
            if segment.verb != segments.UNDO:
                continue
            try:
                self.runner.run_segment(segment.id)
            except Busy:
                continue
            except VirtflowError as error:
                LOG.warning("cannot take back segment %s of operation %s: %s", segment.id, segment.operation, error)
