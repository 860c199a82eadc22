"""Volumes of a node whose backends keep them in files."""

from __future__ import annotations

from pathlib import Path

from tests.functional.nodes import Node
from virtflow.persistence.volumes import Volume
from virtflow.requests import VolumeCreateRequest


def make(node: Node, name: str, **fields: object) -> Volume:
    """One of a GiB, unless the fields of the request say something else."""
    node.runner.run(VolumeCreateRequest(**{"name": name, "size_gib": 1, **fields}))  # type: ignore[arg-type]
    return volume(node, name)


def volume(node: Node, name: str) -> Volume:
    found: Volume = node.runner.services["volumes"].find(name, node.config.project)
    return found


def file_of(node: Node, made: Volume) -> Path:
    """What its backend keeps it in."""
    assert made.backend is not None
    return node.state / "volumes" / made.backend.partition("@")[2] / f"volume-{made.id}"
