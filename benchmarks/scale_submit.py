"""Whoever submits: ``python -m benchmarks.scale_submit URL DIRECTORY COUNT [OPTION=VALUE...]``.

One operation after the other; then it waits until its input ends.
"""

from __future__ import annotations

import sys
import uuid

from benchmarks.simulated import Simulated, configuration, options, registry
from virtflow.worker.connecting import connect


def main() -> None:
    url, directory, count, *rest = sys.argv[1:]
    runner, _board = connect(configuration(url, directory, "client", **options(rest)), registry=registry())
    with runner:
        print("ready", flush=True)
        for _ in range(int(count)):
            runner.submit(Simulated("placed", uuid.uuid4().hex))  # type: ignore[arg-type]
        sys.stdin.read()


if __name__ == "__main__":
    main()
