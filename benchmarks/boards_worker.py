"""One process at a board: ``python -m benchmarks.boards_worker SYSTEM URL``. Reads commands, answers each in a line.

``post N``, ``fill N``: seconds. ``left``: how many jobs. ``go``: works in a thread; ``stop``: how many it finished,
when the first and the last (CLOCK_MONOTONIC), CPU seconds. ``claims N``, ``heard N``: see VirtflowBoard. ``notify N``:
when it posted each of N jobs, a tenth of a second apart.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from typing import Any

from benchmarks.boards_systems import SYSTEMS, System


class Working:
    """From ``go`` to ``stop``."""

    def __init__(self, system: System) -> None:
        self._times: list[float] = []
        self._cpu = time.process_time()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=system.work, args=(self._finished, self._stop))
        self._thread.start()

    def _finished(self) -> None:
        self._times.append(time.monotonic())

    def stop(self) -> list[float]:
        cpu = time.process_time() - self._cpu
        self._stop.set()
        self._thread.join()
        first, last = (self._times[0], self._times[-1]) if self._times else (0.0, 0.0)
        return [len(self._times), first, last, cpu]


def notify(system: Any, count: int) -> list[float]:
    times = []
    for _ in range(count):
        time.sleep(0.1)
        times.append(time.monotonic())
        system.post(1)
    return times


def timed(call: Any, count: int) -> float:
    start = time.perf_counter()
    call(count)
    return time.perf_counter() - start


def main() -> None:
    logging.disable(logging.CRITICAL)
    name, url = sys.argv[1:]
    system: Any = SYSTEMS[name](url)
    working: Working | None = None
    answer: Any = "ready"
    print(json.dumps(answer), flush=True)
    for line in sys.stdin:
        command, *rest = line.split()
        count = int(rest[0]) if rest else 0
        if command == "go":
            working, answer = Working(system), "going"
        elif command == "stop":
            assert working is not None
            answer = working.stop()
        elif command in ("post", "fill"):
            answer = timed(getattr(system, command), count)
        elif command == "notify":
            answer = notify(system, count)
        else:
            answer = getattr(system, command)(*([count] if rest else []))
        print(json.dumps(answer), flush=True)
    system.close()


if __name__ == "__main__":
    main()
