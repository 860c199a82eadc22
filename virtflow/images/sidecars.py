"""What is known of a file of the cache, kept beside it as JSON and published before it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from virtflow.files.durable import SHARED, publish, write_new
from virtflow.images import names

_log = logging.getLogger(__name__)


def read_sidecar(path: Path) -> dict[str, Any] | None:
    """What is known of the file at ``path``, or None when nothing, or nothing legible, is."""
    try:
        plain = json.loads(sidecar(path).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        _log.warning("cannot read what is known of %s: %s", path, error)
        return None
    return plain if isinstance(plain, dict) else None


def write_sidecar(path: Path, plain: Mapping[str, Any]) -> None:
    """Publish what is known of the file that will be at ``path``. Raises HostStorageError."""
    staged = path.with_name(path.name + names.SIDECAR_STAGED)
    write_new(staged, json.dumps(plain, indent=1).encode())
    publish(staged, sidecar(path), SHARED)


def sidecar(path: Path) -> Path:
    """Where it is kept; its time of modification is when the file was last asked for."""
    return path.with_name(path.name + names.SIDECAR)
