"""``python -m benchmarks.cold_spawn URI DIRECTORY``: a cold spawn alone, eight at once of another image, one alone.

One alone is the slowest single chain of steps: download, sized base, overlay, definition, start, one after the other,
from the request to the running guest. Prints JSON: seconds of the chain (the mean of before and after) and of the
eight, how often their image was read from its source, and how large it is.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.on_host import HALT, request, runner
from virtflow import DeleteRequest, Runner
from virtflow.images.catalog import LocalCatalog
from virtflow.images.records import ImageRecord

AT_ONCE = 8
_DENSE = 2 << 30
"""Bytes of the image, none of them a hole: what Debian's cloud image has, and fetching it is most of a cold spawn."""


class CountingCatalog(LocalCatalog):
    """Counts how often somebody starts to read an image."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.downloads: list[str] = []

    def read(self, record: ImageRecord, offset: int) -> Iterator[bytes]:
        self.downloads.append(record.name)
        return super().read(record, offset)


def main() -> None:
    uri, directory = sys.argv[1], Path(sys.argv[2])
    with runner(uri, directory / "state") as cold:
        catalog = CountingCatalog(cold.config.images.catalog)
        cold.services._made["image_source"] = catalog
        before = _spawn(cold, "before", 1)
        together = _spawn(cold, "many", AT_ONCE)
        after = _spawn(cold, "after", 1)
        seconds = {"chain": (before + after) / 2, "together": together}
        print(json.dumps({**seconds, "downloads": catalog.downloads.count("many"), "mib": _DENSE >> 20}))


def _add_dense(to: Runner, name: str) -> None:
    path = Path(to.config.state_dir, f"{name}.raw")
    with path.open("wb") as image:
        image.write(HALT)
        block = os.urandom(1 << 20)
        for _ in range(_DENSE >> 20):
            image.write(block)
        image.truncate(_DENSE)
    LocalCatalog(to.config.images.catalog).add(path, name, "raw")
    path.unlink()


def _spawn(cold: Runner, image: str, count: int) -> float:
    def spawn(number: int) -> Any:
        return cold.run(request(f"{image}{number}", image, disk_gib=4))

    _add_dense(cold, image)
    os.sync()  # or this one pays for what those before it wrote
    start = time.perf_counter()
    with ThreadPoolExecutor(count) as pool:
        assert all(operation.outcome == "SUCCESS" for operation in pool.map(spawn, range(count)))
        seconds = time.perf_counter() - start
        list(pool.map(lambda number: cold.run(DeleteRequest(name=f"{image}{number}")), range(count)))
    _forget(cold, image)
    return seconds


def _forget(cold: Runner, image: str) -> None:
    """Image and bases go, so that the memory that caches files is there for the next ones."""
    LocalCatalog(cold.config.images.catalog).remove(image)
    for base in Path(cold.config.instances.path, "_base").iterdir():
        base.unlink()


if __name__ == "__main__":
    main()
