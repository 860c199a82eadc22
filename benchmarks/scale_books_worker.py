"""A scheduler whose operations only sleep: ``python -m benchmarks.scale_books_worker URL DIRECTORY NAME SECONDS``.

Takes jobs from the board, decides, claims the host, holds it for up to SECONDS, gives it back, finishes the job.
Answers when its input ends, with its CPU seconds and how often a claim was refused: another scheduler was quicker.
"""

from __future__ import annotations

import heapq
import json
import random
import sys
import threading
import time
from dataclasses import dataclass, field

from benchmarks.simulated import SPEC, configuration, registry
from virtflow.errors import Conflict, HostFull
from virtflow.persistence.jobs import JobRecord
from virtflow.persistence.posting import OPERATIONS
from virtflow.worker.connecting import connect

_LEASE = 3600.0
_IDLE = 0.05


@dataclass(order=True)
class _Held:
    until: float
    host: str = field(compare=False)
    job: JobRecord = field(compare=False)


class Books:
    """One scheduler."""

    def __init__(self, url: str, directory: str, name: str, seconds: float) -> None:
        patient = {"database__busy_timeout": 3600, "worker__host_down_after": 86400}
        config = configuration(url, directory, name, engine__mode="workers", **patient)
        self._runner, self._board = connect(config, registry=registry())
        services = self._runner.services
        self._choice, self._placement = services["host_choice"], services["placement"]
        self._name, self._seconds = name, seconds
        self._random = random.Random(name)
        self._held: list[_Held] = []
        self.refused = 0

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self._finish_due()
            job = self._board.claim([OPERATIONS], self._name, _LEASE)
            if job is None:
                stop.wait(_IDLE)
                continue
            host = self._place(job.operation)
            until = time.monotonic() + self._random.uniform(0, self._seconds)
            heapq.heappush(self._held, _Held(until, host, job))

    def close(self) -> None:
        self._runner.close()

    def _place(self, operation: str) -> str:
        """As NextHost, SelectHost and ClaimHost do it."""
        attempt: dict[str, object] = {"attempt": 1, "tried": {}, "alternates": []}
        while True:
            decision = self._choice.choose(SPEC, operation, operation, attempt)
            try:
                if decision.chosen is not None:
                    amounts = {"vcpus": SPEC["vcpus"], "memory_mib": SPEC["memory_mib"]}
                    self._placement.claim(
                        decision.chosen, operation, operation, disk_gib=SPEC["claimed_disk_gib"], **amounts
                    )
                    return str(decision.chosen)
                self._finish_due()
                time.sleep(_IDLE)
            except (Conflict, HostFull):
                self.refused += 1
            attempt = {**attempt, "attempt": int(str(attempt["attempt"])) + 1}

    def _finish_due(self) -> None:
        while self._held and self._held[0].until <= time.monotonic():
            held = heapq.heappop(self._held)
            assert self._placement.release(held.host, held.job.operation)
            assert self._board.finish(held.job)


def main() -> None:
    url, directory, name, seconds = sys.argv[1:]
    books = Books(url, directory, name, float(seconds))
    stop = threading.Event()
    thread = threading.Thread(target=books.run, args=(stop,))
    thread.start()
    print("ready", flush=True)
    sys.stdin.read()
    stop.set()
    thread.join()
    print(json.dumps({"cpu": time.process_time(), "refused": books.refused}), flush=True)
    books.close()


if __name__ == "__main__":
    main()
