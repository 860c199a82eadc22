"""A worker in a process of its own whose operations do nothing: ``python -m benchmarks.latency_worker URL DIRECTORY``.

It runs until its input ends, which is also when whoever started it dies.
"""

from __future__ import annotations

import sys

from benchmarks.simulated import configuration, registry
from virtflow.worker.worker import Worker


def main() -> None:
    url, directory = sys.argv[1:]
    worker = Worker(configuration(url, directory, "simulated"), registry=registry())
    worker.runner.core.hosts.register("simulated", 4, 4096, 40, worker=worker.runner.core.owner)
    # The host is a name only: there is no hypervisor to ask.
    worker._registration = None
    with worker:
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
