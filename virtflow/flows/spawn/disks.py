"""The disks of a spawn, on the host: which tasks there are follows from the specification alone.

- the root disk, of an image: FetchBase, SizeBase, then CreateCowOverlay or CreateFlatDisk, by the backend
- the root disk, of a snapshot of changes: FetchSnapshotBase beside FetchDelta, SizeBase, CreateSnapshotDisk
- none, where the instance boots from a volume
- ConnectVolumes: where it has volumes
- CreateEphemerals, CreateSwap, FetchKernel, FetchRamdisk: where they are wanted; none waits for another

All but the fetching wait for MakeInstanceDir, by what they require.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from virtflow.images.disk_backends import OVERLAY
from virtflow.images.kinds import DELTA
from virtflow.tasks.base import Task
from virtflow.tasks.blank_disks import CreateEphemerals, CreateSwap
from virtflow.tasks.disks import CreateCowOverlay
from virtflow.tasks.domain_description import boots_from_volume
from virtflow.tasks.images import FetchBase, FetchKernel, FetchRamdisk, FetchSnapshotBase, SizeBase
from virtflow.tasks.root_disks import CreateFlatDisk, CreateSnapshotDisk, FetchDelta
from virtflow.tasks.spawn_volumes import ConnectVolumes


@dataclass(frozen=True)
class DiskShape:
    """What decides the graph."""

    delta: bool = False
    overlay: bool = True
    ephemerals: bool = False
    swap: bool = False
    kernel: bool = False
    ramdisk: bool = False
    root: bool = True
    volumes: bool = False


def disk_shape(spec: Mapping[str, Any]) -> DiskShape:
    return DiskShape(
        delta=spec["image_kind"] == DELTA,
        overlay=spec["disk_backend"] == OVERLAY,
        ephemerals=bool(spec["ephemerals"]),
        swap=spec["swap_mib"] > 0,
        kernel=spec["kernel"] is not None,
        ramdisk=spec["ramdisk"] is not None,
        root=not boots_from_volume(spec),
        volumes=bool(spec.get("volumes")),
    )


def disk_tasks(shape: DiskShape) -> list[Task]:
    """The tasks, in no order but that of their data."""
    fetch: list[Task] = [FetchDelta(), FetchSnapshotBase()] if shape.delta else [FetchBase()]
    tasks = [*fetch, SizeBase(), root_disk_maker(shape)] if shape.root else []
    optional: list[tuple[bool, type[Task]]] = [
        (shape.ephemerals, CreateEphemerals),
        (shape.swap, CreateSwap),
        (shape.kernel, FetchKernel),
        (shape.ramdisk, FetchRamdisk),
        (shape.volumes, ConnectVolumes),
    ]
    return tasks + [task() for wanted, task in optional if wanted]


def root_disk_maker(shape: DiskShape) -> Task:
    """The task that makes the root disk; injection makes it anew with it when it was interrupted."""
    if shape.delta:
        return CreateSnapshotDisk()
    return CreateCowOverlay() if shape.overlay else CreateFlatDisk()


def optional_results(shape: DiskShape) -> tuple[str, ...]:
    """What the domain has to wait for: TaskFlow does not order by optional arguments."""
    results = (
        (shape.root, "root_disk"),
        (shape.volumes, "volume_disks"),
        (shape.ephemerals, "ephemeral_disks"),
        (shape.swap, "swap_disk"),
        (shape.kernel, "kernel"),
        (shape.ramdisk, "ramdisk"),
    )
    return tuple(name for wanted, name in results if wanted)
