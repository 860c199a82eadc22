"""One system in a process of its own: ``python -m benchmarks.worker SYSTEM URL TASKS``.

Reads ``FLOWS IN_FLIGHT`` from stdin, one round a line, and answers each with the seconds and CPU seconds it took.
"""

from __future__ import annotations

import sys
import time

from benchmarks.systems import prepare


def main() -> None:
    system, url, tasks = sys.argv[1:]
    run = prepare(system, url, int(tasks))
    print("ready", flush=True)
    for line in sys.stdin:
        flows, in_flight = map(int, line.split())
        cpu, start = time.process_time(), time.perf_counter()
        run(flows, in_flight)
        print(time.perf_counter() - start, time.process_time() - cpu, flush=True)


if __name__ == "__main__":
    main()
