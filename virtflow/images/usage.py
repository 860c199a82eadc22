"""Which bases the disks on this host stand on, read from the disks themselves."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from virtflow.images.qcow2_header import MAGIC, backing_name
from virtflow.images.refusals import HeaderRefused

_HEAD = 64 * 1024


def backing_files(instances_path: Path, apart_from: Path) -> set[str]:
    """The backing file of every disk below the directory of instances, the trash and disks being built included.

    ``apart_from`` is the cache itself. A guest that writes a qcow2 header on a raw disk can keep a base from being
    pruned, no more: QEMU is not asked. Raises OSError.
    """
    return {name for path in _files(instances_path, apart_from) if (name := _backing_file(path)) is not None}


def _files(top: Path, apart_from: Path) -> Iterator[Path]:
    for directory, below, files in os.walk(top):
        below[:] = [name for name in below if Path(directory, name) != apart_from]
        yield from (Path(directory, name) for name in files)


def _backing_file(path: Path) -> str | None:
    with contextlib.suppress(FileNotFoundError, HeaderRefused):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                head = file.read(_HEAD)
            if head.startswith(MAGIC) and (name := backing_name(head)):
                return os.path.join(path.parent, os.fsdecode(name))
    return None
