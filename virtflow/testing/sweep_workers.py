"""Several sweeps at once: worker processes, each with hosts of its own, that try cases as they are asked to.

Most of a case is waiting (for QEMU to end, for disks), so two workers per processor pay. Workers are started afresh and
not forked, because whoever sweeps may have opened libvirt itself.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from types import TracebackType
from typing import IO, Self

from virtflow.testing.sweep import CaseResult, Sweep
from virtflow.testing.sweep_cases import find_case


class SweepWorkers:
    """``count`` worker processes, started when they are first needed."""

    def __init__(self, count: int) -> None:
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._workers = [_Worker() for _ in range(count)]
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="sweep")

    def submit(self, reference: str, case: str) -> Future[CaseResult]:
        """Try a case of the scenario ``reference`` (``module:NAME``) when a worker is free."""
        return self._threads.submit(self._try, reference, case)

    def writes(self, reference: str, prefix: str = "", sides: Sequence[str] = ("before", "after")) -> list[CaseResult]:
        """Kill at every durable write of the operation, on each of these sides of it; the results of all."""
        # How many there are is found out by a run that is to be killed at one that never comes.
        total = self.submit(reference, f"{prefix}write/100000/before").result().writes
        cases = [f"{prefix}write/{number}/{when}" for number in range(1, total + 1) for when in sides]
        return self.all(reference, cases)

    def all(self, reference: str, cases: Sequence[str]) -> list[CaseResult]:
        """Try all of them; in the order given."""
        return [future.result() for future in [self.submit(reference, case) for case in cases]]

    def close(self) -> None:
        """Forget what is waiting, let what runs finish, and take all hosts away."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _try(self, reference: str, case: str) -> CaseResult:
        worker = self._idle.get()
        try:
            return worker.ask(reference, case)
        finally:
            self._idle.put(worker)


class _Worker:
    """One process; asks and answers are lines of JSON."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, reference: str, case: str) -> CaseResult:
        process = self._started()
        print(json.dumps([reference, case]), file=_pipe(process.stdin), flush=True)
        answer = _pipe(process.stdout).readline()
        if not answer:
            self.close()
            raise RuntimeError(f"the worker ended with status {process.returncode} at {reference} {case}")
        plain = json.loads(answer)
        return CaseResult(**{**plain, "problems": tuple(plain["problems"])})

    def close(self) -> None:
        if self._process is not None:
            _pipe(self._process.stdin).close()
            _pipe(self._process.stdout).read()
            self._process.wait()
            _pipe(self._process.stdout).close()
            self._process = None

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            command = [sys.executable, "-m", "virtflow.testing.sweep_workers"]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self._process


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def _serve() -> None:
    """The worker: until nobody asks any more."""
    sweeps: dict[str, Sweep] = {}
    try:
        for line in sys.stdin:
            reference, name = json.loads(line)
            sweep = sweeps.setdefault(reference, Sweep(reference))
            try:
                result = sweep.run(find_case(sweep.scenario, name))
            except Exception:  # noqa: BLE001 - this case's problem, not the next one's
                result = CaseResult(name, None, (traceback.format_exc(),), 0, False, 0, 0.0, "")
            print(json.dumps(asdict(result)), flush=True)
    finally:
        for sweep in sweeps.values():
            sweep.close()


if __name__ == "__main__":
    _serve()
