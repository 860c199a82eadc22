"""A worker that runs operations only: ``python -m benchmarks.scale_worker URL DIRECTORY THREADS [OPTION=VALUE...]``.

Answers with its CPU seconds and commits when its input ends.
"""

from __future__ import annotations

import json
import sys
import time

from benchmarks.simulated import configuration, options, registry
from virtflow.worker.worker import Worker


def main() -> None:
    url, directory, threads, *rest = sys.argv[1:]
    chosen = {
        "worker__operation_threads": int(threads),
        "engine__threads": int(threads),
        "scheduler__host_subset_size": 20,
        **options(rest),
    }
    worker = Worker(configuration(url, directory, "scheduler", **chosen), ["operations"], registry=registry())
    with worker:
        print("ready", flush=True)
        sys.stdin.read()
        answer = {"cpu": time.process_time(), "commits": worker.runner.core.writer.commits}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
