"""``python -m benchmarks.spawn_memory URI DIRECTORY FORMAT MIB``: the peak memory of one cold spawn.

Prints JSON: MiB of the process itself, and of the largest program that it ran.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

from benchmarks.on_host import add_image, request, runner
from virtflow import DeleteRequest
from virtflow.images.catalog import LocalCatalog


def main() -> None:
    uri, directory, disk_format, size = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    with runner(uri, directory / "state") as cold:
        if disk_format == "raw":
            add_image(cold, "image", size << 20)
        else:
            path = directory / "image.qcow2"
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, f"{size}M"], check=True)
            LocalCatalog(cold.config.images.catalog).add(path, "image", "qcow2")
        name = f"{disk_format}{size}"
        cold.run(request(name, "image", disk_gib=3))
        peaks = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        cold.run(DeleteRequest(name=name))
        print(json.dumps(peaks))


if __name__ == "__main__":
    main()
