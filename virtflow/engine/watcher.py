"""Watches over what runs in this process: who was asked to stop, and that the claims go on holding."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from virtflow.engine.run import OperationRun
from virtflow.errors import Busy, DatabaseError
from virtflow.persistence import claim as claim_module
from virtflow.persistence.operations import Operation, OperationRepository

LOG = logging.getLogger(__name__)
_INTERVAL = 0.5
"""Seconds between two looks."""
_driven: set[str] = set()
"""The operations and segments that some runner of this process drives at the moment."""
_driven_lock = threading.Lock()


@contextmanager
def driving(subject: str, operation: Operation) -> Iterator[None]:
    """Drive the operation, or a segment of it, while the block runs, alone in this process; Busy while a thread does.

    Between processes the claim decides. Within one it cannot: all threads are the same owner.
    """
    with _driven_lock:
        if subject in _driven:
            raise Busy(target=operation.target, operation=operation.id, operation_kind=operation.kind)
        _driven.add(subject)
    try:
        yield
    finally:
        with _driven_lock:
            _driven.discard(subject)


def driven_in_this_process(subject: str) -> bool:
    """Whether a thread of this process is at work on the operation or segment."""
    return subject in _driven


class RunWatcher:
    """One thread per runner, started with its first run.

    Twice a second it asks the database which operations were asked to stop; every third of a lease it gives a sign of
    life for all claims. A run whose claim is lost is stopped: whatever it would still write is refused anyhow.
    """

    def __init__(self, operations: OperationRepository, lease: float) -> None:
        self._operations = operations
        self._pause = lease / 3
        self._runs: dict[str, OperationRun] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self, run: OperationRun) -> Iterator[None]:
        """Pass on a request to cancel, and keep the claim, while the block runs."""
        with self._lock:
            self._runs[run.claim.subject] = run
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="virtflow-watch", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._runs.pop(run.claim.subject, None)

    def cancel(self, operation: str) -> bool:
        """Stop what runs of an operation in this process at once, and ask the operations that it waits for to stop,
        wherever they run; False when nothing runs here."""
        runs = [run for run in self.running() if run.operation == operation]
        for run in runs:
            run.ask_to_cancel()
            for child in tuple(run.children):
                self._operations.request_cancel(child)
                self.cancel(child)
                run.children.discard(child)
        return bool(runs)

    def running(self) -> list[OperationRun]:
        with self._lock:
            return list(self._runs.values())

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        touched = time.monotonic()
        while not self._stop.wait(min(_INTERVAL, self._pause)):
            running = self.running()
            if not running:
                touched = time.monotonic()
                continue
            try:
                for operation in self._operations.cancelled([run.operation for run in running]):
                    self.cancel(operation)
                if time.monotonic() - touched >= self._pause / 2:
                    self._touch(running)
                    touched = time.monotonic()
            except DatabaseError as error:
                LOG.warning("cannot look for cancel requests, nor show that this process lives: %s", error)

    def _touch(self, running: list[OperationRun]) -> None:
        """What has committed lately has given a sign of life with that."""
        lost = []
        silent = time.monotonic() - self._pause
        for run in [run for run in running if run.recorder.flushed_at < silent]:
            # Each by itself: the writer, too, changes the claims of several runs at once, in an order of its own.
            database = self._operations.database
            with database.transaction(durable=False) as connection:
                lost += claim_module.touch(connection, [run.claim], database.clock.now())
        for run in running:
            if run.claim in lost and run in self.running():
                LOG.warning("%s %s was taken over by another process: it is left alone here", *_named(run))
                run.cancel.set()


def _named(run: OperationRun) -> tuple[str, str]:
    whole = run.claim.subject == run.operation
    return ("operation", run.operation) if whole else ("segment", run.claim.subject)
