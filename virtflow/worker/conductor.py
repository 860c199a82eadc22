"""Takes jobs of one topic from the board and has them done, so many at a time.

A job only says where to look. What comes of it stands in the database; here it is only decided what becomes of the job.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from virtflow.engine.core import UNJUDGED
from virtflow.errors import BoardUnreachable, Busy, FlowChanged, NotFound, StaleEpoch, UnknownFlow
from virtflow.persistence import operations as ops
from virtflow.worker.boards.board import Board, JobRecord
from virtflow.worker.leases import Leases
from virtflow.worker.metrics import Metrics

if TYPE_CHECKING:
    from virtflow.engine.runner import Runner

LOG = logging.getLogger(__name__)
_LOOK = 5.0
"""Seconds after which a board that has told nothing is asked all the same."""
_AWAY = 2.0
"""Seconds until a board that cannot be reached is asked again."""
_BUSY_DELAY = 1.0
"""Seconds until what somebody else holds is tried again."""


@dataclass(frozen=True)
class Done:
    """Off the board."""


@dataclass(frozen=True)
class Later:
    """Back on the board, ``delay`` seconds from now. With an ``error`` the attempt counts."""

    delay: float = 0.0
    error: str | None = None


Verdict = Done | Later


class Conductor:
    """One topic, ``threads`` jobs at a time. ``work`` does a job and says what becomes of it."""

    def __init__(
        self,
        topic: str,
        board: Board,
        work: Callable[[JobRecord], Verdict],
        *,
        owner: str,
        lease: float,
        threads: int,
        metrics: Metrics,
    ) -> None:
        self.topic = topic
        self._board = board
        self._work = work
        self._owner = owner
        self._lease = lease
        self._metrics = metrics
        self._leases = Leases(board, lease)
        self._free = threading.Semaphore(threads)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"virtflow-{topic}")
        self._stop = threading.Event()
        self._claiming = threading.Lock()
        self._thread = threading.Thread(target=self._conduct, name=f"virtflow-board-{topic}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Take no more jobs; what is being done goes on."""
        self._stop.set()
        with self._claiming:  # a job that is just being claimed is done too
            pass

    def finish(self) -> None:
        """Wait until what is being done has ended, one way or another, and the board knows."""
        self._pool.shutdown(wait=True)
        self._leases.close()

    def join(self) -> None:
        """Wait for whoever waits for the board, which was closed."""
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() or self._stop.is_set()

    def _conduct(self) -> None:
        while not self._stop.is_set():
            if not self._free.acquire(timeout=_LOOK):
                continue
            try:
                if not self._begin_next():
                    self._free.release()
                    if not self._stop.is_set():
                        self._board.wait([self.topic], _LOOK)
            except BoardUnreachable as error:
                LOG.warning("cannot look for jobs of %s: %s", self.topic, error)
                self._stop.wait(_AWAY)
            except Exception as error:
                LOG.exception("cannot look for jobs of %s: %s: %s", self.topic, type(error).__name__, error)
                self._stop.wait(_AWAY)

    def _begin_next(self) -> bool:
        """Claim a job, and begin with it; False when there is none to be had."""
        with self._claiming:
            try:
                job = None if self._stop.is_set() else self._board.claim([self.topic], self._owner, self._lease)
            except BaseException:
                self._free.release()
                raise
            if job is None:
                return False
            self._metrics.claimed(self.topic)
            self._pool.submit(self._do, job)
            return True

    def _do(self, job: JobRecord) -> None:
        try:
            with self._leases.holding(job):
                verdict = self._judged(job)
            self._settle(job, verdict)
        finally:
            self._free.release()

    def _judged(self, job: JobRecord) -> Verdict:
        try:
            return self._work(job)
        except NotFound as error:
            LOG.info("job %s is about nothing: %s", job.name, error)
            return Done()
        except StaleEpoch as error:
            LOG.warning("job %s is left alone: %s", job.name, error)
            return Done()
        except (FlowChanged, UnknownFlow) as error:
            # Another worker may have the code for it; if none has, the job is parked for somebody to see.
            return Later(self._lease, str(error))
        except UNJUDGED as error:
            return Later(_AWAY, str(error))
        except Exception as error:
            LOG.exception("cannot do job %s: %s: %s", job.name, type(error).__name__, error)
            return Later(_AWAY * job.attempts, f"{type(error).__name__}: {error}")

    def _settle(self, job: JobRecord, verdict: Verdict) -> None:
        try:
            if isinstance(verdict, Done):
                held = self._board.finish(job)
            else:
                held = self._board.give_back(job, verdict.delay, verdict.error)
            if not held:
                LOG.info("job %s was not held any more", job.name)
        except BoardUnreachable as error:
            LOG.warning("job %s is claimed by somebody when its lease has run out: %s", job.name, error)
        self._metrics.settled(self.topic, done=isinstance(verdict, Done))


def operation_work(runner: Runner) -> Callable[[JobRecord], Verdict]:
    """Go on with operations, or pay their debts."""

    def work(job: JobRecord) -> Verdict:
        try:
            operation = runner.carry_on(job.operation)
        except Busy as error:
            if error.fields.get("operation") == job.operation:
                return Done()  # somebody is at it; if he dies, the reconciler finds out
            return Later(_BUSY_DELAY)
        if operation.state == ops.FINISHED or not runner.draining:
            return Done()  # what waits for a host is posted again when the host is back
        return Later()

    return work


def segment_work(runner: Runner) -> Callable[[JobRecord], Verdict]:
    """Do what this host was asked for."""

    def work(job: JobRecord) -> Verdict:
        if job.segment is None:
            return Done()
        try:
            segment = runner.run_segment(job.segment)
        except Busy:
            return Later(_BUSY_DELAY)
        return Done() if segment.ended or not runner.draining else Later()

    return work
