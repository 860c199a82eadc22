"""What is purged, and how: of every kind of operation that puts something into a trash."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from virtflow.persistence.operations import Operation
from virtflow.tasks.evacuate import left_behind

Results = Mapping[str, Any]
CLEAN = "evacuate-clean"


def purge_of(trashing: Operation, results: Results) -> tuple[str, dict[str, Any]]:
    """The kind of the purge, and its request. ``results`` are those of the operation that filled the trash, by task."""
    kind, request = _PURGES[trashing.kind]
    if trashing.kind == CLEAN:  # what it has cleaned up was its request
        results = trashing.request
    return kind, {"operation": trashing.id, **request(results)}


def _of_instance(results: Results) -> dict[str, Any]:
    instance_uuid, _instance, host = results.get("LockInstance", results.get("LockForConfirm"))[:3]
    return {"instance_uuid": instance_uuid, "host": host}


def _of_left(left: Results) -> dict[str, Any]:
    return {name: left[name] for name in ("instance_uuid", "host")}


def _of_volume(results: Results) -> dict[str, Any]:
    return {**results["DescribeTrash"], "host": results["HoldVolume"][2]}


def _of_snapshot(results: Results) -> dict[str, Any]:
    return {**results["DescribeTrash"], "host": results["HoldSnapshot"][2]}


def _of_migration(results: Results) -> dict[str, Any]:
    return dict(results["SwitchHost"])


_PURGES: dict[str, tuple[str, Callable[[Results], dict[str, Any]]]] = {
    "delete": ("purge", _of_instance),
    "resize-confirm": ("purge", _of_instance),
    "live-migrate": ("live-migrate-clean", _of_migration),
    "evacuate": ("evacuate-clean", left_behind),
    "evacuate-clean": ("purge", _of_left),
    "volume-delete": ("volume-purge", _of_volume),
    "volume-snapshot-delete": ("volume-purge", _of_snapshot),
}
OF_INSTANCES = ("delete", "resize-confirm", "evacuate-clean")
OF_MIGRATIONS = ("live-migrate", "evacuate")
OF_VOLUMES = ("volume-delete", "volume-snapshot-delete")
"""Kinds of operations that leave something to be removed, by whose retention counts: that of migrations is none."""
