"""``python -m benchmarks [--rounds N] [NAME...]``: prints tables, and whether the targets are met."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable

from benchmarks.boards import boards
from benchmarks.driver import driver
from benchmarks.guest_data import config_drive, injection
from benchmarks.latency import latency
from benchmarks.live_migration import live_migration
from benchmarks.replay import replay
from benchmarks.scale import scale
from benchmarks.scheduling import scheduling
from benchmarks.spawn import cold_spawns, memory, warm_spawn
from benchmarks.startup import startup
from benchmarks.steps import slow_disk, steps
from benchmarks.table import Target, show_targets
from benchmarks.takeover import takeover
from benchmarks.transfer import resize, transfer
from benchmarks.volume_attach import volume_attach
from benchmarks.volumes import volume_of_image, volumes_at_once

BENCHMARKS: dict[str, Callable[[int], list[Target]]] = {
    "steps": steps,
    "slow-disk": slow_disk,
    "spawn": warm_spawn,
    "cold-spawns": cold_spawns,
    "memory": memory,
    "config-drive": config_drive,
    "injection": injection,
    "driver": driver,
    "startup": startup,
    "scheduling": scheduling,
    "boards": boards,
    "latency": latency,
    "takeover": takeover,
    "scale": scale,
    "replay": replay,
    "transfer": transfer,
    "resize": resize,
    "live-migration": live_migration,
    "volume-of-image": volume_of_image,
    "volumes-at-once": volumes_at_once,
    "volume-attach": volume_attach,
}


def main() -> int:
    """0 when every target that was measured is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones: {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds to take the median of (default: %(default)s)")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - BENCHMARKS.keys()
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped then, too
    targets = [t for name in arguments.names or BENCHMARKS for t in BENCHMARKS[name](arguments.rounds)]
    missed = [target for target in targets if not target.met]
    print(f"\n{len(targets) - len(missed)} of {len(targets)} targets are met")
    show_targets(missed)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
