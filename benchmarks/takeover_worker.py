"""A worker of operations whose one task takes its time: ``python -m benchmarks.takeover_worker URL DIRECTORY NAME
SECONDS [OPTION=VALUE...]``. It runs until its input ends, or it is killed.
"""

from __future__ import annotations

import sys

from benchmarks.simulated import configuration, options, registry
from virtflow.worker.worker import Worker


def main() -> None:
    url, directory, name, seconds, *rest = sys.argv[1:]
    config = configuration(url, directory, name, **options(rest))
    with Worker(config, ["operations"], registry=registry(first=float(seconds))):
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
