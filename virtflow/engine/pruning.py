"""Remove from the image cache what nobody has used for a while. What is in use is asked in two places: the references
in the database, and the disks and domains that are there; either is enough."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from virtflow.errors import InvalidDomainXml
from virtflow.files.durable import storage_errors
from virtflow.images.usage import backing_files


def prune_images(services: Mapping[str, Any], unused_seconds: float) -> list[Path]:
    """Remove unused bases, and what killed downloads have left; return the files. Raises HostStorageError."""
    settings, cache = services["settings"], services["image_cache"]
    with storage_errors("search", settings.instances_path):
        found = backing_files(settings.instances_path, settings.base_path) | _boot_files(settings.instances_path)
    in_use = _InUse(found, services["base_references"], settings.host)
    leftovers: list[Path] = cache.remove_leftovers(unused_seconds)
    return [*leftovers, *cache.prune(in_use, unused_seconds)]


class _InUse(Collection[str]):
    """Paths found on the host, and those that the database refers to at the moment of the question."""

    def __init__(self, found: Collection[str], base_references: Any, host: str) -> None:
        self._found = found
        self._base_references = base_references
        self._host = host

    def __contains__(self, path: object) -> bool:
        return path in self._found or bool(self._base_references.references(base_path=path, host=self._host))

    def __iter__(self) -> Iterator[str]:
        yield from {*self._found, *(each.base_path for each in self._base_references.references(host=self._host))}

    def __len__(self) -> int:
        return len(list(iter(self)))


def _boot_files(instances_path: Path) -> set[str]:
    """Kernels and ramdisks of the instances' domains."""
    from virtflow.hypervisor.safe_xml import parse

    files: set[str] = set()
    for path in (*instances_path.glob("*/libvirt.xml"), *instances_path.glob("_trash/*/libvirt.xml")):
        with contextlib.suppress(FileNotFoundError, InvalidDomainXml):
            domain = parse(path.read_text())
            files |= {text for tag in ("os/kernel", "os/initrd") if (text := domain.findtext(tag))}
    return files
