"""Keeps the claims of jobs alive while they are worked on, however long a task takes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from virtflow.errors import BoardUnreachable
from virtflow.worker.boards.board import Board, JobRecord

LOG = logging.getLogger(__name__)


class Leases:
    """One thread that extends every held job each third of a lease. Thread-safe."""

    def __init__(self, board: Board, lease: float) -> None:
        self._board = board
        self._lease = lease
        self._held: dict[str, JobRecord] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def holding(self, job: JobRecord) -> Iterator[None]:
        """Hold the job while the block runs.

        Losing it stops nothing: the claim in the database decides who may go on, and its loss is noticed there.
        """
        with self._lock:
            self._held[job.id] = job
            if self._thread is None:
                self._thread = threading.Thread(target=self._extend_all, name="virtflow-leases", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._held.pop(job.id, None)

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _extend_all(self) -> None:
        while not self._stop.wait(self._lease / 3):
            with self._lock:
                held = list(self._held.values())
            for job in held:
                try:
                    if not self._board.extend(job, self._lease) and self._holds(job):
                        LOG.warning("job %s was taken by another worker", job.name)
                except BoardUnreachable as error:
                    LOG.warning("cannot extend the lease of job %s: %s", job.name, error)

    def _holds(self, job: JobRecord) -> bool:
        with self._lock:
            return job.id in self._held
